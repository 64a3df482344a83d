"""A local folder of ours as a whole: replaced or given up in one go."""

import re
import shutil
from pathlib import Path


def beside(path: Path, role: str) -> Path:
    """A hidden folder of ours next to a store: `new` and `old` of an exchange, `trash` being deleted."""
    return path.with_name(f".{path.name}.stillwave-{role}")


def exchange(path: Path, new: Path) -> None:
    """Put the folder `new`, which is beside(path, "new"), in the place of `path`."""
    path.rename(beside(path, "old"))
    new.rename(path)
    shutil.rmtree(beside(path, "old"))


def discard(path: Path) -> None:
    """Delete a folder of ours. It is renamed first: killed in between, no half of it is left in its place."""
    trash = beside(path, "trash")
    shutil.rmtree(trash, ignore_errors=True)
    path.rename(trash)
    shutil.rmtree(trash)


def recover(path: Path) -> None:
    """Finish, or undo, an exchange that was killed half-way, and sweep up."""
    old, new = beside(path, "old"), beside(path, "new")
    if old.exists() and not path.exists():
        (new if new.exists() else old).rename(path)
    for leftover in (old, new, beside(path, "trash")):
        if leftover.exists() and path.exists():
            shutil.rmtree(leftover)


def is_partial(entry: Path) -> bool:
    """Whether it is what a run killed while it made a store leaves in its folder."""
    return re.fullmatch(r"zarr\.[0-9a-f]{32}\.partial", entry.name) is not None
