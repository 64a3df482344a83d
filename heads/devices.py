"""What differs between devices: non-blocking copies, and float64, which Apple's GPUs (mps) lack."""

import torch
from torch import Tensor


def send(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy a host tensor to `device`; on a CUDA GPU without waiting for the work queued there.

    Elsewhere the copy blocks: on mps, torch 2.13 may read the host's memory after it was freed, and the
    numbers are wrong without an error (pytorch/pytorch issues 139550 and 189690).
    """
    return tensor.to(device, non_blocking=device.type == "cuda")


def widest(device: torch.device) -> torch.dtype:
    """The widest float type there is on `device`: float64, or float32 on mps."""
    return torch.float32 if device.type == "mps" else torch.float64


def widened(tensor: Tensor) -> Tensor:
    """The numbers in the widest float type of their device."""
    return tensor.to(widest(tensor.device))
