"""One learnable prototype per class in the space of the features."""

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy


class PrototypeMemory(nn.Module):
    """Squared euclidean distances to one prototype per class.

    As in prototypical networks (Snell et al., NeurIPS 2017), but the prototypes are learned, not means of a
    support set, and distances are divided by sqrt(feature_dim). A softmax sees only differences of distances,
    and between features and prototypes that know nothing of each other these grow with sqrt(feature_dim), as
    in attention: undivided they saturate it at 256 dimensions, divided by feature_dim they hardly move it.
    """

    def __init__(self, feature_dim: int = 256, num_classes: int = 4) -> None:
        super().__init__()
        self.prototypes = nn.Parameter(torch.empty(num_classes, feature_dim))
        nn.init.xavier_uniform_(self.prototypes)

    def forward(self, features: Tensor) -> Tensor:
        """(batch, feature_dim) -> negative scaled squared distances (batch, classes), at most 0."""
        squares = (features[:, None] - self.prototypes).square().sum(-1)
        return -squares / math.sqrt(features.shape[-1])

    def prototype_loss(self, features: Tensor, labels: Tensor) -> Tensor:
        """Cross-entropy of the distances, a scalar: features and their class's prototype come closer."""
        return cross_entropy(self(features), labels)
