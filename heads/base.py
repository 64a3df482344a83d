"""What every head is to those who train, calibrate and ask it, and what it says of a batch."""

from collections.abc import Callable
from typing import Any, NamedTuple

from torch import Tensor, nn

from stillwave.heads.layers import Standardise


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


class Head(nn.Module):
    """Frames to logits. A subclass has `outputs` and `output`, and whatever else it needs.

    Inputs are, of each modality in turn, frames (batch, frames, [layers,] dim) and lengths (batch,); then the
    numbers of the speakers, (batch,) int64, of a head that knows them.
    """

    @staticmethod
    def check(*args: Any, **options: Any) -> None:
        """ValueError where arguments of the constructor do not go together; asked before it is built."""

    def outputs(self, *inputs: Tensor) -> Outputs:
        """-> logits (batch, classes), features (batch, width), learned_uncertainty (batch,) or None."""
        raise NotImplementedError

    def forward(self, *inputs: Tensor) -> Tensor:
        """The inputs of `outputs` -> logits (batch, classes)."""
        return self.outputs(*inputs).logits

    @property
    def output(self) -> nn.Linear:
        """The last layer: logits = output(features)."""
        raise NotImplementedError

    @property
    def standardisers(self) -> tuple[Standardise, ...]:
        """What is fitted on the training rows' frames, one per modality: none, unless a subclass has some."""
        return ()

    def losses(self, outputs: Outputs, labels: Tensor) -> dict[str, Tensor]:
        """Scalar losses of the head's own by name, not weighted: none, unless a subclass has some."""
        return {}

    def keep_openmax(self, fitted: nn.Module) -> None:
        """Take over an OpenMax layer that was fitted after training, if the head has one of its own."""

    @property
    def innermost(self) -> "Head":
        """The head itself, without what is wrapped around it."""
        return self


class WrappedHead(Head):
    """A module around a `head`, which passes on what it does not change. A subclass has `outputs`."""

    head: Head

    @property
    def output(self) -> nn.Linear:
        return self.head.output

    @property
    def standardisers(self) -> tuple[Standardise, ...]:
        return self.head.standardisers

    def losses(self, outputs: Outputs, labels: Tensor) -> dict[str, Tensor]:
        return self.head.losses(outputs, labels)

    def keep_openmax(self, fitted: nn.Module) -> None:
        self.head.keep_openmax(fitted)

    @property
    def innermost(self) -> Head:
        return self.head.innermost
