"""Packages that only some work needs: imported where they are used, and named where they are missing."""

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def needed(what: str, package: str) -> Iterator[None]:
    """Around the import that `what`, a field or a command, asks for.

    Raises ValueError with the remedy where `package` cannot be imported.
    """
    try:
        yield
    except ImportError as error:
        raise ValueError(
            f"{what} needs {package}, which cannot be imported ({error}): `pip install {package}`"
        ) from error
