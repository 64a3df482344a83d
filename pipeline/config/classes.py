"""Classes and functions of the user's own, named in a config as `package.module:Name`."""

import re
from importlib import import_module
from typing import Any


def imported(path: str, field: str) -> Any:
    """What `path`, `package.module:Name`, names. Raises ValueError that calls it by `field`."""
    if not re.fullmatch(r"\w+(\.\w+)*:\w+", path):
        raise ValueError(f"{field}: {path!r} names no class; write package.module:Name")
    module, name = path.split(":")
    try:
        return getattr(import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ValueError(
            f"{field}: cannot import {path!r}: {error}; install its package, or put the folder that holds it "
            "on PYTHONPATH"
        ) from error
