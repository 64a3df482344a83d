"""The file that a cell of a table names, though the file system may spell it otherwise."""

import os
import unicodedata
from collections.abc import Iterator
from pathlib import Path

from stillwave.pipeline.corpora.spelling import nfc


def is_there(path: Path) -> bool:
    """Whether there is such a file; a cell's text may be too long for a file name."""
    return os.path.isfile(path)  # noqa: PTH113 - Path.is_file raises for such a text


def located(root: Path, cell: str) -> Path:
    """The file that `cell` names, relative to `root` unless it is absolute; without one, as it is written.

    Also tried: without blanks around it, with `\\` read as `/`, `~` as the home folder, and in both of
    Unicode's forms, since tables and file systems may differ in them.
    """
    return next((path for path in _readings(root, cell) if is_there(path)), root / cell.strip())


def _readings(root: Path, cell: str) -> Iterator[Path]:
    yield root / cell
    bare = cell.strip()
    for text in dict.fromkeys([bare, bare.replace("\\", "/")]):
        for form in dict.fromkeys([text, nfc(text), unicodedata.normalize("NFD", text)]):
            yield root / form
            if form.startswith("~/"):
                yield Path(form).expanduser()
