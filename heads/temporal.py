"""A small convolutional encoder over time whose output does not depend on padding."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from stillwave.heads.masks import zero_padding


class TemporalConv(nn.Module):
    """Convolution -> LayerNorm -> GELU -> channel dropout, once per stride; residual where shapes allow.

    Normalisation is per frame: statistics over time would see the padding, or the rest of the batch.
    Padding is set to zero before every convolution, as if each item were alone.

    dim -> channels in the first convolution; a stride of n turns every n frames into one.
    dropout drops whole channels of an item: single values are easily guessed from their neighbours.
    """

    def __init__(
        self,
        dim: int,
        channels: int,
        strides: Sequence[int] = (1,),
        kernel_size: int = 5,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        check_convolutions(strides=strides, kernel_size=kernel_size)
        self.strides = tuple(strides)
        self.convs = nn.ModuleList(
            nn.Conv1d(channels if i else dim, channels, kernel_size, stride, kernel_size // 2)
            for i, stride in enumerate(strides)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(channels) for _ in strides)
        self.dropout = nn.Dropout1d(dropout)

    def forward(self, frames: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """(batch, frames, dim), lengths (batch,) -> (batch, fewer frames, channels), their lengths.

        A stride s turns n frames into ceil(n / s).
        """
        x = frames
        for stride, conv, norm in zip(self.strides, self.convs, self.norms, strict=True):
            y = conv(zero_padding(x, lengths).transpose(1, 2)).transpose(1, 2)
            y = nn.functional.gelu(norm(y)).transpose(1, 2)
            y = self.dropout(y).transpose(1, 2)
            x = x + y if y.shape == x.shape and stride == 1 else y
            lengths = torch.div(lengths + stride - 1, stride, rounding_mode="floor")
        return x, lengths


def check_convolutions(*, strides: Sequence[int], kernel_size: int, **others: Any) -> None:
    """ValueError if these do not make a `TemporalConv`; others: arguments that are ignored."""
    if kernel_size % 2 == 0:
        raise ValueError(f"kernel_size is {kernel_size}; it must be odd, so that frames keep their place")
    if not all(1 <= stride <= kernel_size for stride in strides):
        raise ValueError(f"strides are {tuple(strides)}; each must be in 1..{kernel_size} (kernel_size)")
