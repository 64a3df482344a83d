"""Frames for the training loop, regardless of where they come from."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stillwave.cache import EmbeddingStore
from stillwave.heads.base import Head
from stillwave.heads.devices import send
from stillwave.heads.masks import valid_mask
from stillwave.pipeline.backbones import Backbone, Frames
from stillwave.pipeline.backbones.device import to_device

RowNumbers = NDArray[np.int64]
RESIDENT_BYTES = 8 * 2**30  # a larger selection of rows is read from the memory map, batch by batch
ABSENT = -1  # instead of a store's row: this modality is missing


class Features(Protocol):
    """Rows of a data set in a model's input form. `lengths` is (rows,); batches are sorted by it."""

    lengths: RowNumbers
    device: torch.device

    def batch(self, rows: RowNumbers) -> tuple[Tensor, ...]:
        """For each modality: values (batch, frames, [layers,] dim), lengths (batch,); on `device`.

        Lengths that only a live backbone reads stay on the host, where it uses them for planning.
        """
        ...

    def of_epoch(self, epoch: int, seed: tuple[int, ...]) -> "Features":
        """The rows for training in an epoch: waveforms may change between epochs, lengths do not."""
        ...


class Part(Features, Protocol):
    """One modality of the rows.

    frame_shape: of the frames that the head gets, (dim,) or (layers, dim). content: identifies each row,
    empty if the row lacks the modality. fingerprint: what the frames depend on. settings: of the backbone,
    JSON-ready, if they are known. encoder: the backbone that makes frames from the result of `batch`; None if
    that already is frames.
    """

    frame_shape: tuple[int, ...]
    content: list[str]
    fingerprint: dict[str, Any]
    settings: dict[str, Any] | None
    encoder: Backbone | None = None

    def read(self) -> None:
        """Read every file once. Raises ValueError naming one that cannot be read as it was prepared."""
        return  # a store is checked at opening


class CachedFeatures(Part):
    """Rows of a store, held in memory on `device` if they fit, else read through the memory map.

    A row of ABSENT has no frames: its length is 0.
    """

    def __init__(self, store: EmbeddingStore, rows: RowNumbers, device: torch.device) -> None:
        self.store, self.rows, self.device = store, rows, device
        present = rows != ABSENT
        self.lengths = np.where(present, store.lengths[rows], 0) if len(store) else np.zeros_like(rows)
        self.frame_shape = store.spec.frame_shape
        self.fingerprint, self.settings = store.fingerprint, store.made_with
        keys = store.content_key.tolist()
        self.content = ["" if row == ABSENT else keys[row] for row in rows.tolist()]
        # Each row once: all views of a recording share its text.
        kept, place = np.unique(rows[present], return_inverse=True)
        fits = int(store.lengths[kept].sum()) * store.spec.frame_bytes <= RESIDENT_BYTES
        self._resident = store.resident(str(device), kept) if fits else None
        self._place = np.full(len(rows), ABSENT)  # of each present row in the resident tensor
        self._place[present] = place
        dtype = torch.float16 if store.spec.dtype == "float16" else torch.float32
        self._none = torch.empty(0, *self.frame_shape, dtype=dtype, device=device)

    def of_epoch(self, epoch: int, seed: tuple[int, ...]) -> "CachedFeatures":
        return self  # stored frames do not change; views are separate rows

    def batch(self, rows: RowNumbers) -> Frames:
        return in_place(self.rows[rows] != ABSENT, lambda chosen: self._read(rows[chosen]), self._none)

    def _read(self, rows: RowNumbers) -> Frames:
        if self._resident is not None:
            return Frames(*self._resident.batch(torch.from_numpy(self._place[rows])))
        values, lengths = map(torch.from_numpy, self.store.batch(self.rows[rows]))
        return Frames(to_device(values, self.device), send(lengths, self.device))


class JoinedFeatures:
    """The same rows in several modalities, each of which may lack some of them."""

    def __init__(self, parts: Sequence[Features]) -> None:
        self.parts = tuple(parts)
        self.device = parts[0].device
        self.lengths = np.sum([part.lengths for part in parts], axis=0)

    def batch(self, rows: RowNumbers) -> tuple[Tensor, ...]:
        return tuple(tensor for part in self.parts for tensor in part.batch(rows))

    def of_epoch(self, epoch: int, seed: tuple[int, ...]) -> "JoinedFeatures":
        return JoinedFeatures([part.of_epoch(epoch, seed) for part in self.parts])


def joined(parts: Sequence[Part]) -> Features:
    """The features of all parts together; a single part is returned as it is."""
    return JoinedFeatures(parts) if len(parts) > 1 else parts[0]


class Summaries:
    """Features whose rows a head summarised once, in memory; see `Head.summarise`."""

    @torch.no_grad()
    def __init__(self, features: Features, head: Head, batch_size: int = 64) -> None:
        self.lengths, self.device = features.lengths, features.device
        rows = np.arange(len(features.lengths))
        batches = np.split(rows, rows[batch_size::batch_size])
        found = [head.summarise(*features.batch(batch)) for batch in batches]
        self.tensors = tuple(torch.cat(parts) for parts in zip(*found, strict=True))

    def of_epoch(self, epoch: int, seed: tuple[int, ...]) -> "Summaries":
        return self

    def batch(self, rows: RowNumbers) -> tuple[Tensor, ...]:
        chosen = send(torch.from_numpy(rows), self.device)
        return tuple(tensor[chosen] for tensor in self.tensors)


def summarised(features: Features, head: Head) -> Features:
    """The rows as the head summarises them, or as they are if it does not."""
    summarises = type(head.innermost).summarise is not Head.summarise
    return Summaries(features, head) if summarises else features


def in_place(there: NDArray[np.bool_], read: Callable[[RowNumbers], Frames], none: Tensor) -> Frames:
    """Frames of a batch in which some items may have none; their length is 0.

    there: (batch,), which items have frames. read: gives these frames, by position. none: the values
    (0, *frame_shape) of no frames, for their shape, type and device.
    """
    chosen = np.flatnonzero(there)
    if not len(chosen):
        lengths = torch.zeros(len(there), dtype=torch.int64, device=none.device)
        return Frames(none.new_zeros(len(there), 1, *none.shape[1:]), lengths)
    found = read(chosen)
    if len(chosen) == len(there):
        return found
    index = send(torch.from_numpy(chosen), none.device)
    values = found.values.new_zeros(len(there), *found.values.shape[1:])
    lengths = found.lengths.new_zeros(len(there))
    return Frames(values.index_copy(0, index, found.values), lengths.index_copy(0, index, found.lengths))


@torch.no_grad()
def valid_frames(
    features: Features,
    rows: RowNumbers,
    batch_size: int = 64,
    *,
    modality: int = 0,
    encode: Callable[..., tuple[Tensor, ...]] = lambda *inputs: inputs,
) -> Iterator[Tensor]:
    """All valid frames of `rows`, (frames, [layers,] dim) at a time, for fitting statistics.

    modality: its number. encode: makes frames from waveforms, as `Model.frames` does.
    """
    for start in range(0, len(rows), batch_size):
        found = encode(*features.batch(rows[start : start + batch_size]))
        values, lengths = found[2 * modality : 2 * modality + 2]
        yield values[valid_mask(lengths, values.shape[1])]
