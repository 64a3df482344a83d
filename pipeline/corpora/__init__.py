"""Importers: from a corpus as it is published to rows of the manifest. Adding one: a file and a line here."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from stillwave.pipeline.corpora import custom, demo, folder, named, table
from stillwave.pipeline.corpora.base import Imported

# Each takes its own config class and the root; `kind` in the config has already decided which.
IMPORTERS: dict[str, Callable[[Any, Path], Imported]] = {
    "table": table.read,
    "folder": folder.read,
    "named": named.read,
    "demo": demo.read,
    "custom": custom.read,
}

_RENAMED = ("emodb", "fsdd", "ravdess", "crema_d", "urdu")


def _renamed(raw: Any) -> Any:
    if isinstance(raw, dict) and (kind := raw.get("kind")) in _RENAMED:
        raise ValueError(
            f"kind: {kind} is now configs/corpora/{kind}.yaml, of `kind: named`; copy that file, and set "
            "root, classes and split in it (RAVDESS's `channel: song` is `keep: {channel: [song]}`)"
        )
    return raw


CorpusConfig = Annotated[
    table.Table | folder.Folder | named.Named | demo.Demo | custom.Custom,
    Field(discriminator="kind"),
    BeforeValidator(_renamed),
]
