"""Importers: from a corpus as it is published to rows of the manifest. Adding one: a file and a line here."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

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
