"""How much of a score, or of a difference between two scores, is due to chance.

Conventions: labels, predictions and groups are names, one per row. Differences are B - A. A unit is resampled
as a whole: a row, or all rows of a group (a speaker). Rows of one speaker resemble each other, so if there
are several speakers, the interval by groups is the one that holds for new speakers; the interval by rows says
how well these speakers were measured. Percentile intervals of few groups (under about 20) are too short.

Nothing is computed row by row: the headline scores follow from a confusion matrix, and a resample of rows is
a random count of rows of each kind (label, predictions).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import binomtest

from stillwave.pipeline.scores.classification import HEADLINE

RESAMPLES, LEVEL = 2000, 0.95
_ROUNDING = 1e-12  # equal differences, summed in another order
_CHUNK = 100  # resamples of single rows held at once

Interval = tuple[float, float]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class _Units:
    """The units to resample: `copies` (kinds,) equal units of each kind, and what one adds to the confusion
    matrix, actual by predicted, of predictions A, and of B: (kinds, classes, classes)."""

    copies: NDArray[np.int64]
    a: Floats
    b: Floats


def bootstrap(
    labels: Sequence[str],
    predicted: Sequence[str],
    generator: np.random.Generator,
    *,
    groups: Sequence[str] | None = None,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
) -> dict[str, Interval]:
    """Percentile interval of each HEADLINE score (Efron, 1979), from `resamples` draws with replacement.

    Rows are resampled or, with `groups`, whole groups. Classes that a resample lacks are ignored, as in
    `scores`. Raises ValueError if there are no rows, or fewer than two groups.
    """
    units = _units(labels, predicted, predicted, groups)
    values = _scores_of(_drawn(units, generator, resamples) @ _flat(units.a))
    return {name: _percentiles(values[name], level) for name in HEADLINE}


def interval_report(predictions: pd.DataFrame, generator: np.random.Generator) -> dict[str, Any]:
    """Intervals for a table with `label`, `predicted` and, if it exists, `speaker`, JSON-ready.

    `level`, `resamples`, `rows`: score -> [low, high], and `speakers`: the same if there are at least two
    and every row has one.
    """
    labels, predicted = predictions["label"].tolist(), predictions["predicted"].tolist()
    report: dict[str, Any] = {"level": LEVEL, "resamples": RESAMPLES}
    for unit, groups in _drawn_by(predictions).items():
        intervals = bootstrap(labels, predicted, generator, groups=groups)
        report[unit] = {name: list(interval) for name, interval in intervals.items()}
    return report


def paired_bootstrap(
    labels: Sequence[str],
    a: Sequence[str],
    b: Sequence[str],
    generator: np.random.Generator,
    *,
    groups: Sequence[str] | None = None,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
) -> dict[str, Interval]:
    """Percentile interval of each HEADLINE score of `b` minus that of `a`, both on the same draws."""
    units = _units(labels, a, b, groups)
    drawn = _drawn(units, generator, resamples)
    before, after = _scores_of(drawn @ _flat(units.a)), _scores_of(drawn @ _flat(units.b))
    return {name: _percentiles(after[name] - before[name], level) for name in HEADLINE}


def randomisation_test(
    labels: Sequence[str],
    a: Sequence[str],
    b: Sequence[str],
    generator: np.random.Generator,
    *,
    groups: Sequence[str] | None = None,
    resamples: int = RESAMPLES,
) -> dict[str, float]:
    """Two-sided p of each HEADLINE score's difference, by randomisation (Noreen, 1989).

    If A and B are equivalent, the two predictions of a unit can be swapped: each is, with probability 1/2. p
    is the share of swaps whose difference is at least as large as the observed one. n units have 2^n swaps,
    in pairs that differ only in sign; so if 2^(n - 1) is at most `resamples`, all are counted, and p is
    exact: at least 2 / 2^n. Otherwise swaps are sampled, the observed one is included, and p is at least 1 /
    (1 + resamples), which is more than 2 / 2^n.
    """
    units = _units(labels, a, b, groups)
    exact = 2 ** (int(units.copies.sum()) - 1) <= resamples
    if exact:
        units = _Units(
            np.ones(units.copies.sum(), dtype=np.int64),
            np.repeat(units.a, units.copies, axis=0),
            np.repeat(units.b, units.copies, axis=0),
        )
        count = len(units.copies)  # the first is never swapped: the other half only exchanges A and B
        swapped = np.arange(2 ** (count - 1))[:, None] >> np.arange(count)[::-1] & 1
    else:
        swapped = generator.binomial(units.copies, 0.5, size=(resamples, len(units.copies)))
    total_a, total_b = units.copies @ _flat(units.a), units.copies @ _flat(units.b)
    moved = swapped @ (_flat(units.b) - _flat(units.a))
    before, after = _scores_of(total_a + moved), _scores_of(total_b - moved)
    found_a, found_b = _scores_of(total_a), _scores_of(total_b)
    p = {}
    for name in HEADLINE:
        found = abs(found_b[name] - found_a[name]) - _ROUNDING
        extreme = int((np.abs(after[name] - before[name]) >= found).sum())
        p[name] = extreme / len(swapped) if exact else (1 + extreme) / (1 + resamples)
    return p


def mcnemar(labels: Sequence[str], a: Sequence[str], b: Sequence[str]) -> float:
    """Two-sided p of McNemar's exact test: are only A and only B right equally often? 1 if never."""
    actual = np.asarray(labels)
    right_a, right_b = np.asarray(a) == actual, np.asarray(b) == actual
    only_a, only_b = int((right_a & ~right_b).sum()), int((right_b & ~right_a).sum())
    return float(binomtest(only_a, only_a + only_b).pvalue) if only_a + only_b else 1.0


