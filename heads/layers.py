"""Layers between stored frames and a head, and the initial weights of linear layers."""

from collections.abc import Iterable
from typing import Self

import torch
from torch import Tensor, nn

from stillwave.heads.devices import widest


def xavier_uniform(module: nn.Module) -> None:
    """Xavier uniform weights (Glorot & Bengio, AISTATS 2010), zero biases; for `nn.Module.apply`.

    Weights of nn.Linear are uniform within sqrt(6 / (inputs + outputs)). Other modules are left alone.
    """
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


class Standardise(nn.Module):
    """Subtract a fixed mean and divide by a fixed standard deviation, per dimension.

    shape: the shape of one frame, (dim,) or (layers, dim). The identity until fitted.
    The statistics are buffers: they travel with the state_dict and no optimizer moves them.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(shape))
        self.register_buffer("std", torch.ones(shape))

    @torch.no_grad()
    def fit(self, chunks: Iterable[Tensor]) -> Self:
        """Take mean and deviation over `chunks` of (frames, *shape). Give it training rows only.

        Sums run in float64 and relative to the first frame, so a large mean costs no precision. For frames on
        an Apple GPU they run on the CPU, since the GPU has no float64.
        A dimension that never varies keeps a deviation of 1.
        """
        device = self.mean.device if widest(self.mean.device) == torch.float64 else torch.device("cpu")
        count, origin = 0, self.mean.to(device).double()
        total = torch.zeros_like(origin)
        squares = torch.zeros_like(origin)
        for chunk in chunks:
            values = chunk.to(device, torch.float64, copy=True)  # changed in place: it is the largest tensor
            if count == 0 and len(values):
                origin = values[0].clone()
            count += len(values)
            values -= origin
            total += values.sum(0)
            squares += values.square_().sum(0)
        if count == 0:
            raise ValueError("Standardise.fit got no frames; it needs at least one training row")
        shift = total / count
        std = (squares / count - shift.square()).clamp(min=0).sqrt()
        self.mean.copy_((origin + shift).to(self.mean.dtype))
        self.std.copy_(torch.where(std > 1e-8, std, 1.0).to(self.std.dtype))
        return self

    def forward(self, frames: Tensor) -> Tensor:
        """(..., *shape) of any float type -> the same shape, in the type of the statistics."""
        # One large tensor, not three: the difference converts half precision, the division is in place.
        return (frames - self.mean).to(self.mean.dtype).div_(self.std)


class LayerMix(nn.Module):
    """Weighted sum over a backbone's stored layers, weights = softmax of one learned scalar per layer.

    As in SUPERB (Yang et al., Interspeech 2021). The identity if there is a single layer.
    """

    def __init__(self, num_layers: int) -> None:
        super().__init__()
        self.num_layers = num_layers
        self.weights = nn.Parameter(torch.zeros(num_layers)) if num_layers > 1 else None

    def forward(self, frames: Tensor) -> Tensor:
        """(batch, frames, layers, dim) -> (batch, frames, dim). A single layer needs no axis."""
        if self.weights is None:
            return frames.squeeze(2) if frames.ndim == 4 else frames
        if frames.ndim != 4 or frames.shape[2] != self.num_layers:
            raise ValueError(
                f"expected (batch, frames, {self.num_layers} layers, dim), got {tuple(frames.shape)}"
            )
        return torch.einsum("btld,l->btd", frames, self.weights.softmax(0).to(frames.dtype))


def layer_weights(head: nn.Module) -> dict[str, Tensor]:
    """The weights of every LayerMix in `head`, (layers,) with sum 1, by its name; none of a single layer."""
    return {
        name: module.weights.detach().softmax(0)
        for name, module in head.named_modules()
        if isinstance(module, LayerMix) and module.weights is not None
    }
