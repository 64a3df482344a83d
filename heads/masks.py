"""Length masks, shared by every head module."""

import torch
from torch import Tensor


def valid_mask(lengths: Tensor, num_frames: int) -> Tensor:
    """(batch,) lengths -> (batch, num_frames) bool, True where a frame is valid."""
    return torch.arange(num_frames, device=lengths.device) < lengths[:, None]


def on_host(tensor: Tensor) -> bool:
    """Whether the host can read the tensor's numbers at no cost.

    Not in an exported graph, which has none yet, and not on a GPU, where it would wait for everything queued
    so far. There, code asks nothing: it computes with masks, without loops over items.
    """
    return tensor.device.type == "cpu" and not torch.compiler.is_exporting()


def zero_padding(frames: Tensor, lengths: Tensor) -> Tensor:
    """Set the frames of (batch, frames, ...) beyond each item's length to zero.

    By selection, not by multiplication: padding is unspecified and may hold NaN.
    """
    mask = valid_mask(lengths, frames.shape[1])
    return torch.where(mask.view(*mask.shape, *[1] * (frames.ndim - 2)), frames, 0)
