"""From probabilities and open-set scores to decisions."""

import numpy as np
from numpy.typing import NDArray


def entropy(p: NDArray[np.float64]) -> NDArray[np.float64]:
    """The entropy of probabilities (..., classes), as a fraction of the largest possible: (...), 0 to 1."""
    terms = p * np.log(np.where(p > 0, p, 1.0))
    result: NDArray[np.float64] = np.maximum(-terms.sum(-1), 0.0) / np.log(p.shape[-1])
    return result


def decide(
    predicted: NDArray[np.object_], score: NDArray[np.float64], threshold: NDArray[np.float64], unknown: str
) -> NDArray[np.object_]:
    """(rows,) each: `unknown` where the score is above the threshold, else the predicted class.

    None without a threshold (NaN).
    """
    decision = np.where(score <= threshold, predicted, unknown).astype(object)
    decision[np.isnan(threshold)] = None
    return decision
