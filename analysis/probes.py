"""What a linear classifier can read from embeddings: the labels of new speakers, and the speaker.

Conventions: x is (rows, dim); target and groups are (rows,) of names, None or NaN if unknown.
"""

import warnings
from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from stillwave.pipeline.scores.classification import scores

MAX_ROWS = 10_000  # to train on; more cost time in proportion and hardly change a linear classifier


def probe(
    x: NDArray[Any],
    target: NDArray[Any],
    groups: NDArray[Any] | None = None,
    *,
    folds: int = 5,
    seed: int = 0,
    c: float = 1.0,
    max_iterations: int = 1000,
    max_rows: int = MAX_ROWS,
) -> dict[str, Any]:
    """Logistic regression, each row predicted by a model that has seen neither it nor its group. JSON-ready.

    x is standardised on the training rows of each fold, classes weigh the same, and c is the inverse of the
    L2 penalty. groups: held out as a whole, as speakers are for probing labels.

    Returns uar and accuracy of all rows predicted, uar_std and accuracy_std over folds, chance (1 / classes)
    and majority (the share of the largest class), the data used (classes, rows, folds, groups: how many, or
    null if rows were drawn), not_converged (folds whose solver stopped at `max_iterations`), and
    notes: a sentence on everything left out or reduced. Scores are null if fewer than two classes are left.
    """
    if folds < 2 or max_rows < 2:
        raise ValueError(f"probe.folds and max_rows are {folds} and {max_rows}; they must be at least 2")
    rows, groups, notes = _usable(target, groups)
    x, names = x[rows], target[rows].astype(str)
    groups = groups[rows] if groups is not None else None
    classes, sizes = np.unique(names, return_counts=True)
    result: dict[str, Any] = dict.fromkeys(
        ("uar", "uar_std", "accuracy", "accuracy_std", "chance", "majority")
    )
    result |= {"classes": len(classes), "rows": len(rows), "folds": 0, "groups": None, "not_converged": 0}
    if len(classes) < 2:
        notes.append("nothing was probed: fewer than two classes are left")
        return result | {"notes": notes}
    sides = _sides(names, groups, folds, seed, notes)
    predicted, each, unseen = np.empty_like(names), [], 0
    for train, test in sides:
        seen = names[train]
        kept = train[_sample(seen, max_rows, np.random.default_rng(seed))]
        regression = LogisticRegression(C=c, max_iter=max_iterations, class_weight="balanced")
        model = make_pipeline(StandardScaler(), regression)
        predicted[test], converged = _fitted(model, x[kept], names[kept], x[test])
        result["not_converged"] += not converged
        unseen += int((~np.isin(names[test], seen)).sum())
        each.append(scores(names[test].tolist(), predicted[test].tolist(), classes.tolist()))
    if unseen:
        notes.append(f"{unseen} rows count as wrong: their fold had no row of their class to train on")
    if (most := max(len(train) for train, _ in sides)) > max_rows:
        notes.append(f"each fold was trained on a sample of {max_rows} of up to {most} rows")
    if stopped := result["not_converged"]:
        notes.append(f"the solver stopped at {max_iterations} iterations in {stopped} of {len(sides)} folds")
    total = scores(names.tolist(), predicted.tolist(), classes.tolist())
    for name in ("uar", "accuracy"):
        result |= {name: total[name], f"{name}_std": float(np.std([fold[name] for fold in each]))}
    return result | {
        "chance": 1 / len(classes),
        "majority": float(sizes.max() / len(names)),
        "folds": len(sides),
        "groups": len(np.unique(groups.astype(str))) if groups is not None else None,
        "notes": notes,
    }


def _usable(
    target: NDArray[Any], groups: NDArray[Any] | None
) -> tuple[NDArray[np.int64], NDArray[Any] | None, list[str]]:
    """The rows that can be trained and tested on, the groups to hold out if any, and what was left out."""
    notes: list[str] = []
    known = pd.notna(target)
    if unlabelled := int((~known).sum()):
        notes.append(f"{unlabelled} rows without the target are left out")
    if groups is not None and pd.Series(groups[known]).nunique() < 2:
        notes.append("fewer than two groups: rows were held out at random, so a group is on both sides")
        groups = None
    if groups is not None:
        if lone := int((known & pd.isna(groups)).sum()):
            notes.append(f"{lone} rows without a group are left out")
        known &= pd.notna(groups)
    rows = np.flatnonzero(known)
    unit = groups[rows] if groups is not None else rows
    # A class with one row, or one group, cannot be on both sides.
    spread = pd.Series(unit).groupby(target[rows]).nunique()
    if len(single := spread.index[spread < 2]):
        alone = np.isin(target[rows], single)
        what = "group" if groups is not None else "row"
        notes.append(f"{alone.sum()} rows are left out, of classes of a single {what}: {_names(single)}")
        rows = rows[~alone]
    return rows, groups, notes


def _names(classes: Iterable[str]) -> str:
    named = [str(name) for name in classes]
    return ", ".join(named[:5]) + (f" and {len(named) - 5} more" if len(named) > 5 else "")


def _sides(
    names: NDArray[Any], groups: NDArray[Any] | None, folds: int, seed: int, notes: list[str]
) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """(train, test) of each fold; every row is tested once."""
    possible = int(np.unique(names, return_counts=True)[1].max())
    if groups is not None:
        possible = min(possible, len(np.unique(groups.astype(str))))
    if possible < folds:
        what = "groups" if groups is not None else "rows of any class"
        notes.append(f"{possible} folds, not {folds}: there are no more {what}")
    split = StratifiedKFold if groups is None else StratifiedGroupKFold
    splitter = split(min(folds, possible), shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        # Classes with fewer rows than folds are tested in fewer folds.
        warnings.filterwarnings("ignore", "The least populated class", UserWarning)
        sides = list(splitter.split(names, names, groups))
    return [(train, test) for train, test in sides if len(test)]


def _sample(names: NDArray[Any], count: int, generator: np.random.Generator) -> NDArray[np.int64]:
    """At most `count` rows, with each class's share, and one of each before a second of any."""
    if len(names) <= count:
        return np.arange(len(names))
    order = generator.permutation(len(names))
    drawn = pd.Series(names[order])
    rank = drawn.groupby(drawn).cumcount() / drawn.groupby(drawn).transform("size")
    return np.sort(order[np.argsort(rank.to_numpy(), kind="stable")[:count]])


def _fitted(
    model: Pipeline, x: NDArray[Any], names: NDArray[Any], test: NDArray[Any]
) -> tuple[NDArray[Any], bool]:
    """The names predicted for `test`, and whether the solver converged."""
    if (names == names[0]).all():
        return np.full(len(test), names[0]), True
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ConvergenceWarning)
        model.fit(x, names)
    stopped = [warning for warning in caught if issubclass(warning.category, ConvergenceWarning)]
    for warning in caught:
        if warning not in stopped:
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
    return model.predict(test), not stopped
