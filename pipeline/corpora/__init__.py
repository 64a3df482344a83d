"""Importers: from a corpus as it is published to rows of the manifest. Adding one: a file and a line here."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from stillwave.pipeline.corpora import crema_d, demo, emodb, folder, fsdd, ravdess, table, urdu
from stillwave.pipeline.corpora.base import Imported

# Each takes its own config class and the root; `kind` in the config has already decided which.
IMPORTERS: dict[str, Callable[[Any, Path], Imported]] = {
    "table": table.read,
    "folder": folder.read,
    "emodb": emodb.read,
    "fsdd": fsdd.read,
    "ravdess": ravdess.read,
    "crema_d": crema_d.read,
    "urdu": urdu.read,
    "demo": demo.read,
}
