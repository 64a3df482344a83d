"""How well a score separates rows of unknown classes from rows of known ones.

Conventions: `scores` (rows,) are higher for rows that look more outlying. `known` (rows,) is True for rows of
the classes trained on. A threshold accepts the rows whose score is at most the threshold, and rejects the
others; rows with equal scores are always accepted together. Nothing depends on the scale of the scores.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, roc_auc_score


class Curve(NamedTuple):
    """Shares accepted as the threshold rises past each distinct score; each starts at 0 and ascends.

    known, unknown: shares of the rows of known and of unknown classes, ending at 1.
    correct: share of the known rows that are accepted and classified correctly, ending at the accuracy.
    """

    known: NDArray[np.float64]
    unknown: NDArray[np.float64]
    correct: NDArray[np.float64]


def accepted(scores: NDArray[Any], known: NDArray[Any], correct: NDArray[Any] | None = None) -> Curve:
    """The input of `fpr_at_tpr` and `oscr`. correct: (rows,), for known rows; default: all are.

    Raises ValueError if a side has no rows, or a score is NaN.
    """
    ranks, known = _ranked(scores, known)
    right = known if correct is None else known & np.asarray(correct, dtype=bool)

    def share(rows: NDArray[np.bool_], total: int) -> NDArray[np.float64]:
        return np.append(0, np.bincount(ranks, weights=rows).cumsum()) / total

    count = int(known.sum())
    return Curve(share(known, count), share(~known, len(known) - count), share(right, count))


def _ranked(scores: NDArray[Any], known: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """The rank of each score among the distinct ones, infinite ones too, and `known`; see `accepted`."""
    scores, known = np.asarray(scores, dtype=np.float64), np.asarray(known, dtype=bool)
    if scores.shape != known.shape or scores.ndim != 1:
        raise ValueError(f"scores {scores.shape}, known {known.shape}; each must be (rows,)")
    if np.isnan(scores).any():
        raise ValueError(f"{int(np.isnan(scores).sum())} of {len(scores)} scores are NaN; they have no order")
    if known.all() or not known.any():
        side = "unknown" if known.all() else "known"
        raise ValueError(
            f"no rows of {side} classes among {len(scores)}; open-set figures compare rows of both: list as "
            "unknown some classes that occur in the test rows, and train on the others"
        )
    return np.unique(scores, return_inverse=True)[1], known


def auroc(scores: NDArray[Any], known: NDArray[Any]) -> float:
    """Probability that an unknown row scores higher than a known one; equal scores count one half."""
    ranks, known = _ranked(scores, known)
    return float(roc_auc_score(~known, ranks))


def fpr_at_tpr(scores: NDArray[Any], known: NDArray[Any], tpr: float = 0.95) -> float:
    """Share of unknown rows accepted at the lowest threshold that accepts `tpr` of the known ones.

    So the known rows are the positive ones here, as in most papers ("FPR95"); lower is better.
    """
    if not 0 < tpr <= 1:
        raise ValueError(f"tpr is {tpr}; the share of known rows to accept must be above 0 and at most 1")
    curve = accepted(scores, known)
    return float(curve.unknown[np.argmax(curve.known >= tpr - 1e-12)])


def aupr(scores: NDArray[Any], known: NDArray[Any]) -> float:
    """Average precision of finding the unknown rows, which are the positive ones: sum over thresholds of
    (step in recall) * precision, the highest scores first. Chance is the share of unknown rows."""
    ranks, known = _ranked(scores, known)
    return float(average_precision_score(~known, ranks))


def oscr(scores: NDArray[Any], known: NDArray[Any], correct: NDArray[Any]) -> float:
    """Area under correct classification rate against false positive rate (Dhamija et al., NeurIPS 2018).

    CCR(t) = |known rows with score <= t and the right class| / |known rows|,
    FPR(t) = |unknown rows with score <= t| / |unknown rows|,
    area over FPR from 0 to 1, linear between the thresholds, so that a tie counts one half. Their score is
    one minus the largest probability. Never above `auroc`, and equal to it if every known row is classified
    correctly.
    """
    curve = accepted(scores, known, correct)
    return float(np.trapezoid(curve.correct, curve.unknown))


def open_set_report(
    scores: NDArray[Any], known: NDArray[Any], correct: NDArray[Any], *, threshold: float | None = None
) -> dict[str, Any]:
    """`auroc`, `fpr_at_95_tpr`, `aupr`, `oscr`, and the number of rows on each side, JSON-ready.

    With a `threshold` also what it does: `known_rejected` and `unknown_rejected`, shares of their sides.
    """
    scores, known = np.asarray(scores, dtype=np.float64), np.asarray(known, dtype=bool)
    report = {
        "auroc": auroc(scores, known),
        "fpr_at_95_tpr": fpr_at_tpr(scores, known),
        "aupr": aupr(scores, known),
        "oscr": oscr(scores, known, correct),
        "n_known": int(known.sum()),
        "n_unknown": int((~known).sum()),
    }
    if threshold is not None:
        rejected = scores > threshold
        report |= {
            "threshold": float(threshold),
            "known_rejected": float(rejected[known].mean()),
            "unknown_rejected": float(rejected[~known].mean()),
        }
    return report
