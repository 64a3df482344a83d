"""Length masks, shared by every head module."""

import torch
from torch import Tensor


def valid_mask(lengths: Tensor, num_frames: int) -> Tensor:
    """(batch,) lengths -> (batch, num_frames) bool, True where a frame is valid."""
    return torch.arange(num_frames, device=lengths.device) < lengths[:, None]


def on_host(tensor: Tensor) -> bool:
    """Whether the host can read the tensor's numbers at no cost.

    False in an exported graph, which has no numbers yet, and on a GPU, where reading would wait for all work
    queued so far. There, code reads no numbers: it computes with masks, without loops over items.
    """
    return tensor.device.type == "cpu" and not torch.compiler.is_exporting()


def zero_padding(frames: Tensor, lengths: Tensor) -> Tensor:
    """Set the frames of (batch, frames, ...) beyond each item's length to zero.

    By selection, not by multiplication: padding is unspecified and may hold NaN.
    """
    mask = valid_mask(lengths, frames.shape[1])
    return torch.where(mask.view(*mask.shape, *[1] * (frames.ndim - 2)), frames, 0)
