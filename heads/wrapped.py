"""What a module around a head passes on, so that it is a head to its users."""

from typing import Any

from torch import Tensor, nn

from stillwave.heads.layers import Standardise
from stillwave.heads.outputs import Outputs


class WrappedHead(nn.Module):
    """A module that has a `head`; a subclass says what `outputs` are."""

    head: Any

    @property
    def output(self) -> nn.Linear:
        """The head's last layer: logits = output(features)."""
        output: nn.Linear = self.head.output
        return output

    @property
    def standardisers(self) -> tuple[Standardise, ...]:
        """Those of the head."""
        found: tuple[Standardise, ...] = self.head.standardisers
        return found

    def losses(self, outputs: Outputs, labels: Tensor) -> dict[str, Tensor]:
        """The losses that the head owns."""
        found: dict[str, Tensor] = self.head.losses(outputs, labels)
        return found

    def forward(self, *inputs: Tensor) -> Tensor:
        """The inputs of `outputs` -> logits (batch, classes)."""
        return self.outputs(*inputs).logits

    def outputs(self, *inputs: Tensor) -> Outputs:
        """-> logits, features and uncertainty."""
        raise NotImplementedError
