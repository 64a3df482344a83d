"""Frames for the training loop, which does not ask where they come from."""

from collections.abc import Iterator
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cache import EmbeddingStore
from heads.masks import valid_mask
from pipeline.backbones.base import Frames

RESIDENT_BYTES = 8 * 2**30  # a larger selection of rows is read from the memory map, batch by batch


class Features(Protocol):
    """Rows of a data set as Frames. `lengths` is (rows,), in frames."""

    lengths: NDArray[np.int64]
    frame_shape: tuple[int, ...]
    device: torch.device

    def batch(self, rows: NDArray[np.int64]) -> Frames:
        """The rows, zero-padded, on `device`: values (batch, frames, [layers,] dim)."""
        ...


class CachedFeatures:
    """Rows of a store, held in memory on `device` when they fit, else read through the memory map."""

    def __init__(self, store: EmbeddingStore, rows: NDArray[np.int64], device: torch.device) -> None:
        self.store, self.rows, self.device = store, rows, device
        self.lengths = store.lengths[rows]
        self.frame_shape = store.spec.frame_shape
        fits = int(self.lengths.sum()) * store.spec.frame_bytes <= RESIDENT_BYTES
        self._resident = store.resident(str(device), rows) if fits else None

    def batch(self, rows: NDArray[np.int64]) -> Frames:
        if self._resident is not None:
            return Frames(*self._resident.batch(torch.from_numpy(rows).to(self.device)))
        values, lengths = self.store.batch(self.rows[rows])
        return Frames(torch.from_numpy(values).to(self.device), torch.from_numpy(lengths).to(self.device))


def valid_frames(features: Features, rows: NDArray[np.int64], batch_size: int = 64) -> Iterator[Tensor]:
    """All valid frames of `rows`, (frames, [layers,] dim) at a time: what statistics are fitted on."""
    for start in range(0, len(rows), batch_size):
        values, lengths = features.batch(rows[start : start + batch_size])
        yield values[valid_mask(lengths, values.shape[1])]
