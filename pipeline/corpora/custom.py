"""A corpus that the user's own code imports: `kind: custom`."""

from inspect import signature
from pathlib import Path

from stillwave.pipeline.config.classes import imported
from stillwave.pipeline.config.corpus import Custom
from stillwave.pipeline.corpora.base import Imported


def read(config: Custom, root: Path) -> Imported:
    """What `config.class_` gives for `root` and the further fields, checked. Raises ValueError."""
    target, fields = imported(config.class_, "class"), config.model_extra or {}
    try:
        signature(target).bind(root, **fields)
    except TypeError as error:
        raise ValueError(
            f"class: {config.class_!r} cannot be called with the root and {fields}: {error}; name a function "
            "that takes the root and these fields of the config"
        ) from None
    result = target(root, **fields)
    if not isinstance(result, Imported):
        raise ValueError(
            f"class: {config.class_!r} gives {type(result).__name__}; it should give an Imported, of "
            "stillwave.pipeline.corpora.base"
        )
    for number, row in enumerate(result.rows, start=1):
        same = row.keys() == result.rows[0].keys() and {"id", "path"} <= row.keys()
        if not same or not all(isinstance(value, str | None) for value in row.values()):
            raise ValueError(
                f"class: row {number} of {config.class_!r} is {row}; each row should have `id`, `path` and "
                "the columns of the first one, as text or None"
            )
    return result
