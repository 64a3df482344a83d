"""The files that hold tables, to records: CSV in its dialects, JSON, JSON lines, Parquet, Excel."""

import codecs
import csv
import io
import json
import re
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from stillwave.pipeline.config.packages import needed
from stillwave.pipeline.corpora.spelling import clean

DELIMITERS = (",", ";", "\t", "|")
EXCELS = re.compile(r'(?i)"?sep=(.)"?(?:\r\n|\r|\n)')  # a first line that Excel may write
SAMPLE = 20  # records that should agree about the delimiter
NOT_TEXT = re.compile(r"[\0\ud800-\udfff]")  # though JSON can escape them: NUL, halves of pairs
BOMS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}


class Record(NamedTuple):
    """A row of a table: values by column, and the line of the file where it starts; 0 for files without."""

    values: dict[str, Any]
    line: int = 0


def read_records(table: Path, encoding: str | None = None) -> list[Record]:
    """The rows of a table. encoding: of its text; None is UTF-8, or UTF-16 with its mark.

    Names of columns are read without blanks around them, and columns without name are left out. Raises
    ValueError naming the file and, in a text, the line.
    """
    reader = READERS.get(table.suffix.lower())
    if reader is None:
        raise ValueError(f"{table}: cannot read {table.suffix or 'no suffix'!r}; use {', '.join(READERS)}")
    if not table.is_file():
        raise ValueError(f"{table}: no such table; `table` is relative to `root` (or --root)")
    try:
        records = reader(table, encoding)
    except UnicodeError as error:
        if not isinstance(error, UnicodeDecodeError):
            raise ValueError(f"{table}: not text in {encoding or 'UTF-8'}: {error}") from None
        line = bytes(error.object[: error.start]).count(b"\n") + 1
        raise ValueError(
            f"{table}: line {line} is not {encoding or 'UTF-8'} text (byte {error.object[error.start]:#x}); "
            "set `encoding`, for example `encoding: cp1252` for tables of Western Windows, or save as UTF-8"
        ) from None
    if not records:
        raise ValueError(f"{table}: no rows")
    return records


def _text(table: Path, encoding: str | None) -> str:
    data = table.read_bytes()
    marked = next((name for mark, name in BOMS.items() if data.startswith(mark)), "utf-8")
    text = data.decode(marked if encoding is None or marked == "utf-8-sig" else encoding)
    if "\0" in text:
        raise ValueError(f"{table}: holds NUL characters; if it is UTF-16, set `encoding: utf-16-le`")
    return text.removeprefix("\ufeff")  # the mark, which utf-16-le takes for text


def _header(names: Sequence[Any], where: str) -> list[str]:
    """Clean names of columns; empty for those without. Raises ValueError for a name that occurs twice."""
    header = [clean(str(name)) or "" if name is not None else "" for name in names]
    if twice := [name for name, count in Counter(header).items() if name and count > 1]:
        raise ValueError(f"{where} names the column {twice[0]!r} twice; rename one of them")
    return header


def _records(table: Path, rows: Sequence[tuple[int, Sequence[Any]]]) -> list[Record]:
    """Rows of cells, the first of which is the header; each with its line. Blank rows are left out."""
    rows = [(line, cells) for line, cells in rows if any(c is not None and str(c).strip() for c in cells)]
    if not rows:
        return []
    header = _header(rows[0][1], f"{table}: the header")
    records = []
    for line, cells in rows[1:]:
        if any(cell not in (None, "") for cell in cells[len(header) :]):
            raise ValueError(f"{table}: line {line} has more fields than the header")
        records.append(Record({n: cell for n, cell in zip(header, cells, strict=False) if n}, line))
    return records


def _read_csv(table: Path, encoding: str | None) -> list[Record]:
    text = _text(table, encoding)
    if stated := EXCELS.match(text):  # the line stays, blank, for the numbers of the others
        text = "\n" + text[stated.end() :]
    delimiter = stated[1] if stated else _delimiter(text)
    rows = _unquoted(text) if delimiter == "\t" else None
    return _records(table, _split(table, text, delimiter) if rows is None else rows)


def _delimiter(text: str) -> str:
    """The one that splits the first records into the most fields, alike in all of them; else a comma."""

    def fields(delimiter: str) -> int:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True)
        try:
            counts = {len(cells) for cells in islice(filter(None, reader), SAMPLE)}
        except csv.Error:
            return 0
        return counts.pop() if len(counts) == 1 else 0

    best = max(DELIMITERS, key=fields)  # the first of equals
    if fields(best) > 1:
        return best
    first = next((line for line in text.splitlines() if line.strip()), "")
    return max(DELIMITERS, key=first.count)  # of records that differ, the header's


def _split(table: Path, text: str, delimiter: str) -> list[tuple[int, Sequence[Any]]]:
    """The cells of each record, and the line where it starts."""
    reader = csv.reader(
        io.StringIO(text, newline=""), delimiter=delimiter, strict=True, skipinitialspace=delimiter != "\t"
    )
    rows: list[tuple[int, Sequence[Any]]] = []
    line = 1
    try:
        for cells in reader:
            rows.append((line, cells))
            line = reader.line_num + 1
    except csv.Error as error:
        uneven = _uneven(text) if delimiter == "\t" else ""
        raise ValueError(f"{table}: line {line} is not CSV: {error}{uneven}") from None
    return rows


