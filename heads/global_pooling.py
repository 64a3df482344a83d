"""Global pooling: any number of frames to one vector per item."""

from typing import Literal, get_args

import torch
from torch import Tensor, nn

from stillwave.heads.masks import valid_mask, zero_padding
from stillwave.heads.pooling import segment_bounds
from stillwave.heads.statistics import AttentiveStatsPooling

GlobalPoolingType = Literal["mean", "max", "attention", "multi_scale", "attentive", "adaptive"]

MIN_VARIANCE = 1e-12  # smaller values are rounding errors; the square root's gradient is finite here


class GlobalPooling(nn.Module):
    """Pool each item's own valid frames, (frames, dim), to one vector of `self.dim`.

    pooling:
        mean, max: over time.
        attention: weighted mean without parameters; a frame's weight is the softmax over time of the mean of
            its dimensions.
        multi_scale: mean, maximum and standard deviation (over n - 1; 0 for a single frame), concatenated.
        attentive: weighted mean and deviation with learned weights, see heads/statistics.py.
        adaptive: the means of `bins` equal parts, concatenated in order. As in
            torch's adaptive average pooling, parts may share a frame and none is empty.
    """

    def __init__(self, dim: int, pooling: GlobalPoolingType = "mean", bins: int = 8) -> None:
        super().__init__()
        if pooling not in get_args(GlobalPoolingType):
            choices = ", ".join(get_args(GlobalPoolingType))
            raise ValueError(f"pooling is {pooling!r}; choose one of {choices}")
        if bins < 1:
            raise ValueError(f"bins is {bins}; it must be at least 1")
        self.pooling = pooling
        self.bins = bins
        self.dim = dim * {"multi_scale": 3, "attentive": 2, "adaptive": bins}.get(pooling, 1)
        self.statistics = AttentiveStatsPooling(dim) if pooling == "attentive" else None

    def forward(self, frames: Tensor, lengths: Tensor) -> Tensor:
        """(batch, frames, dim), lengths (batch,) >= 1 -> (batch, self.dim)."""
        frames = zero_padding(frames, lengths)
        if self.statistics is not None:
            pooled: Tensor = self.statistics.statistics(frames, lengths)
            return pooled
        match self.pooling:
            case "mean":
                return mean(frames, lengths)
            case "max":
                return maximum(frames, lengths)
            case "attention":
                return attention(frames, lengths)
            case "adaptive":
                return adaptive_mean(frames, lengths, self.bins).flatten(1)
            case _:
                parts = mean(frames, lengths), maximum(frames, lengths), deviation(frames, lengths)
                return torch.cat(parts, 1)


# Frames (batch, frames, dim) with zeros behind the lengths (batch,) >= 1, to (batch, dim):


def mean(frames: Tensor, lengths: Tensor) -> Tensor:
    """The mean over each item's frames."""
    return frames.sum(1) / lengths[:, None]


def maximum(frames: Tensor, lengths: Tensor) -> Tensor:
    """The largest value of each dimension."""
    valid = valid_mask(lengths, frames.shape[1])
    return torch.where(valid[..., None], frames, -torch.inf).amax(1)


def deviation(frames: Tensor, lengths: Tensor) -> Tensor:
    """The standard deviation with n - 1, as torch.std; 0 for a single frame."""
    # Around the mean, not as a difference of squares, which cancels when frames hardly vary.
    centred = zero_padding(frames - mean(frames, lengths)[:, None], lengths)
    variance = centred.square().sum(1) / (lengths[:, None] - 1).clamp(min=1)
    # Selected before the root, so that its argument is never exactly 0.
    varies = variance > MIN_VARIANCE
    return torch.where(varies, torch.where(varies, variance, 1).sqrt(), 0)


def attention(frames: Tensor, lengths: Tensor) -> Tensor:
    """The mean weighted by the softmax over time of each frame's own mean."""
    valid = valid_mask(lengths, frames.shape[1])
    weights = torch.where(valid, frames.mean(-1), -torch.inf).softmax(-1)
    return (weights[:, None].to(frames.dtype) @ frames).squeeze(1)


def adaptive_mean(frames: Tensor, lengths: Tensor, bins: int) -> Tensor:
    """The means of `bins` equal parts of each item, (batch, bins, dim)."""
    starts, ends = segment_bounds(lengths, bins)
    time = torch.arange(frames.shape[1], device=frames.device)
    inside = (time >= starts[..., None]) & (time < ends[..., None])  # (batch, bins, frames)
    return (inside.to(frames.dtype) @ frames) / (ends - starts)[..., None]
