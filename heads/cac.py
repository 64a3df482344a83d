"""Class anchor clustering: training towards fixed anchors in logit space, and its score."""

from typing import Self

import torch
from torch import Tensor, nn

from stillwave.heads.base import Outputs
from stillwave.heads.devices import widened
from stillwave.heads.scores import Score


class CACHead(nn.Module):
    """Fixed anchors alpha * e_j, one per class, in logit space, and the loss that pulls logits towards them.

    After Miller et al., "Class anchor clustering" (WACV 2021). With d_j the Euclidean distance of the logits
    to anchor j, not squared, the loss of an item of class y is

        log(1 + sum over j != y of exp(d_y - d_j)) + weight * d_y .

    Distances are float64, on Apple's GPUs float32. The anchors are a buffer: nothing here is learned.
    """

    anchors: Tensor

    def __init__(self, num_classes: int, alpha: float = 10.0, weight: float = 0.1) -> None:
        super().__init__()
        if alpha <= 0:
            raise ValueError(f"alpha is {alpha}; it must be above 0, or all anchors coincide")
        self.weight = weight
        self.register_buffer("anchors", alpha * torch.eye(num_classes, dtype=torch.float64))

    def forward(self, logits: Tensor) -> Tensor:
        """Logits (batch, classes) -> distances to the anchors (batch, classes), float64."""
        return distances(logits, self.anchors)

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Logits (batch, classes), labels (batch,) -> scalar, the mean over the batch, float64."""
        d = distances(logits, self.anchors)
        # log(1 + sum exp(d_y - d_j)) is -log softmin(d)_y.
        tuplet = nn.functional.cross_entropy(-d, labels)
        return tuplet + self.weight * d.gather(1, labels[:, None]).mean()

    def predict(self, logits: Tensor) -> Tensor:
        """Logits (batch, classes) -> the class of the nearest anchor (batch,)."""
        return distances(logits, self.anchors).argmin(1)


class CACScore(Score):
    """The smallest of gamma = d * (1 - softmin(d)), d being the distances of the logits to the class means.

    As Miller et al. test: the means of the logits of the correctly classified training rows take the
    anchors' place. Correctly classified is argmax logits = label, which with anchors alpha * e_j is the
    nearest anchor. Made for heads trained with `CACHead`'s loss; defined for any.

    A class without such rows is in `missing`: it has no mean, so no item is near it. With one mean there is
    nothing to take a softmin over, and gamma is d.
    """

    means: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("means", torch.empty(0, 0, dtype=torch.float64))

    @property
    def missing(self) -> tuple[int, ...]:
        """Classes without a correctly classified training row."""
        return tuple(self.means.isinf().any(1).nonzero()[:, 0].tolist())

    @torch.no_grad()
    def fit(self, outputs: Outputs, labels: Tensor, output: nn.Linear) -> Self:
        """Needs a correctly classified row of at least one class."""
        logits = outputs.logits.double()
        labels = labels.to(logits.device)
        correct = logits.argmax(1) == labels
        if not correct.any():
            raise ValueError(f"the score 'cac' got {len(labels)} training rows, none classified correctly")
        means = logits.new_full((logits.shape[1], logits.shape[1]), torch.inf)
        for number in labels[correct].unique().tolist():
            means[number] = logits[correct & (labels == number)].mean(0)
        self.means = means
        return self

    def gamma(self, logits: Tensor) -> Tensor:
        """Logits (batch, classes) -> (batch, classes), smaller is nearer."""
        if not len(self.means):
            raise ValueError("the score 'cac' is not fitted; call fit with training rows")
        d = distances(logits, self.means)
        if len(self.means) - len(self.missing) == 1:
            return d
        # 1 - softmin as the sum of the others: the difference would be 0 near a mean.
        return d * ((-d).softmax(1) @ (1 - torch.eye(len(self.means)).to(d)))

    def predict(self, logits: Tensor) -> Tensor:
        """Logits (batch, classes) -> the class with the smallest gamma (batch,)."""
        return self.gamma(logits).argmin(1)

    def forward(self, outputs: Outputs) -> Tensor:
        """-> (batch,)."""
        return self.gamma(outputs.logits).amin(1)


def distances(logits: Tensor, points: Tensor) -> Tensor:
    """Euclidean distances, (batch, dim) to each of (classes, dim) -> (batch, classes), float64."""
    d: Tensor = torch.linalg.vector_norm(widened(logits)[:, None] - widened(points), dim=-1)
    return d
