"""Reading a store: a list of (frames, dim) arrays, as fast as a memory map."""

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from stillwave.cache import arrays
from stillwave.cache.batches import pad
from stillwave.cache.errors import IncompleteStore, StoreError
from stillwave.cache.layout import Spec
from stillwave.cache.places import open_storage
from stillwave.cache.ranges import ShardRanges, chunks_in, is_one_run, not_a_shard
from stillwave.cache.storage import LocalFolder

if TYPE_CHECKING:
    from stillwave.cache.resident import Resident

MAX_GROUP_BYTES = 64 * 2**20  # frames read from a remote store at a time
MAX_OPEN_SHARDS = 256  # a mapped file keeps a descriptor on Python < 3.13; a common limit is 1,024


class EmbeddingStore:
    """A complete store, opened for reading.

    `store[i]` is row i's frames, (length, [layers,] dim), read-only and without a copy if the shard is
    uncompressed and the row is in one shard. Rows are in the manifest's order. `ids`, `view`, `lengths`,
    `offsets`, `content_key` have one entry per row. Opening checks that every file is there and whole.

    path: a folder, or a URL that fsspec knows. Remote rows are read by byte ranges, and each
    `store[i]` waits for the network: read many at a time with `batch`, `each` or `resident`.
    """

    def __init__(self, path: str | Path) -> None:
        self._storage = open_storage(path)
        self.path = self._storage.path
        if self._storage.interrupted():
            raise IncompleteStore(f"{path}: a compaction was interrupted; run `stillwave compact {path}`")
        attributes = arrays.read_attributes(self._storage)
        if not attributes["complete"]:
            raise IncompleteStore(
                f"{path}: not complete: it is being written, or its extraction was interrupted; "
                "run the same `stillwave extract` again, it resumes where it stopped"
            )
        self.index_sha256: str = attributes["index_sha256"]
        self.fingerprint: dict[str, Any] = attributes["fingerprint"]
        self.made_with: dict[str, Any] | None = attributes.get("made_with")
        self.spec = Spec(**attributes["layout"])
        index, self.shard_sha256 = arrays.read_index(self._storage)
        self.ids, self.view, self.content_key = index.ids, index.view, index.content_key
        self.offsets, self.lengths, self.unit = index.offsets, index.lengths, index.unit
        arrays.frames_length(self._storage)
        self._zarr: Any = None
        self._mapped: OrderedDict[int, NDArray[Any] | None] = OrderedDict()
        self._row_of: dict[tuple[str, int], int] | None = None
        sizes = self._storage.sizes("frames/c")
        self._check_files(sizes)
        by_range = not isinstance(self._storage, LocalFolder) and self.spec.compressor is None
        self._ranges = ShardRanges(self._storage, self.spec, sizes) if by_range else None

    def __len__(self) -> int:
        return len(self.lengths)

    def __reduce__(self) -> tuple[Any, tuple[str | Path, str]]:
        return _reopen, (self.path, self.index_sha256)  # a worker opens its own maps

    def __repr__(self) -> str:
        frames = int(self.lengths.sum())
        return f"EmbeddingStore({str(self.path)!r}, rows={len(self)}, frames={frames}, spec={self.spec})"

    def __iter__(self) -> Iterator[NDArray[Any]]:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, row: int) -> NDArray[Any]:
        if not isinstance(row, int | np.integer):
            raise TypeError(f"{self.path}: row {row!r} is no number; for the rows of ids, use rows([...])")
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
        return self._read(int(self.offsets[row]), length)

    def each(self, rows: Iterable[int]) -> Iterator[tuple[int, NDArray[Any]]]:
        """(i, frames of the i-th of `rows`), each once, in the order that reads fastest."""
        chosen = [int(row) for row in rows]
        if self._ranges is None:
            yield from ((i, self[row]) for i, row in enumerate(chosen))
            return
        for group in self._groups(chosen):
            spans = [(int(self.offsets[chosen[i]]), int(self.lengths[chosen[i]])) for i in group]
            try:
                values = self._ranges.read(spans)
            finally:
                self._check_unchanged()
            yield from zip(group, values, strict=True)

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
        items = dict(self.each(rows))
        if not items:
            raise ValueError(f"{self.path}: a batch needs at least one row")
        return pad([items[i] for i in range(len(items))])

    def resident(self, device: str = "cpu", rows: Iterable[int] | None = None) -> "Resident":
        """All frames (or those of `rows`) in one tensor on `device`, with the same `batch(rows)`."""
        from stillwave.cache.resident import Resident

        chosen = list(range(len(self))) if rows is None else [int(row) for row in rows]
        return Resident.load(self.each(chosen), self.lengths[chosen], self.spec, device)

    def to_dask(self, frames_per_chunk: int = 16_384) -> Any:
        """All rows' frames, concatenated in row order, as a lazy dask array (frames, [layers,] dim).

        Row i is `x[starts[i] : starts[i] + lengths[i]]` with `starts = np.cumsum(lengths) - lengths`.
        """
        try:
            import dask
            import dask.array as da
        except ImportError as error:
            raise ValueError(
                f"to_dask needs dask, which cannot be imported ({error}): `pip install 'dask[array]'`"
            ) from error
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

    def _check_files(self, sizes: dict[str, int]) -> None:
        for shard in np.flatnonzero(self.shard_sha256 != ""):
            if arrays.shard_key(self.spec, int(shard)) not in sizes:
                raise StoreError(
                    f"{self.path}: shard {shard} is missing; `stillwave verify --repair {self.path}`, "
                    "then extract again: only its rows are redone"
                )

    def _groups(self, rows: list[int]) -> Iterator[list[int]]:
        """Positions in `rows`, sorted by where their frames are, in groups that fit in memory."""
        group: list[int] = []
        num_bytes = 0
        for i in sorted(range(len(rows)), key=lambda i: int(self.offsets[rows[i]])):
            num_bytes += int(self.lengths[rows[i]]) * self.spec.frame_bytes
            if group and num_bytes > MAX_GROUP_BYTES:
                yield group
                group, num_bytes = [], int(self.lengths[rows[i]]) * self.spec.frame_bytes
            group.append(i)
        if group:
            yield group

    def _map(self, shard: int) -> NDArray[Any] | None:
        """The shard's frames as a read-only map, or None if it cannot be mapped, or only Zarr can read it."""
        if self.spec.compressor is not None or self._ranges is not None:
            return None
        key = arrays.shard_key(self.spec, shard)
        try:
            view = self._storage.map(key)
        finally:
            self._check_unchanged()
        mapped = map_shard(view, self.spec)
        if mapped is None:
            raise not_a_shard(self._storage, key)
        self._mapped[shard] = mapped
        if len(self._mapped) > MAX_OPEN_SHARDS:
            self._mapped.popitem(last=False)
        return mapped

    def _read(self, offset: int, length: int) -> NDArray[Any]:
        """Frames that are not in one mapped shard: read by byte ranges or through Zarr."""
        try:
            if self._ranges is not None:
                return self._ranges.read([(offset, length)])[0]
            if self._zarr is None:
                self._zarr = arrays.open_frames(self._storage)
            return np.asarray(self._zarr[offset : offset + length])
        finally:
            self._check_unchanged()

    def _check_unchanged(self) -> None:
        """Check that the files just opened match the index read: compaction and updates move rows."""
        attributes = arrays.read_attributes(self._storage)
        if attributes["index_sha256"] != self.index_sha256:
            raise StoreError(f"{self.path}: it has changed since it was opened; open it again")


def map_shard(data: Any, spec: Spec) -> NDArray[Any] | None:
    """The frames in an uncompressed shard file, or None if its chunks are not contiguous from byte 0."""
    present = chunks_in(len(data), spec)
    end = present * spec.chunk_frames * spec.frame_bytes
    if not present or not is_one_run(np.frombuffer(data, dtype="<u8", count=2 * present, offset=end), spec):
        return None
    dtype = np.dtype(spec.dtype).newbyteorder("<")
    values = np.frombuffer(data, dtype=dtype, count=end // dtype.itemsize)
    return values.reshape(-1, *spec.frame_shape)


def _reopen(path: str | Path, index_sha256: str) -> EmbeddingStore:
    store = EmbeddingStore(path)
    if store.index_sha256 != index_sha256:
        raise StoreError(f"{path}: it has changed since it was sent to this process; open it again")
    return store


def _concatenate(store: EmbeddingStore, first: int, stop: int) -> NDArray[Any]:
    pieces = dict(store.each(range(first, stop)))
    return np.concatenate([pieces[i] for i in range(stop - first)])
