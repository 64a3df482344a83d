"""A split for a drafted corpus, and the classes that all its parts can train."""

from typing import Any

import pandas as pd

from stillwave.pipeline.config.base import parse_config
from stillwave.pipeline.corpora import CorpusConfig
from stillwave.pipeline.corpora.prepare import split_rows

FOLDS = 5
MANY_ROWS = 20_000  # with more rows, one split instead of several folds, each of which trains


def propose_split(
    rows: pd.DataFrame, label: str, sides: dict[str, str], warnings: list[str]
) -> tuple[dict[str, Any], list[str] | None]:
    """The fields of a split, and the classes to keep (None keeps all); adds to `warnings`.

    The table's own (columns `split`, whose values mean `sides`, or `fold`); else by speaker, if every row has
    one; else by file, if rows are spans of several; else row by row. ValueError if fewer than two classes
    have training rows in all of its parts.
    """
    split = _split(rows, sides, warnings)
    kept, classes = rows, sorted(set(rows[label]))
    while len(classes) > 1 and (absent := _untrained(kept, label, split)):
        warnings.append(
            f"left out, as part of the split would have no training rows of them: {', '.join(sorted(absent))}"
        )
        classes = [name for name in classes if name not in absent]
        kept = rows[rows[label].isin(classes)]
    if len(classes) < 2:
        raise ValueError(
            f"{len(classes)} classes of {label!r} have rows to train and to test in every part of the split "
            f"({split['kind']}, group {split['group'] or 'none'}); it needs two: collect more rows, or more "
            "speakers of each class, or write the corpus's YAML by hand (docs/howto/corpus.md)"
        )
    return split, None if len(kept) == len(rows) else classes


def _split(rows: pd.DataFrame, sides: dict[str, str], warnings: list[str]) -> dict[str, Any]:
    named = rows["speaker"] if "speaker" in rows else pd.Series(None, index=rows.index, dtype=object)
    speakers = named.nunique()
    group = "speaker" if speakers > 1 and bool(named.notna().all()) else None
    if group is None:
        why = "there is only one speaker" if speakers else "speakers are not known"
        if speakers > 1:
            why = f"{int(named.isna().sum())} rows have no speaker"
        if "start" in rows and rows["path"].nunique() > 1:
            group = "path"
            why += ", rows of one file are kept together"
        warnings.append(f"{why}: voices may be on both sides of the split, and scores look too good")
    if column := next((name for name in ("split", "fold") if name in rows), None):
        return _predefined(rows, column, group, sides, warnings)
    groups = rows[group].nunique() if group is not None else 0
    if group is None:
        return {"kind": "holdout", "valid": 0.15, "test": 0.15, "group": None}
    if groups > FOLDS and len(rows) >= MANY_ROWS:
        return {"kind": "holdout", "valid": 0.15, "test": 0.15, "group": group}
    return {"kind": "kfold", "folds": min(FOLDS, groups), "group": group}


def _predefined(
    rows: pd.DataFrame, column: str, group: str | None, sides: dict[str, str], warnings: list[str]
) -> dict[str, Any]:
    split: dict[str, Any] = {"kind": "predefined", "column": column, "group": group}
    if column == "fold":
        split["folds"] = True
    elif "test" not in sides.values():
        warnings.append("the table has no test rows: its validation rows are used for testing")
        sides = {value: side.replace("valid", "test") for value, side in sides.items()}
    if names := {value: side for value, side in sides.items() if value != side}:
        split["names"] = names
    if group is not None and (both := int((rows.groupby(group)[column].nunique() > 1).sum())):
        split["allow_leak"] = True
        warnings.append(f"{both} speakers are on several sides of the table's split; the draft accepts it")
    return split


def _untrained(rows: pd.DataFrame, label: str, split: dict[str, Any]) -> set[str]:
    """Classes without training rows in some fold."""
    fields = {"kind": "folder", "label": label, "split": split}
    done = split_rows(rows, parse_config(fields, CorpusConfig, "the drafted split"))
    classes = set(rows[label])
    if "split" in done:
        return classes - set(done[label][done["split"] == "train"])
    folds = done["fold"].unique()
    return {name for fold in folds for name in classes - set(done[label][done["fold"] != fold])}