def _uneven(text: str) -> str:
    """Which line keeps the quotes of a text from being part of it, in words."""
    (_, header), *rows = _lines(text)
    for number, cells in rows:
        if len(cells) != len(header):
            return (
                f". If quotes are part of the texts: line {number} has {len(cells)} cells, and the header "
                f"{len(header)}"
            )
    return ""


def _unquoted(text: str) -> list[tuple[int, Sequence[Any]]] | None:
    """The cells of each line if quotes are part of the text, as in Common Voice; None if they are not.

    They are, if each line has a cell per column, and a cell opens a quote without closing it.
    """
    rows = _lines(text)
    if len({len(cells) for _, cells in rows}) > 1:
        return None
    opened = (cell for _, cells in rows for cell in cells if cell.startswith('"'))
    return None if all(map(_is_quoted, opened)) else [*rows]


def _lines(text: str) -> list[tuple[int, list[str]]]:
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return [(number, line.split("\t")) for number, line in enumerate(lines, start=1) if line]


def _is_quoted(cell: str) -> bool:
    return len(cell) > 1 and cell.endswith('"') and '"' not in cell[1:-1].replace('""', "")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if twice := [name for name, count in Counter(name for name, _ in pairs).items() if count > 1]:
        raise ValueError(f"an object names {twice[0]!r} twice")
    return dict(pairs)


def _as_records(table: Path, found: Sequence[Any], lines: Sequence[int]) -> list[Record]:
    records = []
    for number, (values, line) in enumerate(zip(found, lines, strict=True), start=1):
        where = f"{table}: line {line}" if line else f"{table}: element {number}"
        if not isinstance(values, dict):
            raise ValueError(f"{where} is not an object of column: value")
        names = _header([*values], where)
        cells = list(zip(names, values.values(), strict=True))
        for name, value in cells:
            if isinstance(value, str) and (bad := NOT_TEXT.search(value)):
                raise ValueError(
                    f"{where}, column {name!r} holds {bad[0]!r}, which is not text; remove it from the cell"
                )
        records.append(Record({name: value for name, value in cells if name}, line))
    return records


def _read_jsonl(table: Path, encoding: str | None) -> list[Record]:
    found, lines = [], []
    # split at newlines only: str.splitlines also splits at U+2028, which may occur inside a text
    for number, line in enumerate(_text(table, encoding).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            found.append(json.loads(line, object_pairs_hook=_object))
        except json.JSONDecodeError as error:
            raise ValueError(f"{table}: line {number} is not JSON: {error.msg}") from None
        except ValueError as error:
            raise ValueError(f"{table}: line {number}: {error}; rename one of them") from None
        lines.append(number)
    return _as_records(table, found, lines)


def _read_json(table: Path, encoding: str | None) -> list[Record]:
    """A list of objects, JSON lines, or what `DataFrame.to_json` writes: values by column and row."""
    text = _text(table, encoding)
    try:
        found = json.loads(text, object_pairs_hook=_object)
    except json.JSONDecodeError as error:
        if error.msg == "Extra data":
            return _read_jsonl(table, encoding)
        raise ValueError(f"{table}: line {error.lineno} is not JSON: {error.msg}") from None
    except ValueError as error:
        raise ValueError(f"{table}: {error}; rename one of them") from None
    if isinstance(found, dict) and found and all(isinstance(v, dict) for v in found.values()):
        keys = list(dict.fromkeys(key for column in found.values() for key in column))
        found = [{name: column.get(key) for name, column in found.items()} for key in keys]
    if not isinstance(found, list):
        raise ValueError(f"{table}: holds no list of objects of column: value")
    return _as_records(table, found, [0] * len(found))


def _read_parquet(table: Path, encoding: str | None) -> list[Record]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        read = pq.read_table(table)
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{table}: not a Parquet file, or damaged: {error}") from None
    names = _header(read.column_names, f"{table}: its schema")
    return [Record(values) for values in read.rename_columns(names).to_pylist()]


def _read_xlsx(table: Path, encoding: str | None) -> list[Record]:
    """The first sheet; a formula is the value that Excel stored."""
    with needed(f"{table}: a table of Excel", "openpyxl", extra="excel"):
        import openpyxl  # type: ignore[import-untyped]
    try:
        with closing(openpyxl.load_workbook(table, read_only=True, data_only=True)) as book:
            rows = list(enumerate(book.worksheets[0].iter_rows(values_only=True), start=1))
    except Exception as error:  # of a damaged file: of zipfile, of XML, of openpyxl
        raise ValueError(f"{table}: not an Excel file (.xlsx), or damaged: {error!r}") from None
    return _records(table, rows)


READERS: dict[str, Callable[[Path, str | None], list[Record]]] = {
    ".csv": _read_csv, ".tsv": _read_csv, ".parquet": _read_parquet, ".jsonl": _read_jsonl,
    ".ndjson": _read_jsonl, ".json": _read_json, ".xlsx": _read_xlsx,
}  # fmt: skip
