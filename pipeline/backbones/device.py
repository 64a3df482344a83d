"""Choosing a device, and moving tensors to it."""

from typing import TypeVar

import torch
from torch import Tensor, nn

from stillwave.heads.devices import send, widest

Module = TypeVar("Module", bound=nn.Module)


def pick_device(name: str) -> torch.device:
    """`auto` is the first CUDA GPU, else Apple's (mps), else the CPU. ValueError if the device is missing."""
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        if device.type == "mps" and not torch.backends.mps.is_available():
            raise RuntimeError("Apple's Metal is not available: it needs a Mac with its own chips, macOS 14")
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"device {name!r} cannot be used ({reason}); choose auto, cpu, mps or a CUDA device"
        ) from None
    return device


def place(module: Module, device: torch.device) -> Module:
    """`module.to(device)`; on a device without float64 (mps), buffers of that type become float32 first.

    These are OpenMax's statistics and the anchors of class anchor clustering.
    """
    if widest(device) != torch.float64:
        for part in module.modules():
            for name, buffer in part.named_buffers(recurse=False):
                if buffer.dtype == torch.float64:
                    setattr(part, name, buffer.float())
    return module.to(device)


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy a host tensor to `device`: to a CUDA GPU through pinned memory, without waiting for the copy.

    torch reuses pinned blocks that are no longer needed.
    """
    return send(tensor.pin_memory() if device.type == "cuda" else tensor, device)
