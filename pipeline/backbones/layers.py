"""Which hidden states a backbone keeps: the `layers` field of its config."""

from collections.abc import Sequence

import torch
from torch import Tensor

from stillwave.pipeline.backbones.config import Layers


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
    """(batch, frames, dim) of the one chosen state, or (batch, frames, layers, dim) of several; fp32."""
    if len(chosen) == 1:
        return states[chosen[0]].float()
    return torch.stack([states[index].float() for index in chosen], dim=2)
