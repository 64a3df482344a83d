"""Reading and checking the rows of an analysis folder, and packing them for the explorer's page."""

import base64
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from stillwave.analysis.names import natural

CLUSTERS = ("kmeans", "hdbscan", "dbscan")
# Ids and speakers are text, even if a manifest has numbers for them.
NAMES = ("id", "path", "label", "predicted", "decision", "speaker", "language", "text")


def read_folder(folder: Path) -> tuple[pd.DataFrame, dict[str, Any], NDArray[np.int32]]:
    """The rows, analysis.json and the nearest rows (cosine) of each row, (rows, k), of an analysis folder.

    Raises ValueError naming the file if the folder is not a complete analysis.
    """
    if not (folder / "analysis.json").is_file():
        raise ValueError(
            f"{folder}: not an analysis folder, because it has no analysis.json; "
            f"`stillwave analyze STORE --out {folder}` writes one"
        )
    try:
        facts = _facts(folder / "analysis.json")
        rows = pd.read_parquet(folder / "rows.parquet")
        neighbours = np.load(folder / "neighbours_cosine.npy", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{folder}: not a complete analysis: {error}; run `stillwave analyze` again"
        ) from None
    if "id" not in rows.columns or not projections(rows):
        raise ValueError(
            f"{folder / 'rows.parquet'}: needs a column id and a projection such as pca_x, pca_y"
        )
    if neighbours.ndim != 2 or len(neighbours) != len(rows):
        raise ValueError(
            f"{folder / 'neighbours_cosine.npy'}: shape {neighbours.shape} for {len(rows)} rows; "
            "run `stillwave analyze` again"
        )
    if neighbours.size and not 0 <= neighbours.min() <= neighbours.max() < len(rows):
        raise ValueError(
            f"{folder / 'neighbours_cosine.npy'}: row numbers from {neighbours.min()} to {neighbours.max()}, "
            f"but there are {len(rows)} rows; run `stillwave analyze` again"
        )
    return rows, facts, neighbours


def _facts(file: Path) -> dict[str, Any]:
    def refuse(constant: str) -> None:
        raise ValueError(f"{file.name}: {constant} is not JSON")

    facts = json.loads(file.read_text(), parse_constant=refuse)
    if not isinstance(facts, dict):
        raise ValueError(f"{file.name}: a {type(facts).__name__} instead of an object")
    return facts


def projections(rows: pd.DataFrame) -> list[str]:
    """The projections for which the rows have coordinates."""
    names = [str(name).removesuffix("_x") for name in rows.columns if str(name).endswith("_x")]
    return [name for name in names if f"{name}_y" in rows.columns]


class Columns:
    """Columns as JSON: texts as distinct names and a code per row, numbers as float32, both in base64.

    Columns that several embeddings share, such as ids and speakers, are stored once.
    """

    def __init__(self) -> None:
        self.encoded: list[dict[str, Any]] = []
        self._known: dict[str, int] = {}

    def add_all(self, rows: pd.DataFrame, classes: Sequence[str]) -> dict[str, int]:
        """Name of each column of `rows` -> its index in `encoded`; labels are in the order of `classes`."""
        return {str(name): self._add(_encode(str(name), rows[name], classes)) for name in rows.columns}

    def integers(self, values: NDArray[Any]) -> int:
        """The index of an array of integers in `encoded`."""
        return self._add({"kind": "integers", "values": _pack(values, "<i4")})

    def _add(self, column: dict[str, Any]) -> int:
        place = self._known.setdefault(json.dumps(column), len(self.encoded))
        if place == len(self.encoded):
            self.encoded.append(column)
        return place


def _encode(name: str, values: pd.Series, classes: Sequence[str]) -> dict[str, Any]:
    whole = pd.api.types.is_integer_dtype(values.dtype)
    if name in CLUSTERS:
        numbers = sorted(set(values.dropna().astype(int)), key=lambda number: (number < 0, number))
        names = {number: "noise" if number < 0 else f"cluster {number}" for number in numbers}
        return _texts(values.map(names), list(names.values()))
    if name in NAMES:
        # pandas turns integers with gaps into floats: 7.0 for a speaker 7
        texts = values.convert_dtypes().map(str, na_action="ignore")
        return _texts(texts, list(classes) if name in ("label", "predicted", "decision") else [])
    if name == "correct" or pd.api.types.is_bool_dtype(values.dtype):
        return _texts(values.map({True: "correct", False: "wrong"}), ["correct", "wrong"])
    if pd.api.types.is_numeric_dtype(values.dtype):
        packed = _pack(values.to_numpy(dtype=np.float64, na_value=np.nan), "<f4")
        return {"kind": "whole" if whole else "number", "values": packed}
    return _texts(values.map(str, na_action="ignore"), [])


def _texts(texts: pd.Series, first: Sequence[str]) -> dict[str, Any]:
    """Codes of texts; -1 means no text. The names in `first` come first, even if they do not occur.

    So a class has the same code and look as a label and as a prediction.
    """
    names = list(dict.fromkeys(first))
    names += sorted(set(texts.dropna()) - set(names), key=natural)
    return {"kind": "text", "names": names, "codes": _pack(pd.Categorical(texts, names).codes, "<i4")}


def _pack(values: NDArray[Any], dtype: str) -> str:
    return base64.b64encode(np.ascontiguousarray(values, dtype=dtype).tobytes()).decode()
