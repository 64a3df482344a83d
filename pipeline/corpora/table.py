"""Rows of a CSV, Parquet or JSONL file, with a mapping from our column names to the file's."""

import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from stillwave.pipeline.config.base import Text
from stillwave.pipeline.corpora.base import (
    MEASURED,
    CorpusBase,
    Imported,
    Rejected,
    Row,
    keep_suffixes,
)
from stillwave.pipeline.corpora.paths import located
from stillwave.pipeline.corpora.spelling import clean, nfc


class Table(CorpusBase):
    """Rows of a CSV, Parquet or JSONL file.

    table: the file, relative to `root` (default: the working directory), like the audio paths in it.
    columns: our column name -> theirs; `path` is required, `id` defaults to the path without extension.
    constants: our column name -> one value for every row, for example `language: de`.
    text_rows: keep rows that have an id and a text but no path, for recipes that read text; other rows
        without a path are quarantined.
    """

    kind: Literal["table"]
    root: str | None = "."
    table: str
    columns: dict[str, str]
    constants: dict[str, Text] = Field(default_factory=dict)
    text_rows: bool = False

    @model_validator(mode="after")
    def _maps_path_and_no_column_twice(self) -> "Table":
        if "path" not in self.columns:
            raise ValueError("columns must name the one with the audio paths, for example `path: file_path`")
        if taken := sorted(MEASURED & (self.columns.keys() | self.constants.keys())):
            raise ValueError(f"{', '.join(taken)}: measured from the audio; leave it out of the mapping")
        if both := sorted(self.columns.keys() & self.constants.keys()):
            raise ValueError(f"{', '.join(both)}: both in `columns` and in `constants`; keep one")
        return self

    def read(self, root: Path) -> Imported:
        """The rows of `root/table`; audio paths in it are relative to `root` too."""
        table = root / Path(self.table).expanduser()
        return read_table(table, root, self.columns, self.constants, self.text_rows)


def read_table(
    table: Path,
    root: Path,
    columns: Mapping[str, str],
    constants: Mapping[str, str] | None = None,
    text_rows: bool = False,
) -> Imported:
    """Import `table`, mapping our names to its `columns`; columns that are not mapped are left out.

    An empty cell is a missing value. A row without a path is rejected as `no_path`, unless `text_rows` and it
    has an id and a text: then its path is empty. Raises ValueError naming the table, the column and the
    existing columns, if one is missing.
    """
    records = _records(table)
    there = _names(records)
    for ours, theirs in columns.items():
        if theirs not in there:
            raise ValueError(
                f"{table}: no column {theirs!r} (columns.{ours} in the corpus config); "
                f"the columns are {', '.join(there)}"
            )
    imported, unnamed = Imported(), list[Row]()
    for number, record in enumerate(records, start=1):
        cell = _text(record.get(columns["path"]))
        row: Row = {ours: clean(_text(record.get(theirs)) or "") for ours, theirs in columns.items()}
        row |= constants or {}
        if row["path"] is not None:
            path = located(root, cell or "")
            row["path"] = path.as_posix()
            if not row.get("id"):
                row["id"] = _identity(path, root)
                unnamed.append(row)
        elif text_rows and row.get("id") and (row.get("text") or "").strip():
            row["path"] = ""
        else:
            where = row.get("id") or f"row {number}"
            detail = f"row {number} of {table} has no {columns['path']}"
            imported.rejected.append(Rejected(where, "", "no_path", detail))
            continue
        imported.rows.append(row)
    keep_suffixes(unnamed)
    return imported


def column_names(table: Path) -> list[str]:
    """The columns of `table`. Raises ValueError naming it if it is not a table, or has no rows."""
    return _names(_records(table))


def read_cells(table: Path) -> list[Row]:
    """Every row of `table` as text, column by column; None for an empty cell. Raises like `column_names`."""
    records = _records(table)
    names = _names(records)
    return [{name: _text(record.get(name)) for name in names} for record in records]


def _names(records: list[dict[str, Any]]) -> list[str]:
    return list(dict.fromkeys(name for record in records for name in record))


def _identity(path: Path, root: Path) -> str:
    inside = path.relative_to(root) if path.is_relative_to(root) else path
    return nfc(inside.with_suffix("").as_posix())


def _text(value: Any) -> str | None:
    """A cell as text. Numbers look as in a CSV: 3, and also 3 for the 3.0 of a column with gaps."""
    if value is None or value == "" or value != value:  # only NaN differs from itself
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value)


def _records(table: Path) -> list[dict[str, Any]]:
    reader = READERS.get(table.suffix.lower())
    if reader is None:
        raise ValueError(f"{table}: cannot read {table.suffix or 'no suffix'!r}; use {', '.join(READERS)}")
    if not table.is_file():
        raise ValueError(f"{table}: no such table; `table` is relative to `root` (or --root)")
    try:
        records = reader(table)
    except UnicodeDecodeError as error:
        raise ValueError(f"{table}: not UTF-8 text: {error}") from None
    if not records:
        raise ValueError(f"{table}: no rows")
    return records


def _read_csv(table: Path) -> list[dict[str, Any]]:
    with table.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file, delimiter="\t" if table.suffix.lower() == ".tsv" else ",", strict=True)
        records = []
        try:
            for record in reader:
                if None in record:
                    raise ValueError(f"{table}: line {reader.line_num} has more fields than the header")
                records.append(dict(record))
        except csv.Error as error:
            raise ValueError(f"{table}: line {reader.line_num} is not CSV: {error}") from None
        return records


def _read_jsonl(table: Path) -> list[dict[str, Any]]:
    records = []
    # split at newlines only: str.splitlines also splits at U+2028, which may occur inside a text
    for number, line in enumerate(table.read_text(encoding="utf-8").split("\n"), start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"{table}: line {number} is not JSON: {error}") from None
        if not isinstance(record, dict):
            raise ValueError(f"{table}: line {number} is not an object of column: value")
        records.append(record)
    return records


def _read_parquet(table: Path) -> list[dict[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        records: list[dict[str, Any]] = pq.read_table(table).to_pylist()
        return records
    except pa.ArrowInvalid as error:
        raise ValueError(f"{table}: not a Parquet file: {error}") from None


READERS = {
    ".csv": _read_csv, ".tsv": _read_csv, ".parquet": _read_parquet, ".jsonl": _read_jsonl,
    ".ndjson": _read_jsonl,
}  # fmt: skip
