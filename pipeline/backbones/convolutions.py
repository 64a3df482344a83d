"""Shared parts of the convolutional encoders of raw waveforms: lengths, clips, and norms over a batch."""

from typing import Any

import torch
from torch import Tensor, nn

from stillwave.heads.masks import valid_mask
from stillwave.pipeline.backbones.base import Backbone, Frames
from stillwave.pipeline.backbones.numerics import compute_in


class WaveformBackbone(Backbone):
    """An encoder of waveforms of any length or, with `clip_s`, of clips of that length.

    With `clip_s`, every item that is not empty becomes a clip, even silence, and gives the same number of
    frames.
    Without, items keep their lengths: batch norm's statistics, averages and attention use valid frames only.
    """

    config: Any
    modality = "audio"
    version = 1
    sample_rate: int

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config = config
        self.sample_rate = config.sample_rate
        self.clip_length = None if config.clip_s is None else round(config.clip_s * config.sample_rate)

    def encode(self, x: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """(batch, 1, samples), lengths (batch,) or None for all of it -> (batch, dim, frames), theirs."""
        raise NotImplementedError

    def frames_of(self, length: int) -> int:
        """Frames for so many samples."""
        raise NotImplementedError

    def num_frames(self, length: int) -> int:
        if length < 1:
            return 0
        return self.frames_of(length if self.clip_length is None else self.clip_length)

    def forward(self, batch: Tensor, lengths: Tensor) -> Frames:
        lengths = self.checked(lengths, batch.device)
        valid: Tensor | None = lengths
        if self.clip_length is not None:
            batch, valid = fit_clip(batch, self.clip_length), None
        with compute_in(self.config.precision, batch.device):
            x, valid = self.encode(batch[:, None], valid)
        counts = torch.full_like(lengths, x.shape[2]) if valid is None else valid
        return Frames(x.transpose(1, 2).float(), counts)


def convolved(length: int, kernel_size: int, stride: int, padding: int) -> int:
    """Output frames of a convolution, or a pooling, for `length`; 0 if its kernel does not fit in."""
    return max(0, (length + 2 * padding - kernel_size) // stride + 1)


def fit_clip(batch: Tensor, size: int) -> Tensor:
    """Cut a zero-padded (batch, samples) to `size` samples, or pad it to them."""
    if torch.compiler.is_exporting():  # otherwise a graph would only pad or only cut, as the example did
        return nn.functional.pad(batch, (0, size))[:, :size]
    return nn.functional.pad(batch, (0, size - batch.shape[1]))


def zero_time(x: Tensor, lengths: Tensor | None) -> Tensor:
    """Zero (batch, channels, time) beyond the lengths (batch,); None means that all of it is valid."""
    return x if lengths is None else torch.where(valid_mask(lengths, x.shape[2])[:, None], x, 0)


class MaskedBatchNorm(nn.BatchNorm1d):
    """Batch normalisation whose statistics, in training, use only valid frames.

    If padding counted, a clip would be normalised by how much longer its neighbours are. Otherwise as in
    torch: population variance for the batch, n - 1 for the running one.
    """

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:  # type: ignore[override]
        """(batch, channels, time), lengths (batch,) -> the same shape; None means that all of it is valid.

        Values beyond a length stay finite if they were, but are meaningless.
        """
        if lengths is None or not self.training:
            normed: Tensor = super().forward(x)
            return normed
        momentum = self.momentum
        assert momentum is not None
        assert self.running_mean is not None
        assert self.running_var is not None
        valid = valid_mask(lengths, x.shape[2])[:, None]
        count = lengths.sum()
        frames = torch.where(valid, x, 0).float()
        mean = frames.sum((0, 2)) / count
        centred = torch.where(valid, frames - mean[:, None], 0)
        variance = centred.square().sum((0, 2)) / count
        with torch.no_grad():
            self.running_mean.lerp_(mean, momentum)
            self.running_var.lerp_(variance * (count / (count - 1).clamp(min=1)), momentum)
            if self.num_batches_tracked is not None:
                self.num_batches_tracked.add_(1)
        scale = self.weight * (variance + self.eps).rsqrt()
        return (centred * scale[:, None] + self.bias[:, None]).to(x.dtype)
