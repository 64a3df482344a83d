"""The base class of heads, as training, calibration and prediction use it, and its outputs for a batch."""

from collections.abc import Callable
from typing import Any, NamedTuple

from torch import Tensor, nn

from stillwave.heads.layers import Standardise


class Outputs(NamedTuple):
    """logits: (batch, classes), unnormalised. features: (batch, dim), the input of the last linear layer.

    learned_uncertainty: (batch,), 0 to 1, for heads that estimate it.
    """

    logits: Tensor
    features: Tensor
    learned_uncertainty: Tensor | None = None

    def each(self, function: Callable[[Tensor], Tensor]) -> "Outputs":
        """Apply the function to every tensor that is not None."""
        learned = None if self.learned_uncertainty is None else function(self.learned_uncertainty)
        return Outputs(function(self.logits), function(self.features), learned)


class Head(nn.Module):
    """Frames to logits. A subclass defines `outputs` and `output`, and overrides what else it needs.

    Inputs are, for each modality, frames (batch, frames, [layers,] dim) and lengths (batch,); then, for heads
    that know speakers, their numbers, (batch,) int64.
    """

    @staticmethod
    def check(*args: Any, **options: Any) -> None:
        """ValueError if the constructor's arguments do not fit together; called before the head is built."""

    def summarise(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """The inputs, reduced as far as no learned or fitted number is needed; `outputs` takes these, too.

        Training on stored frames does this once per row, so all rows must get one shape. By default the
        inputs themselves.
        """
        return inputs

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
        """The standardisers to fit on the training rows' frames, one per modality; by default none."""
        return ()

    def losses(self, outputs: Outputs, labels: Tensor) -> dict[str, Tensor]:
        """The head's own scalar losses by name, unweighted; by default none."""
        return {}

    def keep_openmax(self, fitted: nn.Module) -> None:
        """Store an OpenMax layer that was fitted after training, if the head has a place for one."""

    @property
    def innermost(self) -> "Head":
        """The head itself, without wrappers."""
        return self


class WrappedHead(Head):
    """A module around a `head`, to which it delegates everything else. A subclass defines `outputs`."""

    head: Head

    def summarise(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        return self.head.summarise(*inputs)

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
