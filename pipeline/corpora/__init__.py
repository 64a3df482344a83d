"""Published corpora to rows of the manifest. Each kind is one module here: a config that reads its corpus."""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import PlainValidator

from stillwave.pipeline.config.classes import of_kind
from stillwave.pipeline.corpora.base import CorpusBase

# By kind; a module is imported when a config asks for it.
CORPORA = {
    "table": "stillwave.pipeline.corpora.table:Table",
    "folder": "stillwave.pipeline.corpora.folder:Folder",
    "named": "stillwave.pipeline.corpora.named:Named",
    "demo": "stillwave.pipeline.corpora.demo:Demo",
    "custom": "stillwave.pipeline.corpora.custom:Custom",
}
_RENAMED = ("emodb", "fsdd", "ravdess", "crema_d", "urdu")


def _parsed(data: Any) -> CorpusBase:
    if isinstance(data, CorpusBase):
        return data
    if not isinstance(data, Mapping):
        raise ValueError("give the fields of a corpus, including its `kind`")
    if (kind := data.get("kind")) in _RENAMED:
        raise ValueError(
            f"kind: {kind} is now configs/corpora/{kind}.yaml, of `kind: named`; copy that file, and set "
            "root, classes and split in it (RAVDESS's `channel: song` is `keep: {channel: [song]}`)"
        )
    config: CorpusBase = of_kind(CORPORA, kind).model_validate(data)
    return config


CorpusConfig = Annotated[CorpusBase, PlainValidator(_parsed)]
