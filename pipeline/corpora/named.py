"""A corpus whose file names contain everything, by the rule in its config."""

import re
from pathlib import Path, PurePath, PurePosixPath
from typing import Literal

from pydantic import Field, model_validator

from stillwave.pipeline.config.base import Text
from stillwave.pipeline.config.corpus import Predefined
from stillwave.pipeline.corpora.base import (
    MEASURED,
    CorpusBase,
    Imported,
    Rejected,
    audio_files,
    check_no_span,
    compiled,
    keep_suffixes,
)
from stillwave.pipeline.corpora.spelling import nfc


class Named(CorpusBase):
    """A corpus whose file names contain everything: a regular expression, and the meaning of its named
    groups.

    pattern: a regular expression for the whole file name without its suffix, or for the name and the folders
        above it: `(?P<speaker>[A-Z]+)/(?P<emotion>[a-z]+)` reads `any/DC/sad.wav`. Each named group is a
        column; if one part holds two values, put a group within a group. `(?x)` at its start allows spaces
        and lines. Files that do not match are quarantined. The matched text is the row's id, unless there is
        a group `id`.
    example: a file of the corpus, with the folders that `pattern` reads, to check the config.
    names: how quarantine.csv refers to such names.
    values: column -> text in the file's name -> value; columns not listed keep the text itself.
    constants: as for a table.
    columns: the manifest's columns, in this order; null takes all groups, then all constants.
    keep: column -> values to import; rows with other values are counted as left out.
    """

    kind: Literal["named"]
    pattern: str
    example: str
    names: str = "the corpus's names"
    values: dict[str, dict[Text, Text]] = Field(default_factory=dict)
    constants: dict[str, Text] = Field(default_factory=dict)
    columns: list[str] | None = None
    keep: dict[str, list[Text]] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _fits_its_pattern(self) -> "Named":
        groups = [group for group in compiled(self.pattern, "pattern").groupindex if group != "id"]
        there = [*groups, *self.constants]
        check_no_span(there)
        reserved = {"id", "path", *MEASURED}
        if taken := sorted({name for name in there if there.count(name) > 1 or name in reserved}):
            raise ValueError(f"{', '.join(taken)}: reserved, or in both `pattern` and `constants`; rename it")
        columns = there if self.columns is None else self.columns
        split = self.split.column if isinstance(self.split, Predefined) else self.split.group
        for field, names, known in (
            ("values", self.values, groups),
            ("columns", columns, there),
            ("label", [self.label], columns),
            ("split", [split] if split else [], columns),
            ("split.disjoint", self.split.disjoint, columns),
            ("keep", self.keep, columns),
        ):
            if absent := [name for name in names if name not in known]:
                raise ValueError(
                    f"{field}: no column {absent[0]!r}; there are {', '.join(known) or 'none'}. Name its "
                    f"part of `pattern`, (?P<{absent[0]}>...), or correct `{field}`"
                )
        if self.row(PurePosixPath(self.example)) is None:
            raise ValueError(
                f"example: {self.example!r} does not match pattern {self.pattern!r}; correct either"
            )
        return self

    def row(self, path: PurePath) -> dict[str, str | None] | None:
        """The id and the columns for a file's path below the root; None if it does not match.

        Raises ValueError for a text that `values` lacks.
        """
        parts = PurePath(nfc(path.with_suffix("").as_posix())).parts
        tails = ("/".join(parts[-count:]) for count in range(1, len(parts) + 1))
        match = next(filter(None, map(re.compile(self.pattern).fullmatch, tails)), None)
        if match is None:
            return None
        row = {"id": match.group(), **match.groupdict(), **self.constants}
        for name, values in self.values.items():
            if (text := row[name]) is not None and text not in values:
                raise ValueError(
                    f"values.{name}: no value for {text!r}, found in {path}; add it, or narrow "
                    f"(?P<{name}>...) in `pattern`, so that such files are quarantined"
                )
            row[name] = None if text is None else values[text]
        return row if self.columns is None else {name: row[name] for name in ("id", *self.columns)}

    def read(self, root: Path) -> Imported:
        """All files below `root` that match `pattern`; the others are rejected as `unrecognised_name`.

        Raises ValueError if none matches, and for a text that `values` lacks.
        """
        imported = Imported()
        for path in audio_files(root, imported.ignored):
            row = self.row(path.relative_to(root))
            if row is None:
                detail = f"{path.name} does not fit {self.names}, such as {self.example}"
                imported.rejected.append(Rejected(path.stem, path.as_posix(), "unrecognised_name", detail))
            elif left_out := [row[name] for name, values in self.keep.items() if row[name] not in values]:
                imported.excluded[str(left_out[0])] += 1
            else:
                imported.rows.append({"id": row.pop("id"), "path": path.as_posix(), **row})
        keep_suffixes(imported.rows)
        if not imported.rows and not imported.excluded:
            raise ValueError(
                f"pattern: none of the {len(imported.rejected)} audio files below {root} matches "
                f"{self.pattern!r}; the first is {imported.rejected[0].path}, and names should look like "
                f"{self.example}. Correct the pattern, or give the corpus's folder with --root"
            )
        return imported
