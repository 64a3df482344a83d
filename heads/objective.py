"""What a head is trained for: several losses of one batch, each with its weight."""

from collections.abc import Mapping

from torch import Tensor, nn

from stillwave.heads.base import Head, Outputs
from stillwave.heads.cac import CACHead
from stillwave.heads.losses import (
    ClassBalancedFocalLoss,
    FocalKind,
    LabelSmoothingCrossEntropy,
    SoftTargetLoss,
)


class Objective(nn.Module):
    """The weighted sum of losses by name; those with weight 0 are not computed.

    counts: training rows per class, (classes,). class_weights: for the cross-entropy, (classes,).
    Names other than cross_entropy, focal, cac and distill are the head's own losses (`head.losses`).
    """

    def __init__(
        self,
        weights: Mapping[str, float],
        counts: Tensor,
        class_weights: Tensor,
        *,
        label_smoothing: float = 0.1,
        focal_kind: FocalKind = "softmax",
        focal_beta: float = 0.9999,
        focal_gamma: float = 2.0,
        cac_alpha: float = 10.0,
        cac_distance_weight: float = 0.1,
        distill_temperature: float = 2.0,
    ) -> None:
        super().__init__()
        self.weights = {name: weight for name, weight in weights.items() if weight}
        self.cross_entropy = LabelSmoothingCrossEntropy(label_smoothing, class_weights)
        self.focal = ClassBalancedFocalLoss(focal_beta, focal_gamma, counts, focal_kind)
        self.cac = CACHead(len(counts), cac_alpha, cac_distance_weight)
        self.distill = SoftTargetLoss(distill_temperature)

    def forward(
        self, head: Head, outputs: Outputs, labels: Tensor, teacher: Tensor | None = None
    ) -> dict[str, Tensor]:
        """labels (batch,), a teacher's logits (batch, classes) -> each loss by name, an unweighted scalar.

        Logits are taken in fp32.
        """
        exact = outputs.each(lambda value: value.float())
        found = head.losses(exact, labels) if self.weights.keys() - SHARED else {}
        if "cross_entropy" in self.weights:
            found["cross_entropy"] = self.cross_entropy(exact.logits, labels)
        if "focal" in self.weights:
            found["focal"] = self.focal(exact.logits, labels)
        if "cac" in self.weights:
            found["cac"] = self.cac.loss(exact.logits, labels)
        if "distill" in self.weights and teacher is not None:
            found["distill"] = self.distill(exact.logits, teacher)
        if lacking := sorted(self.weights.keys() - found.keys()):
            raise ValueError(
                f"{type(head.innermost).__name__} has no losses {lacking}; set their weights to 0"
            )
        return {name: found[name] for name in self.weights}

    def shares(self, piece: Tensor, batch: Tensor) -> dict[str, float | Tensor]:
        """The share of each loss of a piece in that of its batch, given the labels of both.

        Losses are means over rows; the cross-entropy is weighted by class. The
        losses of a batch's pieces, times their shares, add up to the loss of the batch.
        """
        shares: dict[str, float | Tensor] = dict.fromkeys(self.weights, len(piece) / len(batch))
        if len(piece) == len(batch):
            return shares
        weight = self.cross_entropy.weight
        if "cross_entropy" in shares and weight is not None:
            shares["cross_entropy"] = weight[piece].sum() / weight[batch].sum()
        return shares

    def total(self, losses: dict[str, Tensor]) -> Tensor:
        """The weighted sum."""
        terms = [self.weights[name] * value for name, value in losses.items()]
        return sum(terms[1:], terms[0])


SHARED = {"cross_entropy", "focal", "cac", "distill"}
