"""Reading: an EmbeddingStore is a list of (frames, dim) arrays, as fast as a memory map."""

import mmap
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cache import arrays
from cache.batches import pad
from cache.errors import IncompleteStore, StoreError
from cache.folders import beside
from cache.layout import Spec

if TYPE_CHECKING:
    from cache.resident import Resident

MAX_OPEN_SHARDS = 256  # a mapped file keeps a descriptor on Python < 3.13; a common limit is 1,024


class EmbeddingStore:
    """A complete store, opened for reading.

    `store[i]` is row i's frames, (length, [layers,] dim), read-only and without a copy where the shard is
    uncompressed and the row lies in one shard. Rows are in the manifest's order. `ids`, `view`, `lengths`,
    `offsets`, `content_key` have one entry per row. Opening it checks that every file is there, whole.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not self.path.exists() and beside(self.path, "old").exists():
            raise IncompleteStore(f"{path}: a compaction was interrupted; run `stillwave compact {path}`")
        attributes = arrays.read_attributes(self.path)
        if not attributes["complete"]:
            raise IncompleteStore(
                f"{path}: not complete: it is being written, or its extraction was interrupted; "
                "run the same `stillwave extract` again, it goes on where it stopped"
            )
        self.index_sha256: str = attributes["index_sha256"]
        self.fingerprint: dict[str, Any] = attributes["fingerprint"]
        self.spec = Spec(**attributes["layout"])
        index, self.shard_sha256 = arrays.read_index(self.path)
        self.ids, self.view, self.content_key = index.ids, index.view, index.content_key
        self.offsets, self.lengths, self.unit = index.offsets, index.lengths, index.unit
        self._zarr = arrays.open_frames(self.path)
        self._mapped: OrderedDict[int, NDArray[Any] | None] = OrderedDict()
        self._row_of: dict[tuple[str, int], int] | None = None
        self._check_files()

    def __len__(self) -> int:
        return len(self.lengths)

    def __reduce__(self) -> tuple[Any, tuple[Path, str]]:
        return _reopen, (self.path, self.index_sha256)  # a worker opens its own maps

    def __repr__(self) -> str:
        frames = int(self.lengths.sum())
        return f"EmbeddingStore({str(self.path)!r}, rows={len(self)}, frames={frames}, spec={self.spec})"

    def __iter__(self) -> Iterator[NDArray[Any]]:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, row: int) -> NDArray[Any]:
        if not -len(self) <= row < len(self):
            raise IndexError(f"{self.path}: row {row} of {len(self)}; rows are 0 to {len(self) - 1}")
        row %= len(self)
        length = int(self.lengths[row])
        shard, start = divmod(int(self.offsets[row]), self.spec.shard_frames)
        if start + length <= self.spec.shard_frames:
            mapped = self._mapped.get(shard)
            if mapped is None:
                mapped = self._map(shard)
            if mapped is not None:
                return mapped[start : start + length]
        return self._read_across(int(self.offsets[row]), length)

    def rows(self, ids: Iterable[str], view: int = 0) -> NDArray[np.int64]:
        """Row numbers of `ids`. Raises KeyError naming those the store does not have."""
        table = self.row_of()
        wanted = list(ids)
        missing = [id_ for id_ in wanted if (id_, view) not in table]
        if missing:
            raise KeyError(
                f"{self.path}: no frames (view {view}) of {len(missing)} ids, first {missing[0]!r}; "
                "extract with the same manifest, and see its quarantine"
            )
        return np.array([table[id_, view] for id_ in wanted], dtype=np.int64)

    def row_of(self) -> dict[tuple[str, int], int]:
        """Row number by (id, view)."""
        if self._row_of is None:
            keys = zip(self.ids.tolist(), self.view.tolist(), strict=True)
            self._row_of = {key: row for row, key in enumerate(keys)}
        return self._row_of

    def batch(self, rows: Iterable[int]) -> tuple[NDArray[Any], NDArray[np.int64]]:
        """Rows stacked and zero-padded: (batch, longest, [layers,] dim), and their lengths (batch,)."""
        items = [self[int(row)] for row in rows]
        if not items:
            raise ValueError(f"{self.path}: a batch needs at least one row")
        return pad(items)

    def resident(self, device: str = "cpu", rows: Iterable[int] | None = None) -> "Resident":
        """All frames (or those of `rows`) in one tensor on `device`, with the same `batch(rows)`."""
        from cache.resident import Resident

        return Resident.load(self, device=device, rows=rows)

    def to_dask(self, frames_per_chunk: int = 16_384) -> Any:
        """All rows' frames, one after the other in row order, as a lazy dask array (frames, [layers,] dim).

        Row i is `x[starts[i] : starts[i] + lengths[i]]` with `starts = np.cumsum(lengths) - lengths`.
        """
        import dask
        import dask.array as da

        ends = np.cumsum(self.lengths)
        parts, first = [], 0
        while first < len(self):
            begin = int(ends[first - 1]) if first else 0
            stop = max(first + 1, int(np.searchsorted(ends, begin + frames_per_chunk, side="right")))
            shape = (int(ends[stop - 1]) - begin, *self.spec.frame_shape)
            part = dask.delayed(_concatenate)(self, first, stop)
            parts.append(da.from_delayed(part, shape=shape, dtype=self.spec.dtype))
            first = stop
        return da.concatenate(parts) if parts else da.zeros((0, *self.spec.frame_shape), self.spec.dtype)

    def _check_files(self) -> None:
        for shard in np.flatnonzero(self.shard_sha256 != ""):
            if not (self.path / arrays.shard_key(self.spec, int(shard))).exists():
                raise StoreError(
                    f"{self.path}: shard {shard} is missing; `stillwave verify --repair {self.path}`, "
                    "then extract again: only its rows are redone"
                )

    def _map(self, shard: int) -> NDArray[Any] | None:
        """The shard's frames as a read-only map, or None where only Zarr can read it."""
        if self.spec.compressor is not None:
            return None
        file = self.path / arrays.shard_key(self.spec, shard)
        try:
            with file.open("rb") as handle:
                view = mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ)
        finally:
            self._check_unchanged()
        mapped = map_shard(view, self.spec)
        if mapped is None:
            raise StoreError(
                f"{file}: not laid out as a Stillwave shard (truncated, or rewritten by another tool); "
                f"run `stillwave verify {self.path}`"
            )
        self._mapped[shard] = mapped
        if len(self._mapped) > MAX_OPEN_SHARDS:
            self._mapped.popitem(last=False)
        return mapped

    def _read_across(self, offset: int, length: int) -> NDArray[Any]:
        values = np.asarray(self._zarr[offset : offset + length])
        self._check_unchanged()
        return values

    def _check_unchanged(self) -> None:
        """What was just opened is of the index that was read: places move in a compaction or an update."""
        attributes = arrays.read_attributes(self.path)
        if attributes["index_sha256"] != self.index_sha256:
            raise StoreError(f"{self.path}: has changed since it was opened; open it again")


