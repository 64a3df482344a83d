"""How far a classifier's probabilities can be trusted.

Conventions: probabilities are (rows, classes), each row sums to 1; labels are class numbers, (rows,). The
confidence of a row is its largest probability. Lower is better for every figure here.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

BINS = 15
_SMALLEST = float(np.finfo(np.float64).eps)  # one row with probability 0 must not make the mean infinite


def ece(probabilities: NDArray[Any], labels: NDArray[Any], bins: int = BINS) -> float:
    """Expected calibration error, 0 to 1 (Naeini et al., AAAI 2015; Guo et al., ICML 2017).

    Mean over bins of |accuracy - confidence|, weighted by rows; bins as in `reliability`.
    """
    gap = 0.0
    for part in reliability(probabilities, labels, bins):
        if part["n"]:
            gap += part["n"] * abs(part["accuracy"] - part["confidence"])
    return gap / len(labels)


def nll(probabilities: NDArray[Any], labels: NDArray[Any]) -> float:
    """Mean negative logarithm of the label's probability, which counts as at least 2.2e-16."""
    probabilities = _checked(probabilities, labels)
    own = probabilities[np.arange(len(labels)), labels]
    return float(-np.log(np.maximum(own, _SMALLEST)).mean())


def brier(probabilities: NDArray[Any], labels: NDArray[Any]) -> float:
    """Mean over rows of sum_c (p_c - [c is the label])^2, 0 to 2 (Brier, 1950)."""
    probabilities = _checked(probabilities, labels)
    target = np.eye(probabilities.shape[1])[labels]
    return float(np.square(probabilities - target).sum(axis=1).mean())


def reliability(probabilities: NDArray[Any], labels: NDArray[Any], bins: int = BINS) -> list[dict[str, Any]]:
    """One dict per bin of equal width, (low, high]: low, high, n, mean confidence, accuracy.

    Confidence and accuracy are None if a bin has no rows.
    """
    probabilities = _checked(probabilities, labels)
    if bins < 1:
        raise ValueError(f"bins is {bins}; it must be at least 1")
    edges = np.arange(bins + 1) / bins
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    member = np.searchsorted(edges[1:-1], confidence, side="left")
    table: list[dict[str, Any]] = []
    for number in range(bins):
        rows = member == number
        means = (float(confidence[rows].mean()), float(right[rows].mean())) if rows.any() else (None, None)
        low, high = float(edges[number]), float(edges[number + 1])
        table.append(
            {"low": low, "high": high, "n": int(rows.sum()), "confidence": means[0], "accuracy": means[1]}
        )
    return table


def calibration_report(probabilities: NDArray[Any], labels: NDArray[Any], bins: int = BINS) -> dict[str, Any]:
    """`ece`, `nll`, `brier`, `n` and the table `reliability`, JSON-ready."""
    return {
        "ece": ece(probabilities, labels, bins),
        "nll": nll(probabilities, labels),
        "brier": brier(probabilities, labels),
        "n": len(labels),
        "reliability": reliability(probabilities, labels, bins),
    }


def _checked(probabilities: NDArray[Any], labels: NDArray[Any]) -> NDArray[np.float64]:
    """The probabilities in float64. Raises ValueError if they are none, or the labels do not fit them."""
    values = np.asarray(probabilities, dtype=np.float64)
    labels = np.asarray(labels)
    if values.ndim != 2 or labels.shape != values.shape[:1] or not len(labels):
        raise ValueError(
            f"probabilities {values.shape} and labels {labels.shape}; they must be (rows, classes) and "
            "(rows,), with at least one row"
        )
    if labels.min() < 0 or labels.max() >= values.shape[1]:
        raise ValueError(
            f"labels span {labels.min()}..{labels.max()}; they must be in 0..{values.shape[1] - 1}, "
            "the columns of probabilities"
        )
    sums = values.sum(axis=1)
    off = ~(np.abs(sums - 1) <= 1e-3) | (values < 0).any(axis=1)  # half precision rounds by this much
    if off.any():
        row = int(np.flatnonzero(off)[0])
        raise ValueError(
            f"{int(off.sum())} rows are not probabilities, the first is row {row}, with sum {sums[row]:.4g}; "
            "give softmax's output, not logits"
        )
    return values
