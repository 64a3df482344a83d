"""One vector per utterance from a store, and statistics of each dimension, without holding all frames.

A store is read in blocks of rows that are stored together, each a Dask task on one thread. A task returns
pooled rows and a few numbers per dimension; the block's frames are freed before the thread takes the next.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.lib.format import open_memmap
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from stillwave.cache import EmbeddingStore
from stillwave.cache.batches import length_bucketed
from stillwave.heads.global_pooling import attention, deviation, maximum, mean
from stillwave.pipeline.backbones.numerics import one_thread
from stillwave.pipeline.config.packages import needed

BLOCK_BYTES = 16 * 2**20  # of stored frames per thread; a longer row is still held whole
BATCH_BYTES = 2 * 2**20  # of float32 frames pooled at once: they stay in the processor's cache
DEAD = 1e-6  # of the median deviation: in half precision, less carries no information
EXPLODING = 30.0  # times the median of the dimensions

Layer = int | Literal["mean"]
Floats = NDArray[np.float64]


def multi_scale(frames: Tensor, lengths: Tensor) -> Tensor:
    """Mean, maximum and deviation, concatenated, (batch, 3 dim)."""
    return torch.cat([mean(frames, lengths), maximum(frames, lengths), deviation(frames, lengths)], 1)


def mean_std(frames: Tensor, lengths: Tensor) -> Tensor:
    """Mean and deviation, concatenated, (batch, 2 dim)."""
    return torch.cat([mean(frames, lengths), deviation(frames, lengths)], 1)


# As in GlobalPooling: (batch, frames, dim) with zeros beyond the lengths (batch,) -> (batch, width).
POOLINGS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "mean": mean,
    "max": maximum,
    "std": deviation,
    "attention": attention,
    "mean_std": mean_std,
    "multi_scale": multi_scale,
}
WIDTHS = {"mean_std": 2, "multi_scale": 3}  # of what is pooled, in multiples of dim; otherwise 1


@dataclass(frozen=True)
class Pooled:
    """values: float32 (rows, dim times WIDTHS). statistics: of the frames, one row per
    dimension.

    Columns of statistics: mean, std (over n), min, max, zeros (share of exact zeros), and flag, one of
        "dead": it does not vary, or by less than 1e-6 of the median deviation;
        "exploding": its deviation, or its largest absolute value, is over 30 times the dimensions' median;
        "": neither. Medians are over the dimensions that vary.
    """

    values: NDArray[np.float32]
    statistics: pd.DataFrame


def pool_store(
    store: EmbeddingStore,
    rows: NDArray[np.int64],
    pooling: str,
    layer: Layer = -1,
    *,
    workers: int | None = None,
) -> Pooled:
    """Pool the frames of `rows` of a store, in the order of `rows`.

    pooling: one of POOLINGS. layer: in a store with several, its number (negative from the last), or "mean"
        for the mean of all, frame by frame. workers: threads; by default torch's number.

    Holds at most BLOCK_BYTES of frames per worker (or one row, if that is longer), regardless of the size of
    the store. The numbers do not depend on `workers`. Raises ValueError for an unknown pooling, layer or row.
    """
    pool = _pooling(pooling)
    layer = _layer(store, layer)
    width = store.spec.dim * WIDTHS.get(pooling, 1)
    values = np.empty((len(rows), width), np.float32)
    # The blocks write their rows directly: returning them would hold everything in memory twice.
    found = _each_block(store, rows, workers, _pool_block, values, pool, layer)
    return Pooled(values, _table(found))


def pool_layers(
    store: EmbeddingStore,
    rows: NDArray[np.int64],
    pooling: str,
    *,
    workers: int | None = None,
    file: Path | None = None,
) -> NDArray[np.float32]:
    """Like `pool_store`, for every stored layer in one pass: (layers, rows, width).

    file: a new .npy to keep them in, because they may not fit in memory.
    """
    pool = _pooling(pooling)
    width = store.spec.dim * WIDTHS.get(pooling, 1)
    shape = (max(1, store.spec.layers), len(rows), width)
    values = np.empty(shape, np.float32) if file is None else open_memmap(file, "w+", np.float32, shape)
    _each_block(store, rows, workers, _pool_block_layers, values, pool)
    return values


class Moments(NamedTuple):
    """Statistics of each dimension of some frames: arrays (dim,); m2 sums squares around the mean."""

    frames: int
    mean: Floats
    m2: Floats
    low: Floats
    high: Floats
    zeros: NDArray[np.int64]


def moments(frames: NDArray[np.float32]) -> Moments:
    """Moments of (frames, dim), at least one frame."""
    count = len(frames)
    centre = frames.sum(0, dtype=np.float64) / count  # exact if all values are the same
    centred = frames - centre.astype(np.float32)
    shift = centred.sum(0, dtype=np.float64) / count  # corrects the rounding of the centre
    m2 = np.square(centred, out=centred).sum(0, dtype=np.float64) - count * shift**2
    low, high = frames.min(0).astype(np.float64), frames.max(0).astype(np.float64)
    return Moments(count, centre, np.maximum(m2, 0), low, high, count - np.count_nonzero(frames, axis=0))


def merge(parts: Sequence[Moments]) -> Moments:
    """The moments of all frames together (Chan, Golub and LeVeque, 1983)."""
    return reduce(_merge, parts)


def _merge(a: Moments, b: Moments) -> Moments:
    count, delta = a.frames + b.frames, b.mean - a.mean
    return Moments(
        count,
        a.mean + delta * (b.frames / count),
        a.m2 + b.m2 + delta**2 * (a.frames * b.frames / count),
        np.minimum(a.low, b.low),
        np.maximum(a.high, b.high),
        a.zeros + b.zeros,
    )


def _table(found: Moments) -> pd.DataFrame:
    std, largest = np.sqrt(found.m2 / found.frames), np.maximum(-found.low, found.high)
    varies = found.low < found.high
    flag = np.full(len(std), "", dtype=object)
    if varies.any():
        wild = (std > EXPLODING * np.median(std[varies])) | (largest > EXPLODING * np.median(largest[varies]))
        flag[wild] = "exploding"
        varies &= std > DEAD * np.median(std[varies])
    flag[~varies] = "dead"
    columns = {"mean": found.mean, "std": std, "min": found.low, "max": found.high}
    table = pd.DataFrame(columns | {"zeros": found.zeros / found.frames, "flag": flag})
    return table.rename_axis("dimension")


def _pooling(name: str) -> Callable[[Tensor, Tensor], Tensor]:
    if name not in POOLINGS:
        raise ValueError(f"pooling is {name!r}; choose one of {', '.join(POOLINGS)}")
    return POOLINGS[name]


def _layer(store: EmbeddingStore, layer: Layer) -> Layer:
    layers = max(1, store.spec.layers)
    if layer != "mean" and not -layers <= layer < layers:
        raise ValueError(
            f"layer is {layer}, but {store.path} stores {layers}; choose 0 to {layers - 1}, -1 for the last, "
            "or 'mean'"
        )
    return layer


def _each_block(
    store: EmbeddingStore,
    rows: NDArray[np.int64],
    workers: int | None,
    task: Callable[..., Any],
    *arguments: Any,
) -> Any:
    """Run task(store, rows, places, *arguments) on every block; returns their merged results."""
    with needed("analyze", "dask"):
        import dask

    outside = (rows < 0) | (rows >= len(store))
    if outside.any() or not len(rows):
        asked = f"row {rows[outside][0]}" if len(rows) else "no rows"
        raise ValueError(f"{store.path}: asked for {asked}; give at least one, from 0 to {len(store) - 1}")
    if workers is not None and workers < 1:
        raise ValueError(f"workers is {workers}; it must be at least 1")
    parts = [dask.delayed(task)(store, rows[block], block, *arguments) for block in _blocks(store, rows)]
    while len(parts) > 1:  # as a tree, so that only a branch of it is kept in memory
        parts = [dask.delayed(_merged)(parts[first : first + 16]) for first in range(0, len(parts), 16)]
    count = workers or torch.get_num_threads()
    with one_thread(), ThreadPoolExecutor(count, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        return parts[0].compute(scheduler="threads", pool=pool)


def _merged(parts: list[Moments | None]) -> Moments | None:
    known = [part for part in parts if part is not None]
    return merge(known) if known else None


def _blocks(store: EmbeddingStore, rows: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Positions in `rows`, by where frames are stored (so of similar length), in blocks of BLOCK_BYTES."""
    order = np.argsort(store.offsets[rows], kind="stable")
    sizes = store.lengths[rows[order]] * store.spec.frame_bytes
    # By where a row starts, so a block exceeds the limit by less than its last row.
    number = (np.cumsum(sizes) - sizes) // BLOCK_BYTES
    return np.split(order, np.flatnonzero(np.diff(number)) + 1)


