"""Which device the tensors live on, and how they get there."""

import torch
from torch import Tensor


def pick_device(name: str) -> torch.device:
    """`auto` is the first GPU, or the CPU where there is none. ValueError for one that is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"device {name!r} cannot be used ({reason}); choose auto, cpu or a CUDA device"
        ) from None
    return device


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor of the host on `device`: to a GPU through pinned memory, and without waiting for the copy.

    torch keeps pinned blocks that are no longer used for the next ones.
    """
    return (tensor.pin_memory() if device.type == "cuda" else tensor).to(device, non_blocking=True)
