"""What differs between devices: copies that nobody waits for, and float64, which Apple's GPUs (mps) lack."""

import torch
from torch import Tensor


def send(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor of the host on `device`; where that is a CUDA GPU, without waiting for what is queued there.

    Elsewhere the copy is waited for: on mps, torch 2.13 may read the host's memory after it was given back,
    and the numbers are wrong without an error (pytorch/pytorch issues 139550 and 189690).
    """
    return tensor.to(device, non_blocking=device.type == "cuda")


def widest(device: torch.device) -> torch.dtype:
    """The widest float type there is on `device`: float64, or float32 on mps."""
    return torch.float32 if device.type == "mps" else torch.float64


def widened(tensor: Tensor) -> Tensor:
    """The numbers in the widest float type of the device that they are on."""
    return tensor.to(widest(tensor.device))
