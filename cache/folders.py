"""Replacing or deleting a whole local folder in one step."""

import re
import shutil
from pathlib import Path


def beside(path: Path, role: str) -> Path:
    """A hidden folder next to a store: `new` and `old` during a swap, `trash` while it is deleted."""
    return path.with_name(f".{path.name}.stillwave-{role}")


def exchange(path: Path, new: Path) -> None:
    """Replace `path` by the folder `new`, which is beside(path, "new")."""
    path.rename(beside(path, "old"))
    new.rename(path)
    shutil.rmtree(beside(path, "old"))


def discard(path: Path) -> None:
    """Delete a folder. It is renamed first, so a kill in between leaves no half of it in place."""
    trash = beside(path, "trash")
    shutil.rmtree(trash, ignore_errors=True)
    path.rename(trash)
    shutil.rmtree(trash)


def recover(path: Path) -> None:
    """Finish, or undo, a swap that was killed halfway, and clean up."""
    old, new = beside(path, "old"), beside(path, "new")
    if old.exists() and not path.exists():
        (new if new.exists() else old).rename(path)
    for leftover in (old, new, beside(path, "trash")):
        if leftover.exists() and path.exists():
            shutil.rmtree(leftover)


def is_partial(entry: Path) -> bool:
    """Whether the file is left from a run that was killed while it created a store."""
    return re.fullmatch(r"zarr\.[0-9a-f]{32}\.partial", entry.name) is not None
