"""A store's folder as a whole: one writer at a time, and replaced by another in one go."""

import shutil
from pathlib import Path

from filelock import FileLock, Timeout

from cache.errors import StoreLocked


def lock(path: Path) -> FileLock:
    """The lock of a store: a file beside it, held by the operating system and freed when its holder dies."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(f"{path}.lock", timeout=0)


def acquire(held: FileLock, path: Path) -> None:
    try:
        held.acquire()
    except Timeout:
        raise StoreLocked(
            f"{path}: another process is writing this store (it holds {held.lock_file}); "
            "wait until it ends, or stop it"
        ) from None


def exchange(path: Path, new: Path) -> None:
    """Put the folder `new` (`<path>.compact`) in the place of `path`."""
    old = Path(f"{path}.old")
    path.rename(old)
    new.rename(path)
    shutil.rmtree(old)


def recover_exchange(path: Path) -> None:
    """Finish, or undo, an exchange that was killed half-way."""
    old, new = Path(f"{path}.old"), Path(f"{path}.compact")
    if old.exists() and not path.exists():
        (new if new.exists() else old).rename(path)
    if path.exists():
        for leftover in (old, new):
            if leftover.exists():
                shutil.rmtree(leftover)
