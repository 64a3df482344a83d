"""Rows of a store that cannot be memory-mapped, by byte ranges: a shard's frames are one run of bytes."""

from collections.abc import Collection, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from stillwave.cache.arrays import shard_key
from stillwave.cache.errors import StoreError
from stillwave.cache.layout import Spec
from stillwave.cache.storage import Storage

MAX_GAP_BYTES = 128 * 2**10  # smaller gaps are read and discarded, which is cheaper than another request
MAX_RANGE_BYTES = 8 * 2**20  # the most per request, except for a longer row


class Piece(NamedTuple):
    """Frames `start` to `stop` of a shard."""

    shard: int
    start: int
    stop: int


class ShardRanges:
    """The uncompressed shards of a store; sizes: bytes of each file by key, as listed at opening."""

    def __init__(self, storage: Storage, spec: Spec, sizes: dict[str, int]) -> None:
        self._storage, self._spec, self._sizes = storage, spec, sizes
        self._checked: set[int] = set()

    def read(self, spans: Sequence[tuple[int, int]]) -> list[NDArray[Any]]:
        """The frames of each span (first frame, number of frames), counted over the whole array.

        Neighboring spans share a request, and all requests run concurrently. Raises StoreError
        for a shard with another layout.
        """
        parts = [list(_pieces(first, length, self._spec.shard_frames)) for first, length in spans]
        pieces = sorted({piece for row in parts for piece in row})
        self._check({piece.shard for piece in pieces} - self._checked)
        runs = _runs(pieces, self._spec.frame_bytes)
        size, ranges = self._spec.frame_bytes, []
        for run in runs:
            stop = max(piece.stop for piece in run)
            ranges.append((shard_key(self._spec, run[0].shard), run[0].start * size, stop * size))
        found: dict[Piece, NDArray[Any]] = {}
        for run, data in zip(runs, self._storage.read_ranges(ranges), strict=True):
            frames = np.frombuffer(data, dtype=np.dtype(self._spec.dtype).newbyteorder("<"))
            frames = frames.reshape(-1, *self._spec.frame_shape)
            found |= {p: frames[p.start - run[0].start : p.stop - run[0].start] for p in run}
        return [
            found[row[0]] if len(row) == 1 else np.concatenate([found[piece] for piece in row])
            for row in parts
        ]

    def _check(self, shards: Collection[int]) -> None:
        """Raise StoreError unless each shard's index says that its chunks are contiguous from byte 0."""
        keys = [shard_key(self._spec, shard) for shard in sorted(shards)]
        present = {key: chunks_in(self._sizes.get(key, 0), self._spec) for key in keys}
        step = self._spec.chunk_frames * self._spec.frame_bytes
        ends = [(key, n * step, n * step + 16 * n) for key, n in present.items() if n]
        tables = {key: data for (key, *_), data in zip(ends, self._storage.read_ranges(ends), strict=True)}
        for key, chunks in present.items():
            if not chunks or not is_one_run(np.frombuffer(tables[key], dtype="<u8"), self._spec):
                raise not_a_shard(self._storage, key)
        self._checked.update(shards)


def _pieces(first: int, length: int, shard_frames: int) -> Iterator[Piece]:
    """The part of each shard that a span covers."""
    end = first + length
    while first < end:
        shard, start = divmod(first, shard_frames)
        stop = min(shard_frames, start + end - first)
        yield Piece(shard, start, stop)
        first += stop - start


def _runs(pieces: Sequence[Piece], frame_bytes: int) -> list[list[Piece]]:
    """Sorted pieces, grouped by the request that reads them."""
    runs: list[list[Piece]] = []
    stop = 0
    for piece in pieces:
        near = runs and runs[-1][0].shard == piece.shard
        near = near and (piece.start - stop) * frame_bytes <= MAX_GAP_BYTES
        if near and (piece.stop - runs[-1][0].start) * frame_bytes <= MAX_RANGE_BYTES:
            runs[-1].append(piece)
            stop = max(stop, piece.stop)
        else:
            runs.append([piece])
            stop = piece.stop
    return runs


def chunks_in(size: int, spec: Spec) -> int:
    """How many chunks an uncompressed shard file of `size` bytes holds; 0 if it is not such a file.

    The file is its chunks, then an index of (offset, bytes) as two uint64 per chunk, then a CRC of 4 bytes
    (Zarr v3, sharding_indexed with the index at the end). A missing chunk has 2**64 - 1 in both.
    """
    chunks = spec.shard_frames // spec.chunk_frames
    present, rest = divmod(size - 16 * chunks - 4, spec.chunk_frames * spec.frame_bytes)
    return 0 if present < 1 or present > chunks or rest else present


def is_one_run(table: NDArray[np.uint64], spec: Spec) -> bool:
    """Whether index entries say that their chunks follow each other from byte 0; table: (chunks * 2,)."""
    step = np.uint64(spec.chunk_frames * spec.frame_bytes)
    entries = table.reshape(-1, 2)
    return bool((entries[:, 0] == np.arange(len(entries), dtype=np.uint64) * step).all()) and bool(
        (entries[:, 1] == step).all()
    )


def not_a_shard(storage: Storage, key: str) -> StoreError:
    return StoreError(
        f"{storage}/{key}: not laid out as a Stillwave shard (truncated, or rewritten by another tool); "
        f"run `stillwave verify {storage}`"
    )
