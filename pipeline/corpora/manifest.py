"""The manifest: one row per utterance, in Parquet, and the checks that every reader relies on.

Columns: `id` (unique, independent of the root), `path` (posix), `sha256` of the file's bytes, `sample_rate`
(Hz) and `num_samples` (per channel) as decoded, `duration_s`, then the corpus's text columns (labels such as
`emotion` or `word`, and `speaker`, `language`, `text` if it has them; `decoder`, "ffmpeg" for rows that
libsndfile did not read, if there are any; `note`, what is unusual about the recordings, with semicolons
between several notes, if any row has one), and either `fold` (int, the fold in
which the row is tested) or `split` (train, valid or test). `withheld`, if there is such a column, names the
folds that neither train nor validate on the row, as it shares a speaker or a text with their test rows:
numbers in ascending order with blanks between them, or null; a split is fold 0. Rows are sorted by `id`. A
text-only row has an empty `path`, the sha256 of its text, and zeros. If some rows are spans of files, `start`
and `end` are their seconds, null for rows that are whole files, and in `end` for "to the end of the file":
then `sha256` is still that of the whole file, and the numbers are those of the span, samples
[round(start * sample_rate), round(end * sample_rate)).

The file's own metadata has the sha256 of its contents, which other programs do not copy when they save the
table. So contents that differ from it are damage; a file without it was saved by the user, and is read as
it is.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from stillwave.pipeline.audio.files import read_file, write_if_changed
from stillwave.pipeline.audio.segments import content_of

SPLITS = ("train", "valid", "test")
MAGIC, SHA256 = b"PAR1", b"sha256"  # of the contents

_TYPES = {
    "id": pa.string(),
    "path": pa.string(),
    "sha256": pa.string(),
    "sample_rate": pa.int32(),
    "num_samples": pa.int64(),
    "duration_s": pa.float64(),
    "start": pa.float64(),
    "end": pa.float64(),
    "fold": pa.int32(),
    "split": pa.string(),
    "withheld": pa.string(),
}
REQUIRED = ("id", "path", "sha256", "sample_rate", "num_samples", "duration_s")
SPAN = ("start", "end")
RESERVED = (*REQUIRED, *SPAN, "fold", "split", "withheld")


class ManifestError(ValueError):
    """A manifest that cannot be used; the message names the file, the column and the value."""


def read_manifest(path: str | Path, columns: Sequence[str] = ()) -> pd.DataFrame:
    """The manifest at `path` (or URL), checked and in order of `id`; missing text values are None.

    It may have been sorted, filtered or shuffled, and saved by pandas: a stored index is ignored.
    `columns` are additional columns that the caller needs, such as its label. Raises ManifestError.
    """
    try:
        data = read_file(path)
    except FileNotFoundError:
        raise ManifestError(f"{path}: no such manifest; `stillwave prepare` writes it") from None
    table = _read_table(data, str(path))
    if len(set(table.column_names)) < len(table.column_names):
        raise ManifestError(f"{path}: two columns have the same name: {', '.join(table.column_names)}")
    frame: pd.DataFrame = table.to_pandas(ignore_metadata=True)
    for field in table.schema:
        if _is_text(field.type):
            # Plain Python strings and None, for every version of pandas and its string type.
            frame[field.name] = pd.Series(table.column(field.name).to_pylist(), dtype=object)
    check_manifest(frame, str(path), columns)
    return frame.sort_values("id", kind="stable", ignore_index=True)


def _read_table(data: bytes, source: str) -> pa.Table:
    """The table, without the index of a program that saved it. Raises ManifestError if it is damaged."""
    if not data.startswith(MAGIC):
        raise ManifestError(f"{source}: not a Parquet file; `stillwave prepare` writes it")
    remedy = "restore it, or run `stillwave prepare` again"
    try:
        with pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True) as file:
            table = file.read()
            promised = (file.metadata.metadata or {}).get(SHA256)
            found = _digest(table) if promised is not None else b""
    except (pa.ArrowException, OSError, ValueError, LookupError, MemoryError) as error:
        raise ManifestError(f"{source}: damaged, its Parquet cannot be read ({error}); {remedy}") from None
    if promised is not None and found != promised:
        raise ManifestError(f"{source}: damaged, its contents do not match its checksum; {remedy}")
    return table.select([name for name in table.column_names if not name.startswith("__index_level_")])


def _is_text(kind: pa.DataType) -> bool:
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def check_manifest(frame: pd.DataFrame, source: str, columns: Sequence[str] = ()) -> None:
    """Raise ManifestError unless `frame` keeps the contract of this module; `source` names it in errors."""
    if missing := [name for name in (*REQUIRED, *columns) if name not in frame.columns]:
        there = ", ".join(map(str, frame.columns))
        raise ManifestError(f"{source}: no column {', '.join(map(repr, missing))}; the columns are {there}")
    if frame.empty:
        raise ManifestError(f"{source}: no rows")
    for name in REQUIRED:
        if frame[name].isna().any():
            number = int(frame[name].isna().to_numpy().argmax())
            raise ManifestError(f"{source}: column {name!r} has no value in row {number}")
    if (repeated := frame["id"].duplicated()).any():
        name = frame["id"][repeated].iloc[0]
        raise ManifestError(f"{source}: id {name!r} occurs more than once; ids must be unique")
    silent = frame["path"] == ""
    texts = frame["text"] if "text" in frame.columns else pd.Series(None, index=frame.index, dtype=object)
    if (mute := silent & texts.isna()).any():
        who = frame["id"][mute].iloc[0]
        raise ManifestError(f"{source}: {who!r} has neither a path nor a text; give it one of them")
    for name in ("sample_rate", "num_samples"):
        if (bad := ~silent & (frame[name] <= 0)).any():
            who, value = frame.loc[bad, ["id", name]].iloc[0]
            raise ManifestError(f"{source}: {name} of {who!r} is {value}; it must be positive")
    _check_spans(frame, source)
    if ("fold" in frame.columns) == ("split" in frame.columns):
        raise ManifestError(f"{source}: needs either a `fold` or a `split` column, and not both")
    if "split" in frame.columns:
        if not (known := frame["split"].isin(SPLITS)).all():
            who, value = frame.loc[~known, ["id", "split"]].iloc[0]
            raise ManifestError(f"{source}: split of {who!r} is {value!r}; it must be {' or '.join(SPLITS)}")
    elif frame["fold"].isna().any() or (frame["fold"] < 0).any():
        raise ManifestError(f"{source}: every row needs a fold number, counted from 0")
    if "withheld" in frame.columns:
        for name, value, fold in zip(frame["id"], frame["withheld"], own_folds(frame), strict=True):
            if not pd.isna(value) and not _is_withheld(value, fold):
                raise ManifestError(
                    f"{source}: withheld of {name!r} is {value!r}; it must be the numbers of folds that do "
                    "not test the row, in ascending order with blanks between them (0 for a split)"
                )


def own_folds(frame: pd.DataFrame) -> list[int | None]:
    """The fold that tests each row; a train/valid/test split is fold 0, and its other rows have None."""
    if "split" in frame.columns:
        return [0 if side == "test" else None for side in frame["split"]]
    return [int(fold) for fold in frame["fold"]]


def withheld_from(frame: pd.DataFrame) -> list[frozenset[int]]:
    """The folds that neither train nor validate on each row, though others test it."""
    if "withheld" not in frame.columns:
        return [frozenset()] * len(frame)
    values = frame["withheld"].where(frame["withheld"].notna(), "")
    return [frozenset(map(int, value.split())) for value in values]


def _is_withheld(value: object, fold: int | None) -> bool:
    if not isinstance(value, str) or not all(part.isascii() and part.isdigit() for part in value.split(" ")):
        return False
    folds = list(map(int, value.split()))
    return " ".join(map(str, sorted(set(folds) - {fold}))) == value


def _check_spans(frame: pd.DataFrame, source: str) -> None:
    """Raise ManifestError for a `start` or `end` that is no span of `num_samples` of a file."""
    if not {*SPAN} & {*frame.columns}:
        return
    columns = [frame[name] if name in frame.columns else pd.Series(np.nan, frame.index) for name in SPAN]
    for name, values in zip(SPAN, columns, strict=True):
        if not (pd.api.types.is_numeric_dtype(values) or values.isna().all()):
            raise ManifestError(
                f"{source}: column {name!r} holds {values.dropna().iloc[0]!r}; it should hold seconds"
            )
    start, end = (values.astype(float) for values in columns)
    count = (end * frame["sample_rate"]).round() - (start * frame["sample_rate"]).round()
    rules = (
        ((start < 0) | np.isinf(start), "a span starts at 0 s or later"),
        (start.isna() & end.notna(), "a span has a start"),
        (end <= start, "a span ends after its start"),
        ((frame["path"] == "") & start.notna(), "a row of text alone has no span"),
        (end.notna() & (count != frame["num_samples"]), "its num_samples are others; prepare it again"),
    )
    for broken, rule in rules:
        if broken.any():
            who = broken.to_numpy().argmax()
            span = f"start {start.iloc[who]:g}, end {end.iloc[who]:g}"
            raise ManifestError(f"{source}: {frame['id'].iloc[who]!r} has {span}; {rule}")


def write_manifest(frame: pd.DataFrame, path: str | Path) -> bool:
    """Write `frame`, sorted by id, as the manifest at `path` (or URL); whole or not at all.

    The same rows give the same bytes, and a file that has them already is left untouched: returns whether
    it was written. Raises ManifestError for rows that break the contract.
    """
    check_manifest(frame, str(path))
    table = _as_table(frame)
    buffer = pa.BufferOutputStream()
    with pq.ParquetWriter(buffer, table.schema, compression="zstd", write_page_checksum=True) as file:
        file.write_table(table)
        file.add_key_value_metadata({SHA256: _digest(table)})  # not of the schema: that would be copied
    return write_if_changed(path, buffer.getvalue().to_pybytes())


def manifest_digest(frame: pd.DataFrame) -> str:
    """sha256 of a manifest's contents: the one in its file, in whatever order its rows are."""
    return _digest(_as_table(frame)).decode()


