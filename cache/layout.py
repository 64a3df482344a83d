"""Placing each row: units of whole shards, planned from frame counts before any model runs.

A *unit* is a run of whole shards with exactly one writer. Its rows are stored consecutively, shortest
first; the rest of its last shard stays empty (fill value, not on disk), so no shard is ever shared.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

CHUNK_FRAMES = 256
MAX_SHARD_FRAMES = 16_384
MAX_SHARD_BYTES = 32 * 2**20


@dataclass(frozen=True)
class Spec:
    """What a store holds per frame, and how frames are cut into chunks and shards.

    dim: values per frame and layer. layers: stored layers; 0 means none, frames are (frames, dim).
    compressor: None, or "zstd" (read through Zarr instead of a memory map).
    """

    dim: int
    layers: int = 0
    dtype: str = "float16"
    chunk_frames: int = CHUNK_FRAMES
    shard_frames: int = 0  # 0: as many chunks as fit in MAX_SHARD_BYTES, at most MAX_SHARD_FRAMES
    compressor: str | None = None

    def __post_init__(self) -> None:
        if self.dim < 1 or self.layers < 0 or self.chunk_frames < 1:
            raise ValueError(
                f"Spec needs dim >= 1, layers >= 0, chunk_frames >= 1; got {self.dim}, {self.layers}, "
                f"{self.chunk_frames}"
            )
        if self.dtype not in ("float16", "float32"):
            raise ValueError(f"dtype {self.dtype!r} is not stored; choose float16 or float32")
        if self.compressor not in (None, "zstd"):
            raise ValueError(f"compressor {self.compressor!r} is not known; choose None or 'zstd'")
        if self.shard_frames == 0:
            fit = min(MAX_SHARD_FRAMES, MAX_SHARD_BYTES // self.frame_bytes)
            object.__setattr__(self, "shard_frames", max(1, fit // self.chunk_frames) * self.chunk_frames)
        if self.shard_frames % self.chunk_frames:
            raise ValueError(
                f"shard_frames must be a multiple of chunk_frames; got {self.shard_frames} % "
                f"{self.chunk_frames} = {self.shard_frames % self.chunk_frames}"
            )

    @property
    def frame_shape(self) -> tuple[int, ...]:
        """Shape of one frame: (dim,) or (layers, dim)."""
        return (self.layers, self.dim) if self.layers else (self.dim,)

    @property
    def frame_bytes(self) -> int:
        return int(np.prod(self.frame_shape)) * np.dtype(self.dtype).itemsize


class Item(NamedTuple):
    """One distinct item to embed: the bytes of an audio file or text, in one view (0 = clean)."""

    content_key: str
    view: int


@dataclass(frozen=True)
class Row:
    """A row of the manifest as the store sees it. Rows with equal items share frames."""

    id: str
    item: Item
    length: int  # frames


@dataclass(frozen=True)
class Unit:
    """Shards `first_shard .. first_shard + num_shards`, and the items that they hold, in order."""

    number: int
    first_shard: int
    num_shards: int
    items: tuple[Item, ...]
    offsets: tuple[int, ...]  # first frame of each item, counted over the whole array
    lengths: tuple[int, ...]  # frames of each item

    @property
    def num_frames(self) -> int:
        return sum(self.lengths)


def plan_units(
    items: list[Item], lengths: NDArray[np.int64], shard_frames: int, *, first_shard: int = 0, number: int = 0
) -> list[Unit]:
    """Pack distinct items into units: sorted by length (then by key, so the input order does not matter).

    Every unit starts on a shard boundary and holds as many items as fit into its shards: one shard,
    or as many as a single longer item needs.
    """
    if len(items) and int(lengths.min()) < 1:
        raise ValueError("every item needs at least one frame; leave out the shorter ones before planning")
    order = sorted(range(len(items)), key=lambda i: (int(lengths[i]), items[i]))
    units: list[Unit] = []
    start = 0
    while start < len(order):
        num_shards = -(-int(lengths[order[start]]) // shard_frames)
        offset, stop = first_shard * shard_frames, start
        end = offset + num_shards * shard_frames
        offsets: list[int] = []
        while stop < len(order) and offset + int(lengths[order[stop]]) <= end:
            offsets.append(offset)
            offset += int(lengths[order[stop]])
            stop += 1
        members = order[start:stop]
        units.append(
            Unit(
                number=number,
                first_shard=first_shard,
                num_shards=num_shards,
                items=tuple(items[i] for i in members),
                offsets=tuple(offsets),
                lengths=tuple(int(lengths[i]) for i in members),
            )
        )
        first_shard, number, start = first_shard + num_shards, number + 1, stop
    return units
