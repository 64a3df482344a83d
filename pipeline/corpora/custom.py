"""A corpus imported by the user's own code: `kind: custom`."""

from inspect import signature
from pathlib import Path
from typing import Literal

from pydantic import ConfigDict, Field

from stillwave.pipeline.config.classes import imported
from stillwave.pipeline.corpora.base import CorpusBase, Imported
from stillwave.pipeline.corpora.spans import read_span


class Custom(CorpusBase):
    """A corpus imported by your own code. `prepare` runs that code; a manifest, store or run never does.

    class: `package.module:Name` of a function or class. It is called with the root (a `Path`) and the
        config's further fields as keyword arguments, and returns an `Imported`
            (`stillwave.pipeline.corpora.base`), whose rows all have `id`, `path` and the same further
            columns, as text or None.
    """

    model_config = ConfigDict(extra="allow")

    kind: Literal["custom"]
    class_path: str = Field(alias="class")

    def read(self, root: Path) -> Imported:
        """The result of the config's class for `root` and the further fields, checked. Raises ValueError."""
        target, fields = imported(self.class_path, "class"), self.model_extra or {}
        where = f"`class` {self.class_path}"
        try:
            signature(target).bind(root, **fields)
        except (TypeError, ValueError) as error:  # ValueError: functions written in C have no signature
            raise ValueError(
                f"{where}: cannot be called with the root and {fields}: {error}; give a function that takes "
                "the root and these fields of the config"
            ) from None
        result = target(root, **fields)
        if not isinstance(result, Imported):
            raise ValueError(
                f"{where}: returned {type(result).__name__}; it should return an Imported "
                "(stillwave.pipeline.corpora.base)"
            )
        for number, row in enumerate(result.rows, start=1):
            alike = isinstance(row, dict) and {"id", "path"} <= row.keys() == result.rows[0].keys()
            if not alike or not all(isinstance(value, str | None) for value in row.values()):
                raise ValueError(
                    f"{where}: row {number} is {row}; each row should have `id`, `path` and the columns of "
                    "the first one, as text or None"
                )
            try:
                read_span(row)
            except ValueError as error:
                raise ValueError(f"{where}: row {number}: {error}") from None
        return result
