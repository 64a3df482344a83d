"""The manifest: one row per utterance, in Parquet, and the checks that every reader relies on.

Columns: `id` (unique, independent of the root), `path` (posix), `sha256` of the file's bytes, `sample_rate`
(Hz) and `num_samples` (per channel) as decoded, `duration_s`, then the corpus's text columns (labels such as
`emotion` or `word`, and `speaker`, `language`, `text` if it has them; `decoder`, "ffmpeg" for rows that
libsndfile did not read, if there are any), and either `fold` (int, the fold in
which the row is tested) or `split` (train, valid or test). Rows are sorted by `id`. A text-only row has
an empty `path`, the sha256 of its text, and zeros.
"""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from stillwave.pipeline.audio.files import read_file, write_if_changed

SPLITS = ("train", "valid", "test")

_TYPES = {
    "id": pa.string(),
    "path": pa.string(),
    "sha256": pa.string(),
    "sample_rate": pa.int32(),
    "num_samples": pa.int64(),
    "duration_s": pa.float64(),
}
REQUIRED = tuple(_TYPES)
RESERVED = (*REQUIRED, "fold", "split")


class ManifestError(ValueError):
    """A manifest that cannot be used; the message names the file, the column and the value."""


def read_manifest(path: str | Path, columns: Sequence[str] = ()) -> pd.DataFrame:
    """The manifest at `path` (or URL), checked; missing text values are None.

    `columns` are additional columns that the caller needs, such as its label. Raises ManifestError.
    """
    try:
        table = pq.read_table(pa.BufferReader(read_file(path)))
    except FileNotFoundError:
        raise ManifestError(f"{path}: no such manifest; `stillwave prepare` writes it") from None
    except pa.ArrowInvalid as error:
        raise ManifestError(f"{path}: not a Parquet file: {error}") from None
    frame: pd.DataFrame = table.to_pandas()
    for field in table.schema:
        if pa.types.is_string(field.type) or pa.types.is_large_string(field.type):
            # Plain Python strings and None, for every version of pandas and its string type.
            frame[field.name] = pd.Series(table.column(field.name).to_pylist(), dtype=object)
    check_manifest(frame, str(path), columns)
    return frame


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
    if ("fold" in frame.columns) == ("split" in frame.columns):
        raise ManifestError(f"{source}: needs either a `fold` or a `split` column, and not both")
    if "split" in frame.columns:
        if not (known := frame["split"].isin(SPLITS)).all():
            who, value = frame.loc[~known, ["id", "split"]].iloc[0]
            raise ManifestError(f"{source}: split of {who!r} is {value!r}; it must be {' or '.join(SPLITS)}")
    elif frame["fold"].isna().any() or (frame["fold"] < 0).any():
        raise ManifestError(f"{source}: every row needs a fold number, counted from 0")


def write_manifest(frame: pd.DataFrame, path: str | Path) -> bool:
    """Write `frame`, sorted by id, as the manifest at `path` (or URL); whole or not at all.

    The same rows give the same bytes, and a file that has them already is left untouched: returns whether
    it was written. Raises ManifestError for rows that break the contract.
    """
    check_manifest(frame, str(path))
    frame = frame.sort_values("id", kind="stable")
    fields = [(name, _TYPES[name]) for name in REQUIRED]
    fields += [(str(name), pa.string()) for name in frame.columns if name not in RESERVED]
    fields += [("fold", pa.int32()) if "fold" in frame.columns else ("split", pa.string())]
    columns = [pa.array(frame[name].tolist(), type=kind, from_pandas=True) for name, kind in fields]
    buffer = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_arrays(columns, schema=pa.schema(fields)), buffer, compression="zstd")
    return write_if_changed(path, buffer.getvalue().to_pybytes())
