"""Losses from logits and labels. A head's own losses, such as its anchors', are in its method `losses`."""

import math
from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, nn

FocalKind = Literal["softmax", "sigmoid"]


class LabelSmoothingCrossEntropy(nn.Module):
    """Cross-entropy to a target that is 1 - smoothing on the label and smoothing / classes on every class.

    After Szegedy et al. (CVPR 2016). weight: (classes,); the loss is then divided by the sum
    of the weights of the batch's labels, as in torch.
    """

    weight: Tensor | None

    def __init__(self, smoothing: float = 0.1, weight: Tensor | None = None) -> None:
        super().__init__()
        if not 0 <= smoothing < 1:
            raise ValueError(f"smoothing is {smoothing}; it must be at least 0 and below 1")
        self.smoothing = smoothing
        self.register_buffer("weight", weight)

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """(batch, classes), labels (batch,) -> scalar, at least in float32."""
        logits = _wide(logits)
        if self.weight is None or not self.smoothing:
            weight = None if self.weight is None else self.weight.to(logits.dtype)
            return nn.functional.cross_entropy(logits, labels, weight, label_smoothing=self.smoothing)
        # As torch computes it, but without its mask of labels to ignore, for which a GPU would have to wait.
        logp, weight = logits.log_softmax(dim=1), self.weight.to(logits.dtype)
        smooth = -(logp * weight).sum(dim=1).sum() / weight[labels].sum()
        exact = nn.functional.nll_loss(logp, labels, weight)
        return (1 - self.smoothing) * exact + smooth * (self.smoothing / logits.shape[1])


class ClassBalancedFocalLoss(nn.Module):
    """Focal loss (Lin et al., ICCV 2017) weighted by the effective number of rows (Cui et al., CVPR 2019).

    counts: training rows of each class; without them all rows weigh the same. A row of class c weighs
        w_c = (1 - beta) / (1 - beta^counts_c), scaled so that the weights of the classes sum to their number.
        beta = 0 weighs all rows the same, beta close to 1 weighs them by 1 / counts.
    gamma: how much easy rows are down-weighted; 0 gives weighted cross-entropy.
    kind:
        sigmoid: as in Cui et al.: one binary problem per class, w of the label * sum_c
            -(1 - p_c)^gamma log p_c with p_c = sigmoid(z_c) for the label and sigmoid(-z_c) for the others,
            summed over classes and rows, divided by the number of positives, which is the number of rows.
            They start the last layer's bias at `prior_bias`.
        softmax: a variant, not in their paper: w * -(1 - p)^gamma log p with p the label's softmax
            probability, averaged over rows. Its probabilities are the ones that the classifier predicts.
    """

    weight: Tensor | None

    def __init__(
        self,
        beta: float = 0.9999,
        gamma: float = 2.0,
        counts: Sequence[int] | Tensor | None = None,
        kind: FocalKind = "softmax",
    ) -> None:
        super().__init__()
        if not 0 <= beta < 1:
            raise ValueError(f"beta is {beta}; it must be at least 0 and below 1")
        if gamma < 0:
            raise ValueError(f"gamma is {gamma}; it must be at least 0")
        if kind not in get_args(FocalKind):
            raise ValueError(f"kind is {kind!r}; choose one of {', '.join(get_args(FocalKind))}")
        self.gamma, self.kind = gamma, kind
        self.register_buffer("weight", None if counts is None else _effective_weights(counts, beta))

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """(batch, classes), labels (batch,) -> scalar, at least in float32."""
        logits = _wide(logits)
        own = nn.functional.one_hot(labels, logits.shape[1]).bool()
        if self.kind == "sigmoid":
            signed = torch.where(own, logits, -logits)
            # (1 - p)^gamma from its logarithm: the gradient stays finite no matter how certain the row is
            log_p, log_rest = nn.functional.logsigmoid(signed), nn.functional.logsigmoid(-signed)
            each = -((self.gamma * log_rest).exp() * log_p).sum(1)
        else:
            total = logits.logsumexp(1)
            own_logit = logits.gather(1, labels[:, None]).squeeze(1)
            log_p, log_rest = own_logit - total, logits.masked_fill(own, -torch.inf).logsumexp(1) - total
            each = -(self.gamma * log_rest).exp() * log_p
        return (each if self.weight is None else self.weight.to(logits.dtype)[labels] * each).mean()


def prior_bias(num_classes: int) -> float:
    """-log(classes - 1): a last layer with this bias starts every sigmoid at 1 / classes."""
    return -math.log(num_classes - 1)


def _effective_weights(counts: Sequence[int] | Tensor, beta: float) -> Tensor:
    """(classes,): the inverse of the effective number of rows, scaled to sum to the number of classes."""
    rows = torch.as_tensor(counts, dtype=torch.float64)
    if rows.ndim != 1 or len(rows) < 2:
        raise ValueError(
            f"counts has the shape {tuple(rows.shape)}; give one count for each of 2 classes or more"
        )
    if (rows <= 0).any():
        empty = ", ".join(str(i) for i in torch.nonzero(rows <= 0)[:, 0].tolist())
        raise ValueError(
            f"classes without training rows: {empty} (counts {rows.long().tolist()}); their weight would "
            "be infinite: leave them out of the classes, or use another split"
        )
    # expm1, because beta^n is close to 1 for beta near 1
    effective = -torch.expm1(rows * math.log(beta)) if beta else torch.ones_like(rows)
    return (len(rows) / (1 / effective).sum() / effective).float()


def _wide(logits: Tensor) -> Tensor:
    """Half precision, as autocast gives it, is too coarse for a loss."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


class SoftTargetLoss(nn.Module):
    """Cross-entropy between the teacher's and the student's probabilities at a temperature.

    After Hinton et al., "Distilling the knowledge in a neural network" (arXiv 1503.02531): both logits are
    divided by the temperature, which shows how a confident teacher rates the other classes, and the loss is
    multiplied by its square, so that its gradient does not shrink with it. The teacher's entropy, which no
    student can change, is subtracted: the result is the Kullback-Leibler divergence, 0 if both agree.
    """

    def __init__(self, temperature: float = 2.0) -> None:
        super().__init__()
        if temperature <= 0:
            raise ValueError(f"temperature is {temperature}; it must be above 0")
        self.temperature = temperature

    def forward(self, logits: Tensor, teacher: Tensor) -> Tensor:
        """(batch, classes) each, the teacher's up to a constant per row -> scalar, the mean over rows."""
        target = (teacher / self.temperature).log_softmax(1)
        student = (logits / self.temperature).log_softmax(1)
        divergence = nn.functional.kl_div(student, target, reduction="batchmean", log_target=True)
        return self.temperature**2 * divergence
