"""Temperature scaling: one number that makes a classifier's probabilities mean what they say."""

import math

import torch
from torch import Tensor

LOWEST, HIGHEST = 0.05, 20.0  # temperatures that `fit_temperature` returns


@torch.no_grad()
def fit_temperature(logits: Tensor, labels: Tensor) -> float:
    """The T, LOWEST to HIGHEST, whose softmax(logits / T) has the least negative log-likelihood.

    logits (rows, classes), labels (rows,): validation rows, neither trained nor tested on. After Guo et al.
    (ICML 2017). The loss is convex in 1 / T, so its slope's only zero is found by halving, in float64; and
    since T = 1 is among the candidates, the result is never worse than none.

    Where every row is right, as few validation rows easily are, the loss falls forever as T does: the rows
    say nothing of how sure to be, and T is 1. So it is where T changes nothing. Where certainty only costs,
    as with one row that is wrong: HIGHEST.

    Raises ValueError when there are no rows, or logits are not finite.
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
    margins = logits - own  # softmax is the same

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