def paired_auroc(
    known: NDArray[np.bool_],
    a: NDArray[Any],
    b: NDArray[Any],
    generator: np.random.Generator,
    *,
    groups: Sequence[str] | None = None,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
) -> tuple[Interval, float]:
    """Percentile interval of AUROC of scores `b` minus that of `a`, and the matching two-sided p.

    Scores of two runs have no common scale, so they cannot be swapped; p is twice the share of resamples on
    the other side of zero, where the observed one counts once more. Resamples without rows of one side are
    skipped.
    """
    before, after = _auroc_draws(known, (a, b), generator, groups, resamples)
    differences = after - before
    shares = ((differences <= _ROUNDING).sum(), (differences >= -_ROUNDING).sum())
    return _percentiles(differences, level), float(min(1.0, 2 * (1 + min(shares)) / (1 + len(differences))))


def open_set_intervals(predictions: pd.DataFrame, generator: np.random.Generator) -> dict[str, Any]:
    """Percentile intervals of the AUROC of `score` in a table with `known`, JSON-ready, like
    `interval_report`.

    Resamples without rows of one side are skipped.
    """
    known, score = predictions["known"].to_numpy(dtype=bool), predictions["score"].to_numpy()
    report: dict[str, Any] = {"level": LEVEL, "resamples": RESAMPLES}
    for unit, groups in _drawn_by(predictions).items():
        (values,) = _auroc_draws(known, (score,), generator, groups, RESAMPLES)
        report[unit] = {"auroc": list(_percentiles(values, LEVEL))}
    return report


def _auroc_draws(
    known: NDArray[np.bool_],
    scores: Sequence[NDArray[Any]],
    generator: np.random.Generator,
    groups: Sequence[str] | None,
    resamples: int,
) -> list[Floats]:
    """The AUROC of each of `scores` on the same resamples, except those without rows of one side."""
    members, inverse = _members(len(known), groups)
    parts = []
    for start in range(0, resamples, _CHUNK):
        size = min(_CHUNK, resamples - start)
        weights = generator.multinomial(members, np.full(members, 1 / members), size=size)[:, inverse]
        parts.append(np.stack([_weighted_auroc(score, known, weights) for score in scores]))
    drawn = np.concatenate(parts, axis=1)
    return list(drawn[:, np.isfinite(drawn[0])])


def _drawn_by(predictions: pd.DataFrame) -> dict[str, list[str] | None]:
    """The units to resample: `rows` (None), and `speakers` if there are two and every row has one."""
    draws: dict[str, list[str] | None] = {"rows": None}
    speakers = predictions["speaker"] if "speaker" in predictions else pd.Series(dtype=object)
    if speakers.nunique() > 1 and speakers.notna().all():
        draws["speakers"] = speakers.astype(str).tolist()
    return draws