def map_shard(data: Any, spec: Spec) -> NDArray[Any] | None:
    """The frames in an uncompressed shard file's bytes, or None when its chunks are not one run from 0.

    The file is its chunks, then an index of (offset, bytes) as two uint64 per chunk, then a CRC of 4 bytes
    (Zarr v3, sharding_indexed with the index at the end). A missing chunk has 2**64 - 1 in both.
    """
    chunks = spec.shard_frames // spec.chunk_frames
    chunk_bytes = spec.chunk_frames * spec.frame_bytes
    present, rest = divmod(len(data) - 16 * chunks - 4, chunk_bytes)
    if present < 1 or present > chunks or rest:
        return None
    table = np.frombuffer(data, dtype="<u8", count=2 * chunks, offset=present * chunk_bytes).reshape(-1, 2)
    expected = np.arange(present, dtype=np.uint64) * np.uint64(chunk_bytes)
    if not (np.array_equal(table[:present, 0], expected) and (table[:present, 1] == chunk_bytes).all()):
        return None
    dtype = np.dtype(spec.dtype).newbyteorder("<")
    values = np.frombuffer(data, dtype=dtype, count=present * chunk_bytes // dtype.itemsize)
    return values.reshape(-1, *spec.frame_shape)


def _reopen(path: Path, index_sha256: str) -> EmbeddingStore:
    store = EmbeddingStore(path)
    if store.index_sha256 != index_sha256:
        raise StoreError(f"{path}: has changed since it was sent to this process; open it again")
    return store


def _concatenate(store: EmbeddingStore, first: int, stop: int) -> NDArray[Any]:
    return np.concatenate([store[row] for row in range(first, stop)])
