"""Shared parts of backbones on transformers' models: loading the model, and choosing hidden states."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from stillwave.heads.devices import send
from stillwave.pipeline.backbones.base import Backbone, Frames
from stillwave.pipeline.backbones.config import Layers, PretrainedConfig
from stillwave.pipeline.backbones.weights import load_pretrained, random_weights


class TransformerBackbone(Backbone):
    """Hidden states of a `transformers` model, those in `layers` of its config."""

    config: Any
    libraries = ("torch", "transformers")
    # The fields of the model's own config that change numbers but not the weights' shapes.
    architecture_fields: ClassVar[Sequence[str]]

    def __init__(self, config: PretrainedConfig, architecture: Any) -> None:
        """architecture: the model's own config."""
        super().__init__()
        self.config, self.architecture = config, architecture
        self.layers = resolve_layers(config.layers, architecture.num_hidden_layers)
        self.num_layers = len(self.layers)
        self.dim = architecture.hidden_size

    def preprocessing(self) -> dict[str, Any]:
        """The preprocessing before the model, for the fingerprint."""
        raise NotImplementedError

    def fingerprint(self) -> dict[str, Any]:
        fields, described = super().fingerprint(), self.architecture.to_dict()
        fields["config"] |= {"layers": self.layers}
        architecture = {name: described[name] for name in self.architecture_fields}
        return fields | {"architecture": architecture, "preprocessing": self.preprocessing()}


def load_transformer(
    config: Any,
    model_class: Any,
    sizes: Mapping[str, dict[str, Any]],
    unused: tuple[str, ...] = (),
    **options: Any,
) -> tuple[Any, Path | None]:
    """A `transformers` model and the folder it came from; or one with random weights, with the sizes of its
    `size`.

    unused: as for `load_pretrained`. options: for `model_class`, if the weights are random.
    """
    if config.weights != "random":
        return load_pretrained(config, model_class, unused)
    # sdpa takes a boolean mask.
    architecture = model_class.config_class(**sizes[config.size], attn_implementation="sdpa")
    return random_weights(config.seed, lambda: model_class(architecture, **options)), None


def resolve_layers(layers: Layers, num_layers: int) -> list[int]:
    """Indexes in 0..num_layers of the states to keep, where 0 is the input of the first transformer layer.

    Raises ValueError for an index out of range or named twice.
    """
    if layers == "last":
        return [num_layers]
    if layers == "all":
        return list(range(num_layers + 1))
    size = num_layers + 1
    for index in layers:
        if not -size <= index < size:
            raise ValueError(
                f"`layers` {index}: the model has states 0..{num_layers} (0 is the input of the first "
                f"layer), or {-size}..-1 counted from the end"
            )
    chosen = [index % size for index in layers]
    if len(set(chosen)) < len(chosen):
        raise ValueError(f"`layers` {list(layers)}: these name a state twice: {chosen}")
    return chosen


def select_layers(states: Sequence[Tensor], chosen: Sequence[int]) -> Tensor:
    """(batch, frames, dim) for one chosen state, or (batch, frames, layers, dim) for several; fp32."""
    if len(chosen) == 1:
        return states[chosen[0]].float()
    return torch.stack([states[index].float() for index in chosen], dim=2)


def stitched(windows: Tensor, places: Tensor, counts: Sequence[int]) -> Frames:
    """The frames of items from those of their windows, (windows, frames, [layers,] dim), one after another.

    Every item has room for as many windows as the longest needs. places: of each window, counted over the
    room of all items. counts: frames of each item, which end in its last window.
    """
    room = -(-max(counts) // windows.shape[1])
    frames = windows.new_zeros(len(counts) * room, *windows.shape[1:]).index_copy(0, places, windows)
    frames = frames.unflatten(0, (len(counts), room)).flatten(1, 2)[:, : max(counts)]
    return Frames(frames, send(torch.tensor(counts), windows.device))
