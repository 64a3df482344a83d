"""A store's frames in memory: one tensor, on the host or a GPU, so that training epochs read nothing."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from stillwave.cache.layout import Spec


@dataclass(frozen=True)
class Resident:
    """values: (total frames, [layers,] dim) as stored; starts, lengths: (rows,) int64, on the host.

    Batches are planned on the host, so that reading one does not wait for the device of the values.
    """

    values: Tensor
    starts: Tensor
    lengths: Tensor

    @classmethod
    def load(
        cls, rows: Iterable[tuple[int, NDArray[Any]]], lengths: NDArray[np.int64], spec: Spec, device: str
    ) -> "Resident":
        """Copy rows to `device`: (row number, frames) in any order; lengths: the frames in row 0, 1, ..."""
        starts = np.cumsum(lengths) - lengths
        dtype = torch.float16 if spec.dtype == "float16" else torch.float32
        values = torch.empty((int(lengths.sum()), *spec.frame_shape), dtype=dtype)
        host = values.numpy()
        for i, frames in rows:
            host[starts[i] : starts[i] + lengths[i]] = frames
        return cls(values.to(device), torch.from_numpy(starts), torch.from_numpy(lengths))

    def __len__(self) -> int:
        return len(self.lengths)

    def batch(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Rows (a long tensor on the host) zero-padded: (batch, longest, [layers,] dim), and their lengths.

        Both are on the device of the values.
        """
        starts, lengths = self.starts[rows], self.lengths[rows]
        values = self.values
        padded = _copied if values.device.type == "cpu" else _gathered
        return padded(values, starts, lengths), lengths.to(values.device, non_blocking=values.is_cuda)


def _copied(values: Tensor, starts: Tensor, lengths: Tensor) -> Tensor:
    """Zero-padded rows, one copy each: on a CPU several times as fast as frame by frame."""
    places = zip(starts.tolist(), lengths.tolist(), strict=True)
    return pad_sequence([values[start : start + length] for start, length in places], batch_first=True)


def _gathered(values: Tensor, starts: Tensor, lengths: Tensor) -> Tensor:
    """The same in a few kernels, however many rows there are."""
    steps = torch.arange(int(lengths.max()), device=values.device)
    starts, lengths = torch.stack([starts, lengths]).to(values.device, non_blocking=values.is_cuda)
    valid = steps < lengths[:, None]
    found = values[torch.where(valid, starts[:, None] + steps, 0)]
    return found.masked_fill_(~valid.reshape(*valid.shape, *(1,) * (values.ndim - 1)), 0)
