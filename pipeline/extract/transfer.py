"""Copying batches to a device and their frames back, while other batches are computed."""

import threading
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stillwave.heads.devices import send
from stillwave.pipeline.backbones import Frames


class Transfer:
    """Copies to a device and back, for several threads at once.

    On a GPU each thread has its own stream: on a shared one, its copies would wait for the others' kernels.
    Copies go through pinned memory, which torch reuses for the next batch. stored: the type in which frames
    are kept.
    """

    def __init__(self, device: torch.device, stored: torch.dtype) -> None:
        self.device, self.stored = device, stored
        self._cuda = device.type == "cuda"
        self._streams = threading.local()

    def stream(self) -> AbstractContextManager[Any]:
        """This thread's stream; use it as one block around `send`, the forward pass and `fetch`."""
        if not self._cuda:
            return nullcontext()
        if not hasattr(self._streams, "own"):
            self._streams.own = torch.cuda.Stream(self.device)
        return torch.cuda.stream(self._streams.own)

    def send(self, items: Sequence[NDArray[Any]]) -> tuple[Tensor, Tensor]:
        """Items (length, ...) in the form that a backbone takes.

        Zero-padded to (batch, longest, ...) on the device, and their lengths on the host.
        """
        lengths = torch.tensor([len(item) for item in items])
        shape = (len(items), int(lengths.max()), *items[0].shape[1:])
        dtype = torch.int64 if items[0].dtype.kind == "i" else torch.float32  # tokens or samples
        values = torch.zeros(shape, dtype=dtype, pin_memory=self._cuda)
        for row, item in zip(values.numpy(), items, strict=True):
            row[: len(item)] = item
        return send(values, self.device), lengths

    def fetch(self, frames: Frames) -> tuple[NDArray[np.floating[Any]], list[int]]:
        """Frames on the host, and the number of valid ones per item. Waits only for this thread's stream.

        From a GPU they come in the stored type, which halves the bytes, or in fp32 if some do not fit it, so
        that the writer can report this.
        """
        values = frames.values.float()
        if not self._cuda:
            return values.cpu().numpy(), frames.lengths.tolist()
        stored = values.to(self.stored)
        lost = (stored.isfinite() != values.isfinite()).any()
        found, lengths, overflow = (_to_pinned(tensor) for tensor in (stored, frames.lengths, lost))
        torch.cuda.current_stream(self.device).synchronize()
        return (values.cpu() if overflow else found).numpy(), lengths.tolist()


def _to_pinned(tensor: Tensor) -> Tensor:
    """A copy in pinned memory, valid once the stream is synchronised."""
    return torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True).copy_(tensor, non_blocking=True)
