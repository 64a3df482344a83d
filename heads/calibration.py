"""Temperature scaling: one number that makes a classifier's probabilities mean what they say."""

import math

import torch
from torch import Tensor

LOWEST, HIGHEST = 0.05, 20.0  # temperatures that `fit_temperature` returns


@torch.no_grad()
def fit_temperature(logits: Tensor, labels: Tensor) -> float:
    """The T in LOWEST..HIGHEST that minimises the negative log-likelihood of softmax(logits / T).

    logits (rows, classes), labels (rows,): validation rows, used neither to train nor to test. After Guo et
    al. (ICML 2017). The loss is convex in 1 / T, so the only zero of its slope is found by bisection, in
    float64; since T = 1 is among the candidates, the result is never worse than no scaling.

    If every row is right, as is likely with few validation rows, the loss falls forever as T does: the rows
    do not say how sure to be, and T is 1. The same holds if T changes nothing. If certainty only hurts, as
    with a single row that is wrong, T is HIGHEST.

    Raises ValueError if there are no rows, or logits are not finite.
    """
    if logits.ndim != 2 or labels.shape != logits.shape[:1] or len(logits) == 0:
        raise ValueError(
            f"logits {tuple(logits.shape)} and labels {tuple(labels.shape)}; a temperature needs "
            "(rows, classes) and (rows,), at least one validation row: set train.valid_fraction"
        )
    if not logits.isfinite().all():
        bad = int((~logits.isfinite()).any(1).sum())
        raise ValueError(
            f"{bad} of {len(logits)} rows have logits that are not finite; no temperature can fix them"
        )
    logits = logits.double()
    own = logits.gather(1, labels.long()[:, None])
    margins = logits - own  # the softmax does not change

    def slope(log_inverse: float) -> float:
        """The derivative of the mean loss by 1 / T, at 1 / T = exp(log_inverse)."""
        probabilities = (margins * math.exp(log_inverse)).softmax(1)
        return float((probabilities * margins).sum(1).mean())

    if slope(0.0) == 0 or bool((logits.argmax(1) == labels).all()):
        return 1.0
    low, high = -math.log(HIGHEST), -math.log(LOWEST)
    if slope(low) >= 0:
        return HIGHEST
    if slope(high) <= 0:
        return LOWEST
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if slope(middle) < 0 else (low, middle)
    return math.exp(-(low + high) / 2)
