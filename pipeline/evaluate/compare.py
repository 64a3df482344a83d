"""Comparing two reports on the same rows: is the difference more than chance?"""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from stillwave.pipeline.scores.classification import HEADLINE, scores
from stillwave.pipeline.scores.intervals import (
    LEVEL,
    mcnemar,
    paired_auroc,
    paired_bootstrap,
    randomisation_test,
)
from stillwave.pipeline.scores.open_set import auroc

RESAMPLES = 5000


def compare(
    a: str | Path,
    b: str | Path,
    *,
    common: bool = False,
    group: str | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, Any]:
    """The headline scores of two reports, and their differences B - A with 95 % intervals and p, JSON-ready.

    a, b: report folders, or run folders with a report in `<run>/report`. Rows are matched by id.
    common: compare the rows that both have (and, with unknown classes, that are known to both), instead of
        stopping if they differ; `left_out` says how many rows of each are not compared.
    group: a column, such as `speaker`, whose rows are resampled together: the difference for new speakers,
        not for new rows of the same speakers. n groups can be swapped in 2^n ways, so the p of a headline
        score is never below 2 / 2^n, however large the difference (see `randomisation_test`).

    Intervals come from `paired_bootstrap`, p from `randomisation_test`, and `mcnemar` is that test's p for
    accuracy, by rows. If a table has a column `known`, only rows known to both count here. If both have a
    `score` (higher is more outlying) and there are unknown rows, `metrics` also has their `auroc`, with the p
    of `paired_auroc`. Raises ValueError naming ids or labels that differ.
    """
    tables = [_read(Path(folder)) for folder in (a, b)]
    first, second = _aligned(tables, (str(a), str(b)), common)
    known = first["known"].to_numpy()
    labels = first["label"][known].tolist()
    guess_a, guess_b = (table["predicted"][known].tolist() for table in (first, second))
    groups = _groups(first, second, group)
    some = None if groups is None else groups[known].tolist()
    # One random stream each, so that none depends on how much another draws.
    drawn, swapped, weighed = np.random.default_rng(seed).spawn(3)
    intervals = paired_bootstrap(labels, guess_a, guess_b, drawn, groups=some, resamples=resamples)
    p = randomisation_test(labels, guess_a, guess_b, swapped, groups=some, resamples=resamples)
    classes = sorted(set(labels))
    score_a, score_b = (scores(labels, guess, classes) for guess in (guess_a, guess_b))
    metrics = {name: _line(score_a[name], score_b[name], intervals[name], p[name]) for name in HEADLINE}
    if not known.all() and "score" in first and "score" in second:
        of_a, of_b = (table["score"].to_numpy(dtype=np.float64) for table in (first, second))
        everyone = None if groups is None else groups.tolist()
        interval, chance = paired_auroc(known, of_a, of_b, weighed, groups=everyone, resamples=resamples)
        metrics["auroc"] = _line(auroc(of_a, known), auroc(of_b, known), interval, chance)
    return {
        "a": str(a),
        "b": str(b),
        "rows": int(known.sum()),
        "unknown_rows": int((~known).sum()),
        "left_out": {"a": len(tables[0]) - len(first), "b": len(tables[1]) - len(second)},
        "group": group,
        "groups": None if some is None else len(set(some)),
        "resamples": resamples,
        "level": LEVEL,
        "metrics": metrics,
        "mcnemar": mcnemar(labels, guess_a, guess_b),
    }


def _line(a: float, b: float, interval: tuple[float, float], p: float) -> dict[str, Any]:
    return {"a": a, "b": b, "difference": b - a, "interval": list(interval), "p": p}


def _read(folder: Path) -> pd.DataFrame:
    """The predictions of a report, by id, with a column `known`."""
    files = [folder / "predictions.parquet", folder / "report" / "predictions.parquet"]
    file = next((file for file in files if file.exists()), None)
    if file is None:
        raise ValueError(
            f"{folder}: no predictions.parquet here or in report/; write it with `stillwave evaluate`"
        )
    table = pd.read_parquet(file)
    if absent := [name for name in ("id", "label", "predicted") if name not in table]:
        raise ValueError(f"{file} has no column {', '.join(absent)}; rewrite it with `stillwave evaluate`")
    if twice := table["id"][table["id"].duplicated()].unique().tolist():
        raise ValueError(f"{file} has {len(twice)} repeated ids ({_some(twice)}); rows are matched by id")
    if "known" not in table:
        table["known"] = True
    return table.set_index("id").astype({"known": bool})


def _aligned(
    tables: list[pd.DataFrame], names: tuple[str, str], common: bool
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The rows to compare, in the same order."""
    both = tables[0].index.intersection(tables[1].index).sort_values()
    lacking = [table.index.difference(both).tolist() for table in tables]
    if any(lacking) and not common:
        said = "; ".join(
            f"{len(ids)} only in {name} ({_some(ids)})"
            for ids, name in zip(lacking, names, strict=True)
            if ids
        )
        raise ValueError(
            f"the reports have different rows: {said}; --common compares the {len(both)} in both"
        )
    first, second = (table.loc[both] for table in tables)
    if other := both[first["known"] != second["known"]].tolist():
        if not common:
            raise ValueError(
                f"{len(other)} rows are of a known class in one report and of an unknown one in the other "
                f"({_some(other)}); --common leaves them out"
            )
        first, second = first.drop(other), second.drop(other)
    different = first["label"].to_numpy() != second["label"].to_numpy()
    if different.any():
        row = first.index[different][0]
        raise ValueError(
            f"{int(different.sum())} rows have different labels in {names[0]} and {names[1]}: {row!r} is "
            f"{first.loc[row, 'label']!r} and {second.loc[row, 'label']!r}; the runs cannot be compared"
        )
    if not first["known"].any():
        raise ValueError(f"{names[0]} and {names[1]} have no rows of known classes in common to compare")
    return first, second


def _groups(first: pd.DataFrame, second: pd.DataFrame, group: str | None) -> "pd.Series[str] | None":
    """The column that both tables have, the same in both; None if rows are resampled individually."""
    if group is None:
        return None
    for table in (first, second):
        if group not in table or table[group].isna().any():
            raise ValueError(
                f"not every row has a {group!r}, so it cannot group rows; "
                f"the columns are {', '.join(map(str, table.columns))}"
            )
    ours, theirs = first[group].astype(str), second[group].astype(str)
    if (different := ours != theirs).any():
        row = int(different.to_numpy().argmax())
        raise ValueError(
            f"{int(different.sum())} rows have a different {group!r} in the two reports: "
            f"{first.index[row]!r} has {ours.iloc[row]!r} and {theirs.iloc[row]!r}; group by a column "
            "that is the same in both"
        )
    return ours


def _some(ids: list[Any]) -> str:
    return ", ".join(str(id_) for id_ in ids[:3]) + (", ..." if len(ids) > 3 else "")
