"""Which column of a manifest is the label."""

import pandas as pd

from stillwave.pipeline.corpora.manifest import RESERVED

PERSONAL = ("speaker", "language", "text", "text_source", "gender", "note")  # columns that are no labels
CUSTOMARY = ("emotion", "word")  # usual names of the label
MAX_CLASSES = 1000


def label_column(manifest: pd.DataFrame, wanted: str | None) -> str | None:
    """The column that labels the rows: `wanted`, else the usual one, else the only one; None without any.

    Raises ValueError if `wanted` is no label, and if several are possible.
    """
    if wanted is not None:
        names = [str(name) for name in manifest.columns]
        if wanted not in names or wanted in RESERVED:
            raise ValueError(
                f"label {wanted!r} is not a label in the manifest, whose columns are {', '.join(names)}"
            )
        if not _labels(manifest[wanted]):
            raise ValueError(
                f"label {wanted!r} has {manifest[wanted].nunique()} values in the manifest, "
                f"{_kind(manifest[wanted])}; a label has 2 to {MAX_CLASSES} text values"
            )
        return wanted
    found = label_candidates(manifest)
    customary = [name for name in found if name in CUSTOMARY]
    for only in (customary, found):
        if len(only) == 1:
            return only[0]
    if found:
        raise ValueError(
            f"the manifest has several columns that may be the label: {', '.join(found)}; choose one, "
            f"-S label={found[0]}"
        )
    return None


def label_candidates(manifest: pd.DataFrame) -> list[str]:
    """The columns that may be the label: text with 2 to MAX_CLASSES values, and not PERSONAL."""
    names = [str(name) for name in manifest.columns if name not in (*RESERVED, *PERSONAL)]
    return [name for name in names if _labels(manifest[name])]


def _labels(values: pd.Series) -> bool:
    return _kind(values) == "string" and 2 <= values.nunique() <= MAX_CLASSES


def _kind(values: pd.Series) -> str:
    """The kind of the values, for any type of the column: string, integer, ...; empty if there are none."""
    return str(pd.api.types.infer_dtype(values.dropna().astype(object)))
