"""Optional packages: imported where they are used, with a clear error if they are missing."""

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def needed(what: str, package: str, extra: str | None = None) -> Iterator[None]:
    """Wrap an import that `what`, a field or a command, needs.

    extra: of Stillwave, that installs it. Raises ValueError with the remedy if `package` cannot be imported.
    """
    install = package if extra is None else f"'stillwave[{extra}]'"
    try:
        yield
    except ImportError as error:
        raise ValueError(
            f"{what} needs {package}, which cannot be imported ({error}): `pip install {install}`"
        ) from error
