"""A store on an object store (S3, GCS, Azure, ...), by fsspec: puts whole objects, reads byte ranges."""

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from glob import has_magic
from typing import Any, BinaryIO, cast

import fsspec  # type: ignore[import-untyped]

from stillwave.cache.errors import StoreError
from stillwave.cache.storage import Storage, cannot_write

CONCURRENT_READS = 32
_CHECK = "check the bucket, the endpoint, the network and the credentials"


class RemotePrefix(Storage):
    """All objects whose name starts with a URL.

    Needs what object stores guarantee: an object is put whole or not at all, and all later readers see it. A
    file system that writes in place (such as sftp://) does not; mount it and give the local path instead.
    """

    path: str

    def __init__(self, url: str) -> None:
        self.path = url if url.endswith("://") else url.rstrip("/")
        self._opened_by = -1
        _ = self._fs  # an unknown protocol, or one whose package is missing, is noticed here

    @property
    def _fs(self) -> Any:
        if self._opened_by != os.getpid():  # asynchronous file systems do not survive a fork
            try:
                # Listings are never cached: other machines write here.
                self._opened, root = fsspec.url_to_fs(self.path, use_listings_cache=False)
            except (ImportError, ValueError) as error:
                raise StoreError(f"{self.path}: fsspec cannot open it ({error})") from error
            self._root, self._opened_by = root.rstrip("/"), os.getpid()
        return self._opened

    def _name(self, key: str) -> str:
        return f"{self._root}/{key}" if key else self._root

    def read(self, key: str) -> bytes:
        with self._reading():
            return bytes(self._fs.cat_file(self._name(key)))

    def read_many(self, keys: Iterable[str]) -> dict[str, bytes]:
        keys = list(keys)
        found = zip(keys, self._fetch([(key, None, None) for key in keys]), strict=True)
        return {key: _bytes(data) for key, data in found if not isinstance(data, FileNotFoundError)}

    def read_ranges(self, ranges: Sequence[tuple[str, int, int]]) -> list[bytes]:
        return [_bytes(data) for data in self._fetch(ranges)]

    def _fetch(self, ranges: Sequence[tuple[str, int | None, int | None]]) -> list[Any]:
        """The bytes, or the exception raised, for each (key, start, stop), all read concurrently."""
        if not ranges:
            return []
        keys, starts, stops = map(list, zip(*ranges, strict=True))
        options = {"batch_size": CONCURRENT_READS} if self._fs.async_impl else {}
        with self._reading():
            found = self._fs.cat_ranges([self._name(key) for key in keys], starts, stops, **options)
            for data in found:
                if isinstance(data, BaseException) and not isinstance(data, FileNotFoundError):
                    raise data
            return list(found)

    def open(self, key: str) -> BinaryIO:
        with self._reading():
            return cast(BinaryIO, self._fs.open(self._name(key), "rb", cache_type="none"))

    def put(self, key: str, data: bytes | memoryview) -> None:
        with self._writing(key):
            self._fs.pipe_file(self._name(key), bytes(data))

    def put_new(self, key: str, data: bytes) -> bool:
        """Put an object unless there is one; returns whether it did.

        One conditional request on S3 (If-None-Match) and wherever fsspec supports one; on other file systems
        a check and then a put, between which another writer may come.
        """
        with self._writing(key):
            try:
                self._fs.pipe_file(self._name(key), data, mode="create")
            except FileExistsError:
                return False
        return True

    def exists(self, key: str) -> bool:
        with self._reading(), suppress(FileNotFoundError):
            return bool(self._fs.info(self._name(key))["type"] == "file")
        return False

    def sizes(self, prefix: str = "") -> dict[str, int]:
        with self._reading():
            try:
                found = self._fs.find(self._name(prefix), detail=True)
            except FileNotFoundError:
                return {}
        top, below = f"{self._root}/", self._name(prefix) + "/"
        names = sorted(name for name in found if name.startswith(below))
        return {name[len(top) :]: int(found[name]["size"]) for name in names}

    def modified(self, key: str) -> float:
        """When an object was put, in seconds by the server's clock; NotImplementedError if unknown."""
        with self._reading():
            return float(self._fs.modified(self._name(key)).timestamp())

    def delete(self, key: str) -> None:
        with self._writing(key), suppress(FileNotFoundError):
            self._fs.rm_file(self._name(key))

    def delete_tree(self, prefix: str) -> None:
        self._delete_all(self.sizes(prefix))

    def _delete_all(self, keys: Iterable[str]) -> None:
        names = [self._name(key) for key in keys]
        with self._writing(""):
            if has_magic(self._root):  # rm() would take its brackets for a pattern
                for name in names:
                    self._fs.rm_file(name)
            elif names:
                self._fs.rm(names)

    def map(self, key: str) -> None:
        return None

    def zarr_store(self) -> Any:
        from zarr.storage import FsspecStore

        return FsspecStore.from_url(self.path, {"use_listings_cache": False}, read_only=True)

    def resolve(self) -> "RemotePrefix":
        return self

    def recover(self) -> None:
        pass  # nothing is ever renamed here

    def interrupted(self) -> bool:
        return False

    def is_foreign(self) -> bool:
        return not self.exists("zarr.json") and bool(self.sizes())

    def sweep(self) -> None:
        pass  # an object is never half-written

    def discard(self, last: Sequence[str]) -> None:
        self._delete_all(key for key in self.sizes() if key not in last)
        for key in last:
            self.delete(key)

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """Turn errors other than FileNotFoundError into a StoreError that says what to check."""
        try:
            yield
        except (FileNotFoundError, NotImplementedError, StoreError):
            raise
        except Exception as error:
            raise StoreError(f"{self.path}: cannot be read ({_words(error)}); {_CHECK}") from error

    @contextmanager
    def _writing(self, key: str) -> Iterator[None]:
        try:
            yield
        except StoreError:
            raise
        except Exception as error:
            raise cannot_write(f"{self.path}/{key}", _words(error), _CHECK) from error


def _bytes(data: Any) -> bytes:
    if isinstance(data, BaseException):
        raise data
    return bytes(data)


def _words(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
