"""A store's folder as a whole: one writer at a time, replaced or given up in one go."""

import shutil
from pathlib import Path

from filelock import FileLock, Timeout

from cache.errors import StoreLocked


def lock(path: Path) -> FileLock:
    """The lock of a store: a file beside it, held by the operating system and freed when its holder dies."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(f"{path}.lock", timeout=0)


def acquire(held: FileLock, path: Path) -> None:
    """Take the lock, or raise StoreLocked at once."""
    try:
        held.acquire()
    except Timeout:
        raise StoreLocked(
            f"{path}: another process is writing this store (it holds {held.lock_file}); "
            "wait until it ends, or stop it"
        ) from None


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
