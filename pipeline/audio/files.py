"""Single files at a local path or a URL that fsspec knows: reading, and writing them whole."""

from pathlib import Path

from stillwave.cache.places import is_url, split

__all__ = ["absolute", "beside", "is_url", "read_file", "write_if_changed"]


def read_file(path: str | Path) -> bytes:
    """All bytes of a file. OSError if it cannot be read; ValueError if its server does not answer."""
    storage, name = split(path)
    return storage.read(name)


def write_if_changed(path: str | Path, data: bytes) -> bool:
    """Write `data` to `path` in one step, unless it has these bytes already; returns whether it did."""
    storage, name = split(path)
    try:
        if storage.read(name) == data:
            return False
    except FileNotFoundError:
        pass
    storage.put(name, data)
    return True


def beside(path: str | Path, name: str) -> str:
    """The file called `name` in the folder, or under the URL, of `path`."""
    folder, slash, _ = str(path).rpartition("/")
    return f"{folder}{slash}{name}"


def absolute(path: str | Path) -> str:
    """The absolute path, for processes with other working directories; a URL as it is."""
    return str(path) if is_url(path) else str(Path(path).absolute())
