"""Classes of users' own, named in a config as `package.module:Name`."""

from importlib import import_module
from typing import Any


def imported(path: str, field: str) -> Any:
    """What `package.module:Name` names. ValueError naming the field and its value where there is none."""
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
