"""What every head is to those who train, calibrate and ask it."""

from torch import Tensor, nn

from stillwave.heads.layers import Standardise
from stillwave.heads.outputs import Outputs


class Head(nn.Module):
    """Frames to logits. A subclass has `outputs` and `output`, and whatever else it needs.

    Inputs are, of each modality in turn, frames (batch, frames, [layers,] dim) and lengths (batch,); then the
    numbers of the speakers, (batch,) int64, of a head that knows them.
    """

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
