"""The hidden states of a third-party encoder."""

from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

from torch import Tensor, nn

# Where this thread's forward pass records its states; other threads may run the same modules.
_noted: ContextVar[list[Tensor] | None] = ContextVar("_noted", default=None)


class RecordedEncoder(nn.Module):
    """An encoder whose states are recorded as it runs.

    model: has `layers`, a ModuleList, each of which takes and returns (batch, frames, dim).
    run: calls it on (batch, mel frames, num_mels) and valid mel frames.
    """

    def __init__(self, model: Any, run: Callable[[Any, Tensor, Tensor], object]) -> None:
        super().__init__()
        self.model, self.run = model, run
        self.layers[0].register_forward_pre_hook(_note_input, with_kwargs=True)
        for layer in self.layers:
            layer.register_forward_hook(_note_output)

    @property
    def layers(self) -> Any:
        return self.model.layers

    def forward(self, mels: Tensor, lengths: Tensor) -> list[Tensor]:
        """As `Conformer.forward`: the input of the first layer and the output of each."""
        states: list[Tensor] = []
        token = _noted.set(states)
        try:
            self.run(self.model, mels, lengths)
        finally:
            _noted.reset(token)
        return states


def _note_input(layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    if (states := _noted.get()) is not None:
        states.append(args[0] if args else kwargs["x"])


def _note_output(layer: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
    if (states := _noted.get()) is not None:
        states.append(output)
