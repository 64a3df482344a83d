"""Ragged rows into batches: which rows go together, and how they are padded."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


def length_bucketed(
    lengths: NDArray[np.int64],
    *,
    max_rows: int,
    max_frames: int | None = None,
    generator: np.random.Generator | None = None,
) -> list[NDArray[np.int64]]:
    """Split rows 0..n-1 into batches of similar length; every row is in exactly one batch.

    max_rows: the most rows per batch. max_frames: the most padded frames per batch (a longer single row is
    a batch of its own). generator: if given, rows are shuffled before they are sorted by length in
    pools of 8 batches, and batches are shuffled; without it the order is by length, shortest first.
    """
    if max_rows < 1 or (max_frames is not None and max_frames < 1):
        raise ValueError(f"max_rows and max_frames must be >= 1; got {max_rows}, {max_frames}")
    order = np.arange(len(lengths), dtype=np.int64)
    pool = max(1, len(lengths))
    if generator is not None:
        order, pool = generator.permutation(order), 8 * max_rows
    batches: list[NDArray[np.int64]] = []
    for first in range(0, len(order), pool):
        members = order[first : first + pool]
        batches += _cut(members[np.argsort(lengths[members], kind="stable")], lengths, max_rows, max_frames)
    if generator is not None:
        batches = [batches[i] for i in generator.permutation(len(batches))]
    return batches


def _cut(
    rows: NDArray[np.int64], lengths: NDArray[np.int64], max_rows: int, max_frames: int | None
) -> list[NDArray[np.int64]]:
    batches, start = [], 0
    for stop in range(1, len(rows) + 1):
        full = stop - start >= max_rows
        if not full and stop < len(rows) and max_frames is not None:
            full = (stop + 1 - start) * int(lengths[rows[stop]]) > max_frames
        if full or stop == len(rows):
            batches.append(rows[start:stop])
            start = stop
    return batches


def pad(items: Sequence[NDArray[Any]], dtype: Any = None) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Stack (length, ...) arrays into (batch, longest, ...), zero-padded; also returns their lengths."""
    lengths = np.array([len(item) for item in items], dtype=np.int64)
    shape = (len(items), int(lengths.max(initial=0)), *items[0].shape[1:])
    values = np.zeros(shape, dtype=dtype or items[0].dtype)
    for row, item in zip(values, items, strict=True):
        row[: len(item)] = item
    return values, lengths
