"""Where a store's files are: one interface for a local folder and for a prefix of an object store.

A *key* is a file's path below the store, with slashes: "frames/c/0/0". A file is written whole or not at all,
and every later reader sees it. Everything else that a store guarantees is built on this.
"""

import mmap
import os
import shutil
import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from stillwave.cache import folders
from stillwave.cache.errors import StoreError


class Storage(ABC):
    """The files of one store. Its methods raise FileNotFoundError for a key that is not there."""

    path: Path | str  # the folder or URL, as given; messages name it

    def __str__(self) -> str:
        return str(self.path)

    @abstractmethod
    def read(self, key: str) -> bytes: ...

    @abstractmethod
    def read_many(self, keys: Iterable[str]) -> dict[str, bytes]:
        """Several whole files by key; missing ones are left out."""

    @abstractmethod
    def read_ranges(self, ranges: Sequence[tuple[str, int, int]]) -> list[bytes]:
        """Bytes `start` to `stop` of a file, for each (key, start, stop)."""

    @abstractmethod
    def open(self, key: str) -> BinaryIO:
        """A file to seek and read in."""

    @abstractmethod
    def put(self, key: str, data: bytes | memoryview) -> None:
        """Write a file in one step, flushed to disk. Raises StoreError if it cannot be written."""

    @abstractmethod
    def put_new(self, key: str, data: bytes) -> bool:
        """Write a file unless it exists; returns whether it did."""

    @abstractmethod
    def exists(self, key: str) -> bool: ...

    @abstractmethod
    def sizes(self, prefix: str = "") -> dict[str, int]:
        """Keys of all files below a folder, in order, and their sizes in bytes; empty if there are none."""

    @abstractmethod
    def delete(self, key: str) -> None:
        """Delete a file, if it is there."""

    @abstractmethod
    def delete_tree(self, prefix: str) -> None:
        """Delete all files below a folder, if there are any."""

    @abstractmethod
    def map(self, key: str) -> mmap.mmap | None:
        """The file as a read-only memory map, or None if that is not possible."""

    @abstractmethod
    def zarr_store(self) -> Any:
        """What Zarr reads the store through."""

    @abstractmethod
    def resolve(self) -> "Storage":
        """The same place under its canonical name, with symbolic links resolved."""

    @abstractmethod
    def recover(self) -> None:
        """Finish, or undo, a replacement of the whole store that was killed."""

    @abstractmethod
    def interrupted(self) -> bool:
        """Whether recover() must be called before the store can be read."""

    @abstractmethod
    def is_foreign(self) -> bool:
        """Whether files are here that none of our writers leaves without a zarr.json."""

    @abstractmethod
    def sweep(self) -> None:
        """Delete the half-written files of killed writers."""

    @abstractmethod
    def discard(self, last: Sequence[str]) -> None:
        """Delete all files: a folder in one step, objects one by one, those in `last` after the others."""


class LocalFolder(Storage):
    """A folder of the local file system."""

    path: Path

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self, key: str) -> bytes:
        return (self.path / key).read_bytes()

    def read_many(self, keys: Iterable[str]) -> dict[str, bytes]:
        found = {}
        for key in keys:
            with suppress(FileNotFoundError):
                found[key] = self.read(key)
        return found

    def read_ranges(self, ranges: Sequence[tuple[str, int, int]]) -> list[bytes]:
        pieces = []
        for key, start, stop in ranges:
            with self.open(key) as file:
                file.seek(start)
                pieces.append(file.read(stop - start))
        return pieces

    def open(self, key: str) -> BinaryIO:
        return (self.path / key).open("rb")

    def put(self, key: str, data: bytes | memoryview) -> None:
        target = self.path / key
        # A separate name for each attempt: two workers may write the same unit for a while.
        temporary = target.with_suffix(f".{uuid.uuid4().hex}.partial")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(target)
        except OSError as error:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise cannot_write(target, error.strerror or str(error)) from error

    def put_new(self, key: str, data: bytes) -> bool:
        raise NotImplementedError("a folder is locked by filelock, not by a file that is created once")

    def exists(self, key: str) -> bool:
        return (self.path / key).exists()

    def sizes(self, prefix: str = "") -> dict[str, int]:
        found = {}
        for folder, _, names in os.walk(self.path / prefix):
            for name in names:
                file = Path(folder, name)
                found[file.relative_to(self.path).as_posix()] = file.stat().st_size
        return dict(sorted(found.items()))

    def delete(self, key: str) -> None:
        (self.path / key).unlink(missing_ok=True)

    def delete_tree(self, prefix: str) -> None:
        shutil.rmtree(self.path / prefix, ignore_errors=True)

    def map(self, key: str) -> mmap.mmap | None:
        with self.open(key) as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)

    def zarr_store(self) -> Any:
        return self.path

    def resolve(self) -> "LocalFolder":
        return LocalFolder(self.path.resolve())

    def recover(self) -> None:
        folders.recover(self.path)

    def interrupted(self) -> bool:
        return not self.path.exists() and folders.beside(self.path, "old").exists()

    def is_foreign(self) -> bool:
        if not self.path.is_dir():
            return self.path.exists()
        return any(not folders.is_partial(entry) for entry in self.path.iterdir())

    def sweep(self) -> None:
        for leftover in self.path.rglob("*.partial"):
            leftover.unlink()

    def discard(self, last: Sequence[str]) -> None:
        if self.path.exists():
            folders.discard(self.path)


def cannot_write(target: Path | str, why: str, remedy: str = "make room, or give another path") -> StoreError:
    return StoreError(
        f"{target}: cannot be written ({why}); {remedy}, then run the same command again: a store resumes "
        "where it stopped"
    )