def contents(manifest: pd.DataFrame) -> list[str]:
    """What each row's samples, or its text, depend on: see `content_of`."""
    if "start" not in manifest:
        return [str(sha256) for sha256 in manifest["sha256"]]
    names = ["sha256", "sample_rate", "num_samples", *SPAN]
    return [content_of(row) for row in manifest.reindex(columns=names).to_dict("records")]


def _as_table(frame: pd.DataFrame) -> pa.Table:
    frame = frame.sort_values("id", kind="stable")
    extra = [str(name) for name in frame.columns if name not in RESERVED]
    names = (*REQUIRED, *SPAN, *extra, "fold", "split", "withheld")
    return pa.table({name: _column(frame, name) for name in names if name in frame.columns})


def _column(frame: pd.DataFrame, name: str) -> pa.Array:
    """A column in its type; of the user's own columns, those that are not text keep theirs."""
    values = frame[name].tolist()
    try:
        found = pa.array(values, type=_TYPES.get(name), from_pandas=True)
    except pa.ArrowException as error:
        raise ManifestError(f"column {name!r} cannot be stored: {error}") from None
    return found.cast(pa.string()) if pa.types.is_null(found.type) else found


def _digest(table: pa.Table) -> bytes:
    found = hashlib.sha256()
    for name in table.column_names:
        found.update(json.dumps([name, table.column(name).to_pylist()], default=str).encode())
    return found.hexdigest().encode()
