"""Encoders and head as one model: a run trains it, and it turns new audio into predictions."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from stillwave.heads.base import Head, Outputs, WrappedHead
from stillwave.heads.devices import send
from stillwave.pipeline.backbones import Backbone, Frames
from stillwave.pipeline.config.train import Finetune
from stillwave.pipeline.runs.features import RowNumbers, in_place
from stillwave.pipeline.runs.unfreeze import unfreeze

FrameChange = Callable[[Tensor, Tensor, torch.Generator], tuple[Tensor, Tensor]]


class Model(WrappedHead):
    """Waveforms, token ids or stored frames to logits: `encoders`, by modality, and a `head` on their frames.

    encoders: none if frames are stored; then the inputs are those of the head. Otherwise they are, for each
    modality, (batch, samples) or (batch, tokens) and lengths on the host, 0 if an item lacks the modality;
    then the numbers of the speakers, if the head uses them. finetune: which parts of the encoders train; with
    None they are frozen.
    augment: for the first modality's frames, in training.
    """

    def __init__(
        self,
        encoders: Mapping[str, Backbone],
        head: Head,
        finetune: Finetune | None = None,
        augment: FrameChange | None = None,
    ) -> None:
        super().__init__()
        self.encoders = nn.ModuleDict(encoders)
        self.head = head
        self.augment = augment
        self.trained: list[nn.Module] = []
        self.factors: dict[str, float] = {}  # on the learning rate, by the names of trained parameters
        for name, encoder in encoders.items():
            encoder.eval().requires_grad_(False)
            if finetune is not None:
                modules, factors = unfreeze(encoder, finetune)
                self.trained += modules
                self.factors |= {f"encoders.{name}.{key}": factor for key, factor in factors.items()}
        self.train_whole = finetune is not None and finetune.unfreeze == "all"
        kept = {id(t) for m in self.trained for t in (*m.parameters(), *m.buffers())}
        state = self.state_dict(keep_vars=True)
        self.frozen_names = frozenset(
            name for name, tensor in state.items() if name.startswith("encoders.") and id(tensor) not in kept
        )

    def train(self, mode: bool = True) -> "Model":
        """As of any module, but what is frozen stays in eval mode."""
        super().train(mode)
        if not self.train_whole:
            self.encoders.eval()
            for module in self.trained:
                module.train(mode)
        return self

    def outputs(self, *inputs: Tensor) -> Outputs:
        values, lengths, *others = self.frames(*inputs)
        if self.augment is not None and self.training:
            seed = int(torch.randint(2**62, ()))  # from the stream that dropout uses
            values, lengths = self.augment(values, lengths, torch.Generator().manual_seed(seed))
        return self.head.outputs(values, lengths, *others)

    def summarise(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        return self.head.summarise(*self.frames(*inputs))

    def frames(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """The inputs of the head: frames and lengths for each modality, then any others."""
        encoders = [encoder for encoder in self.encoders.values() if isinstance(encoder, Backbone)]
        pairs = zip(encoders, inputs[::2], inputs[1::2], strict=False)
        encoded = [tensor for pair in pairs for tensor in encode(*pair)]
        return (*encoded, *inputs[len(encoded) :])


def encode(encoder: Backbone, values: Tensor, lengths: Tensor) -> Frames:
    """The frames of a batch in which some items, with length 0, may have none. lengths: on the host."""
    if (lengths > 0).all():
        return encoder(values, lengths)  # type: ignore[no-any-return]

    def read(chosen: RowNumbers) -> Frames:
        index = torch.from_numpy(chosen)
        return encoder(values[send(index, values.device)], lengths[index])  # type: ignore[no-any-return]

    none = torch.empty(0, *encoder.frame_shape, device=values.device)
    return in_place((lengths > 0).numpy(), read, none)


def at_precision(encoder: Backbone, precision: str) -> Backbone:
    """The backbone, computing in `precision` from now on, if it has a choice."""
    config: Any = encoder.config
    if hasattr(config, "precision"):
        encoder.config = config.model_copy(update={"precision": precision})
    return encoder
