"""What a head says of a batch, for losses and open-set scores."""

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor


class Outputs(NamedTuple):
    """logits: (batch, classes), unnormalised. features: (batch, dim), what the last linear layer reads.

    learned_uncertainty: (batch,), 0 to 1, of heads that estimate it.
    """

    logits: Tensor
    features: Tensor
    learned_uncertainty: Tensor | None = None

    def each(self, function: Callable[[Tensor], Tensor]) -> "Outputs":
        """The function of every tensor that is there."""
        learned = None if self.learned_uncertainty is None else function(self.learned_uncertainty)
        return Outputs(function(self.logits), function(self.features), learned)
