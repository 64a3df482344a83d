"""Classes that a config names: by `kind`, or, for users' own classes, as `package.module:Name`."""

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from pydantic import ValidationError
from pydantic_core import PydanticCustomError

UNTRUSTED = (  # about what a run's config names
    "which runs code that the run's author chose. If you trust where the run comes from, give --trust-run "
    "(from Python: Run.open(folder, trusted=True))"
)


def imported(path: str, field: str) -> Any:
    """The object named by `package.module:Name`. ValueError naming field and value if there is none."""
    module, separator, name = path.partition(":")
    if not (module and separator and name):
        raise ValueError(f"`{field}` {path}: write package.module:Name")
    try:
        found = import_module(module)
    except ImportError as error:
        raise ValueError(
            f"`{field}` {path}: cannot be imported: {error}; install its package, or put its folder "
            "on PYTHONPATH"
        ) from error
    if not hasattr(found, name):
        raise ValueError(f"`{field}` {path}: the module {module} has no {name}")
    return getattr(found, name)


def of_kind(paths: Mapping[str, str], kind: Any, *others: str) -> Any:
    """The object that `paths` names for a `kind`. ValidationError listing all kinds, including `others`."""
    if (path := paths.get(str(kind))) is None:
        raise wrong("kind", kind, f"must be one of {', '.join(map(repr, (*paths, *others)))}")
    return imported(path, "kind")


def wrong(field: str, value: Any, message: str) -> ValidationError:
    """A pydantic error for one field."""
    problem = PydanticCustomError("class", "{message}", {"message": message})
    return ValidationError.from_exception_data("class", [{"type": problem, "loc": (field,), "input": value}])
