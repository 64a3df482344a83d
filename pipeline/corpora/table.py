"""Rows of a table, with a mapping from our column names to the file's."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from stillwave.pipeline.audio.segments import Span
from stillwave.pipeline.config.base import Text
from stillwave.pipeline.corpora.base import (
    MEASURED,
    CorpusBase,
    Imported,
    Rejected,
    Row,
    check_no_span,
    keep_suffixes,
)
from stillwave.pipeline.corpora.manifest import SPAN
from stillwave.pipeline.corpora.paths import located
from stillwave.pipeline.corpora.readers import Record, read_records
from stillwave.pipeline.corpora.spans import read_span
from stillwave.pipeline.corpora.spelling import clean, listed, nfc

NESTED = (list, dict, bytes)  # values that are not one value


class Table(CorpusBase):
    """Rows of a CSV (delimited by commas, semicolons, tabs or bars), JSON, JSON lines, Parquet or Excel file.

    table: the file, relative to `root` (default: the working directory), like the audio paths in it.
    columns: our column name -> theirs; `path` is required, `id` defaults to the path without extension.
        With `start` and `end`, in seconds or as times, a row is that span of the file, and its default id
        ends in it: `a[1.5-3.25]`. Without `start` it starts with the file, without `end` it ends with it.
    constants: our column name -> one value for every row, for example `language: de`.
    encoding: of a CSV or JSON that is not UTF-8, such as cp1252.
    text_rows: keep rows that have an id and a text but no path, for recipes that read text; other rows
        without a path are quarantined.
    """

    kind: Literal["table"]
    root: str | None = "."
    table: str
    columns: dict[str, Text]
    constants: dict[str, Text] = Field(default_factory=dict)
    text_rows: bool = False
    encoding: str | None = None

    @model_validator(mode="after")
    def _maps_path_and_no_column_twice(self) -> "Table":
        if "path" not in self.columns:
            raise ValueError("columns must name the one with the audio paths, for example `path: file_path`")
        if taken := sorted(MEASURED & (self.columns.keys() | self.constants.keys())):
            raise ValueError(
                f"{', '.join(taken)}: measured from the audio, or written by `prepare`; leave it out of the "
                "mapping"
            )
        check_no_span(self.constants)
        try:
            "a".encode(self.encoding or "utf-8")
        except LookupError:
            raise ValueError(f"encoding: {self.encoding!r} is not known; use cp1252, for example") from None
        if both := sorted(self.columns.keys() & self.constants.keys()):
            raise ValueError(f"{', '.join(both)}: both in `columns` and in `constants`; keep one")
        return self

    def read(self, root: Path) -> Imported:
        """The rows of `root/table`; audio paths in it are relative to `root` too."""
        table = root / Path(self.table).expanduser()
        return read_table(
            table, root, self.columns, self.constants, self.text_rows, self.encoding, self.label
        )


def read_table(
    table: Path,
    root: Path,
    columns: Mapping[str, str],
    constants: Mapping[str, str] | None = None,
    text_rows: bool = False,
    encoding: str | None = None,
    label: str | None = None,
) -> Imported:
    """Import `table`, mapping our names to its `columns`; columns that are not mapped are left out.

    An empty cell is a missing value. A row whose span cannot be is rejected as `bad_span`, a row without a
    path as `no_path`, unless `text_rows` and it has an id and a text: then its path is empty. Of these,
    rows without a value for `label` are only counted.

    Raises ValueError naming the table, the column and the existing columns, if one is missing.
    """
    records = read_records(table, encoding)
    there = _names(records)
    columns = {ours: clean(theirs) or "" for ours, theirs in columns.items()}
    for ours, theirs in columns.items():
        if theirs not in there:
            raise ValueError(
                f"{table}: no column {theirs!r} (columns.{ours} in the corpus config); "
                f"the columns are {listed(there)}"
            )
    imported, unnamed = Imported(), list[tuple[Row, Span | None]]()
    if {"start", "end"} <= {name.lower() for name in there} and not {*SPAN} & {*columns}:
        imported.warnings.append(
            f"{table}: has columns `start` and `end`, but rows are read as whole files; if they are parts of "
            "them, add `start: start, end: end` to `columns`"
        )
    for number, (values, line) in enumerate(records, start=1):
        for theirs in columns.values():
            if isinstance(value := values.get(theirs), NESTED):
                raise ValueError(
                    f"{table}: row {number}, column {theirs!r}: {value!r:.60} is not one value; give each "
                    "row one, since several labels for one row cannot be predicted yet"
                )
        cell = _text(values.get(columns["path"]))
        row: Row = {ours: clean(_text(values.get(theirs)) or "") for ours, theirs in columns.items()}
        row |= constants or {}
        if row["path"] is None and text_rows and row.get("id") and row.get("text"):
            row["path"] = ""
        place = f"row {number} of {table}" + (f" (line {line})" if line else "")
        try:
            span, problem = read_span(row), None
        except ValueError as error:
            span, problem = None, ("bad_span", f"{place}: {error}")
        if problem is None and row["path"] is None:
            problem = "no_path", f"{place} has no {columns['path']}"
        if problem is not None:
            if label in row and row[label] is None:  # which is left out anyway
                imported.excluded["no label"] += 1
            else:
                imported.rejected.append(Rejected(row.get("id") or f"row {number}", cell or "", *problem))
            continue
        if row["path"]:
            path = located(root, cell or "")
            row["path"] = path.as_posix()
            if not row.get("id"):
                row["id"] = _identity(path, root)
                unnamed.append((row, span))
        imported.rows.append(row)
        imported.places.append(place)
    keep_suffixes([row for row, _ in unnamed])
    for row, span in unnamed:
        row["id"] = str(row["id"]) + (f"[{span}]" if span else "")
    return imported


def column_names(table: Path) -> list[str]:
    """The columns of `table`. Raises ValueError naming it if it is not a table, or has no rows."""
    return _names(read_records(table))


def read_cells(table: Path) -> list[Row]:
    """Every row of `table` as text, column by column; None for an empty cell, and for a list.

    Raises like `column_names`.
    """
    records = read_records(table)
    names = _names(records)
    values = ({name: record.values.get(name) for name in names} for record in records)
    return [{name: None if isinstance(v, NESTED) else _text(v) for name, v in row.items()} for row in values]


def _names(records: Sequence[Record]) -> list[str]:
    return list(dict.fromkeys(name for record in records for name in record.values))


def _identity(path: Path, root: Path) -> str:
    inside = path.relative_to(root) if path.is_relative_to(root) else path
    return nfc((inside.with_suffix("") if inside.name else inside).as_posix())


def _text(value: Any) -> str | None:
    """A cell as text. Numbers look as in a CSV: 3, and also 3 for the 3.0 of a column with gaps."""
    if value is None or value == "" or value != value:  # only NaN differs from itself
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value)