def _units(labels: Sequence[str], a: Sequence[str], b: Sequence[str], groups: Sequence[str] | None) -> _Units:
    columns = [np.asarray(names, dtype=str) for names in (labels, a, b)]
    if len({len(column) for column in columns}) > 1 or not len(columns[0]):
        sizes = ", ".join(str(len(column)) for column in columns)
        raise ValueError(f"labels and predictions have {sizes} rows; they must be equally many, at least one")
    names, numbers = np.unique(np.concatenate(columns), return_inverse=True)
    rows = numbers.reshape(3, -1).T  # (rows, 3): label, A, B
    kinds, inverse, copies = np.unique(rows, axis=0, return_inverse=True, return_counts=True)
    cells = np.eye(len(names) ** 2).reshape(-1, len(names), len(names))
    one_a, one_b = (cells[kinds[:, 0] * len(names) + kinds[:, side]] for side in (1, 2))
    if groups is None:
        return _Units(copies, one_a, one_b)
    count, group = _members(len(rows), groups)
    table = np.zeros((count, len(kinds)))
    np.add.at(table, (group, inverse.ravel()), 1)
    sums = [np.tensordot(table, one, 1) for one in (one_a, one_b)]
    return _Units(np.ones(count, dtype=np.int64), sums[0], sums[1])


def _members(count: int, groups: Sequence[str] | None) -> tuple[int, NDArray[np.int64]]:
    """How many units there are, and the unit of each row."""
    if groups is None:
        return count, np.arange(count)
    names, inverse = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    if len(inverse) != count or len(names) < 2:
        raise ValueError(
            f"{len(names)} groups on {len(inverse)} of {count} rows; resampling groups needs one per row, "
            "and at least 2 of them: resample rows instead"
        )
    return len(names), inverse


def _drawn(units: _Units, generator: np.random.Generator, resamples: int) -> Floats:
    """(resamples, kinds): how often each kind occurs when all units are resampled."""
    if resamples < 1:
        raise ValueError(f"resamples is {resamples}; it must be at least 1, and about 1,000 for an interval")
    total = int(units.copies.sum())
    return generator.multinomial(total, units.copies / total, size=resamples).astype(np.float64)


def _flat(confusions: Floats) -> Floats:
    return confusions.reshape(len(confusions), -1)


def _scores_of(flat: Floats) -> dict[str, Floats]:
    """The HEADLINE scores of confusion matrices (..., classes * classes), as `scores` has them."""
    size = math.isqrt(flat.shape[-1])
    confusion = flat.reshape(*flat.shape[:-1], size, size)
    right = np.diagonal(confusion, axis1=-2, axis2=-1)
    support, guesses = confusion.sum(-1), confusion.sum(-2)
    present, rows = support > 0, support.sum(-1)
    recall = right / np.where(present, support, 1)
    f1 = 2 * right / np.where(present, support + guesses, 1) * present
    return {
        "accuracy": right.sum(-1) / rows,
        "uar": recall.sum(-1) / present.sum(-1),
        "weighted_f1": (f1 * support).sum(-1) / rows,
        "macro_f1": f1.sum(-1) / present.sum(-1),
    }


def _weighted_auroc(scores: NDArray[Any], known: NDArray[np.bool_], weights: NDArray[np.int64]) -> Floats:
    """AUROC of each row of weights (resamples, rows); NaN if a side has no weight."""
    order = np.argsort(scores, kind="stable")
    ordered = np.asarray(scores)[order]
    starts = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1]))  # of each run of equal scores
    sides = (np.add.reduceat(weights[:, order] * side[order], starts, axis=1) for side in (known, ~known))
    inside, outside = sides
    pairs = (outside * (np.cumsum(inside, axis=1) - inside / 2)).sum(1)
    total = inside.sum(1) * outside.sum(1)
    return np.where(total > 0, pairs / np.maximum(total, 1), np.nan)


def _percentiles(values: Floats, level: float) -> Interval:
    if not 0 < level < 1:
        raise ValueError(f"level is {level}; it must be between 0 and 1, for example 0.95")
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
