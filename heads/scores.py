"""Open-set scores that need only a head's outputs, and the base class of all scores."""

from typing import Self

import torch
from torch import Tensor, nn

from stillwave.heads.base import Outputs


class Score(nn.Module):
    """How little an item looks like the known classes: higher is more outlying.

    A score has no parameters; `fit` stores what it needs of the training rows in buffers. A score does
    not depend on the batch, and is float64, so that rounding causes no ties.
    """

    def fit(self, outputs: Outputs, labels: Tensor, output: nn.Linear) -> Self:
        """outputs, labels (rows,): training rows of known classes; output: the head's last layer.

        Scores that need no training rows ignore them.
        """
        return self

    def forward(self, outputs: Outputs) -> Tensor:
        """-> (batch,), float64."""
        raise NotImplementedError


class MaximumProbability(Score):
    """1 - the largest softmax probability (Hendrycks & Gimpel, ICLR 2017), 0 to 1."""

    def forward(self, outputs: Outputs) -> Tensor:
        """-> (batch,)."""
        probabilities = outputs.logits.double().softmax(1)
        return one_minus(probabilities, probabilities.argmax(1))


class MaximumLogit(Score):
    """The largest logit, negated (Hendrycks et al., ICML 2022; Vaze et al., ICLR 2022)."""

    def forward(self, outputs: Outputs) -> Tensor:
        """-> (batch,)."""
        return -outputs.logits.double().amax(1)


class Energy(Score):
    """-log sum exp of the logits (Liu et al., NeurIPS 2020), at temperature 1."""

    def forward(self, outputs: Outputs) -> Tensor:
        """-> (batch,)."""
        return -torch.logsumexp(outputs.logits.double(), 1)


class LearnedUncertainty(Score):
    """The head's own estimate, 0 to 1."""

    def forward(self, outputs: Outputs) -> Tensor:
        """-> (batch,)."""
        if outputs.learned_uncertainty is None:
            raise ValueError(
                "the score 'learned_uncertainty' needs a head that estimates one, and this head does not; "
                "train the fusion head, or choose another score"
            )
        return outputs.learned_uncertainty.double()


def one_minus(probabilities: Tensor, chosen: Tensor) -> Tensor:
    """1 - the chosen column of (batch, classes); chosen (batch,) -> (batch,).

    Computed as the sum of the others: the difference would be 0 for every item that a head is sure of.
    """
    return probabilities.scatter(1, chosen[:, None], 0).sum(1)
