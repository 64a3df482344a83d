"""From a path or URL to its storage."""

import re
from pathlib import Path

from stillwave.cache.errors import StoreError
from stillwave.cache.storage import LocalFolder, Storage


def open_storage(path: str | Path) -> Storage:
    """The storage at a local path, or at a URL that fsspec knows: "s3://bucket/a.zarr", "memory://a.zarr".

    Endpoint and credentials come from where fsspec and its file systems look for them: the environment
    (AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID, FSSPEC_S3_...) and ~/.config/fsspec. A relative path may be given as
    file://a.zarr.
    """
    text = str(path)
    if isinstance(path, Path) or "://" not in text:
        if re.match(r"[a-z][a-z0-9+.-]+:/(?!/)", text):
            raise StoreError(f"{text}: a URL that went through Path() has lost a slash; pass it as text")
        return LocalFolder(Path(path))
    if text.startswith("file://"):
        return LocalFolder(Path(text.removeprefix("file://")))
    from stillwave.cache.remote import RemotePrefix  # here: fsspec is slow to import

    return RemotePrefix(text)


def is_url(path: str | Path) -> bool:
    """Whether `path` is a URL, possibly on another machine."""
    return "://" in str(path) and not str(path).startswith("file://")


def split(path: str | Path) -> tuple[Storage, str]:
    """The folder or prefix that holds a file, and the file's name in it."""
    storage = open_storage(path)
    if isinstance(storage.path, Path):
        return LocalFolder(storage.path.parent), storage.path.name
    parent, _, name = storage.path.rpartition("/")
    return open_storage(f"{parent}/" if parent.endswith("/") else parent), name
