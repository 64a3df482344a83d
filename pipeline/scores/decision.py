"""From probabilities and open-set scores to what is said of an item."""

import numpy as np
from numpy.typing import NDArray


def entropy(p: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of probabilities (..., classes), as a part of that of equal ones: (...), 0 to 1."""
    terms = p * np.log(np.where(p > 0, p, 1.0))
    result: NDArray[np.float64] = np.maximum(-terms.sum(-1), 0.0) / np.log(p.shape[-1])
    return result


def decide(
    predicted: NDArray[np.object_], score: NDArray[np.float64], threshold: NDArray[np.float64], unknown: str
) -> NDArray[np.object_]:
    """(rows,) of each: `unknown` where the score is above the threshold, else what is predicted.

    None where there is no threshold (NaN).
    """
    decision = np.where(score <= threshold, predicted, unknown).astype(object)
    decision[np.isnan(threshold)] = None
    return decision
