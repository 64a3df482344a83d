"""Learnable vectors per class: anchors on the unit sphere, and prototypes in feature space."""

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

from stillwave.heads.layers import xavier_uniform

TEMPERATURE = 0.1  # at the start: cosines of -1..1 become -10..10
TEMPERATURE_BOUNDS = (0.01, 1.0)  # colder, fp16 gradients overflow; warmer, no class can be told apart


class ClassAnchorClustering(nn.Module):
    """Cosine similarity of projected features to one learnable anchor per class, over a learned temperature.

    Not the class anchor clustering of Miller et al. (WACV 2021), whose anchors are fixed in logit
    space and whose distances are Euclidean: that is `stillwave.heads.cac`.
    The temperature is learned as its logarithm and held within TEMPERATURE_BOUNDS.
    """

    def __init__(self, feature_dim: int = 256, num_classes: int = 4, anchor_dim: int = 128) -> None:
        super().__init__()
        self.projection = nn.Linear(feature_dim, anchor_dim)
        self.anchors = nn.Parameter(torch.empty(num_classes, anchor_dim))
        self.log_temperature = nn.Parameter(torch.tensor(math.log(TEMPERATURE)))
        self.apply(xavier_uniform)
        nn.init.orthogonal_(self.anchors)  # no two classes start close to each other

    @property
    def temperature(self) -> Tensor:
        """The divisor of the cosines, a scalar."""
        low, high = (math.log(bound) for bound in TEMPERATURE_BOUNDS)
        held = self.log_temperature.clamp(low, high)
        # The gradient passes the clamp: otherwise a value beyond a bound would never return.
        return (self.log_temperature + (held - self.log_temperature).detach()).exp()

    def forward(self, features: Tensor) -> Tensor:
        """(batch, feature_dim) -> similarities (batch, classes), at most 1 / temperature in size."""
        projected = normalize(self.projection(features), dim=-1)
        return projected @ normalize(self.anchors, dim=-1).T / self.temperature

    def loss(self, features: Tensor, labels: Tensor) -> Tensor:
        """Cross-entropy of the similarities, a scalar: pulls features to their class's anchor."""
        return cross_entropy(self(features), labels)


class PrototypeMemory(nn.Module):
    """Squared Euclidean distances to one prototype per class.

    As in prototypical networks (Snell et al., NeurIPS 2017), but the prototypes are learned, not means of a
    support set, and distances are divided by sqrt(feature_dim). A softmax depends only on differences of
    distances, and between unrelated features and prototypes these grow with sqrt(feature_dim), as in
    attention: undivided they saturate it at 256 dimensions, divided by feature_dim they hardly move it.
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
        """Cross-entropy of the distances, a scalar: pulls features and their class's prototype together."""
        return cross_entropy(self(features), labels)