def _pool_block(
    store: EmbeddingStore,
    rows: NDArray[np.int64],
    places: NDArray[np.int64],
    values: NDArray[np.float32],
    pool: Callable[[Tensor, Tensor], Tensor],
    layer: Layer,
) -> Moments:
    parts = []
    for batch, frames, lengths in _batches(store, rows, layer):
        values[places[batch]] = _pool(frames, lengths, pool)
        parts.append(moments(frames.numpy()))
    return merge(parts)


def _pool_block_layers(
    store: EmbeddingStore,
    rows: NDArray[np.int64],
    places: NDArray[np.int64],
    values: NDArray[np.float32],
    pool: Callable[[Tensor, Tensor], Tensor],
) -> None:
    for batch, frames, lengths in _batches(store, rows, "all"):
        for number in range(len(values)):
            of_layer = frames[:, number] if store.spec.layers else frames
            values[number, places[batch]] = _pool(of_layer, lengths, pool)


def _pool(frames: Tensor, lengths: Tensor, pool: Callable[[Tensor, Tensor], Tensor]) -> NDArray[Any]:
    padded = pad_sequence(frames.split(lengths.tolist()), batch_first=True)
    return pool(padded, lengths).numpy()


def _batches(
    store: EmbeddingStore, rows: NDArray[np.int64], layer: Layer | Literal["all"]
) -> Iterator[tuple[NDArray[np.int64], Tensor, Tensor]]:
    """Rows of similar length: positions in `rows`, concatenated float32 frames, and their lengths."""
    pieces = dict(store.each(rows))
    layered = store.spec.layers > 0
    if layered and isinstance(layer, int):
        pieces = {i: piece[:, layer] for i, piece in pieces.items()}
    longest = max(1, BATCH_BYTES // (4 * pieces[0][0].size))
    for batch in length_bucketed(store.lengths[rows], max_rows=len(rows), max_frames=longest):
        # Torch converts half precision several times as fast as NumPy.
        frames = torch.from_numpy(np.concatenate([pieces[i] for i in batch.tolist()])).float()
        if layered and layer == "mean":
            frames = frames.mean(1)
        yield batch, frames, torch.from_numpy(store.lengths[rows[batch]])
