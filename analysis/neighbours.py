"""The nearest rows of each row, and how often they have its class.

Conventions: x is (rows, dim); groups is (rows,) of names, None or NaN if unknown; neighbours is (rows, k)
row numbers, nearest first, -1 if none is left.
"""

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

BLOCK_BYTES = 64 * 2**20  # of distances held at once

Metric = Literal["cosine", "euclidean"]


def nearest(
    x: NDArray[Any], k: int, metric: Metric, *, apart: NDArray[Any] | None = None
) -> NDArray[np.int32]:
    """The k nearest rows of each row, never the row itself: (rows, k), nearest first, ties by row number.

    Exact (float64), a block of rows against all rows at a time. With cosine, a row of zeros has no
    direction: it is at distance 1 from every row, so its neighbours are the lowest row numbers.
    apart: groups (such as speakers); only rows of other groups count as neighbours. A row without a group may
        belong to any, so it has no neighbours, nor is it one. If fewer than k are left, -1 follows them.

    Raises ValueError if k is not between 1 and the number of other rows, or values are not finite.
    """
    if apart is not None:
        return nearest_and_apart(x, k, metric, apart)[1]
    found = np.empty((len(x), k), np.int32)
    for block, distance in _distances(x, k, metric):
        found[block] = _closest(distance, k)
    return found


def nearest_and_apart(
    x: NDArray[Any], k: int, metric: Metric, groups: NDArray[Any]
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """`nearest` without and with `apart`, from one computation of the distances."""
    code = pd.factorize(groups)[0]
    found, others = np.empty((len(x), k), np.int32), np.empty((len(x), k), np.int32)
    for block, distance in _distances(x, k, metric):
        found[block] = _closest(distance, k)
        distance[code[block, None] == code] = np.inf
        distance[:, code < 0] = np.inf
        distance[code[block] < 0] = np.inf
        others[block] = _closest(distance, k)
    return found, others


def _distances(x: NDArray[Any], k: int, metric: Metric) -> Iterator[tuple[slice, NDArray[np.float64]]]:
    """Blocks of rows, and their distances to every row, up to what keeps the order; inf for itself."""
    if not 1 <= k < len(x):
        raise ValueError(f"neighbours.k is {k}; {len(x)} rows have 1 to {len(x) - 1} neighbours each")
    if metric not in ("cosine", "euclidean"):
        raise ValueError(f"metric is {metric!r}; choose cosine or euclidean")
    if (bad := ~np.isfinite(x).all(1)).any():
        raise ValueError(f"{bad.sum()} rows have values that are not finite, the first is row {bad.argmax()}")
    points = x.astype(np.float64)
    squares = np.square(points).sum(1)
    if metric == "cosine":
        points /= np.sqrt(np.where(squares > 0, squares, 1))[:, None]
        squares = np.zeros(len(x))
    original = _originals(points)
    copies = np.flatnonzero(original != np.arange(len(x)))
    size = max(1, BLOCK_BYTES // (8 * len(x)))
    for start in range(0, len(x), size):
        block = slice(start, start + size)
        distance = (-2 * points[block]) @ points.T  # squared, without the term that is constant along a row
        distance += squares
        # A matrix product may give equal columns different last bits, which would break ties.
        distance[:, copies] = distance[:, original[copies]]
        distance[np.arange(len(distance)), np.arange(start, start + len(distance))] = np.inf
        yield block, distance


def _closest(distance: NDArray[np.float64], k: int) -> NDArray[np.int32]:
    """The columns of the k smallest per row, ties by number; followed by -1 where only inf is left."""
    found = np.full((len(distance), k), -1, np.int32)
    farthest = torch.from_numpy(distance).topk(k, largest=False).values[:, -1:].numpy()
    farthest = np.minimum(farthest, np.finfo(np.float64).max)
    for row, (near, far) in enumerate(zip(distance, farthest, strict=True)):
        among = np.flatnonzero(near <= far)
        among = among[np.argsort(near[among], kind="stable")][:k]
        found[row, : len(among)] = among
    return found


def precision_at(
    neighbours: NDArray[np.integer[Any]], groups: NDArray[Any], ks: Sequence[int]
) -> dict[str, float | None]:
    """The share of the k nearest in a row's own group, by str(k): the mean over rows in a group.

    Neighbours without a group do not count, nor do rows with no counted neighbour. None if no row counts.
    """
    width = neighbours.shape[1]
    if not all(1 <= k <= width for k in ks):
        raise ValueError(
            f"neighbours.precision_at is {list(ks)}; each must be from 1 to neighbours.k, which is {width}"
        )
    code = np.append(pd.factorize(groups)[0], -1)  # the last is for a neighbour of -1
    theirs, mine = code[neighbours], code[:-1, None]
    known = (theirs >= 0) & (mine >= 0)
    right, count = np.cumsum(known & (theirs == mine), axis=1), np.cumsum(known, axis=1)
    return {str(k): _mean_share(right[:, k - 1], count[:, k - 1]) for k in ks}


def chance(groups: NDArray[Any], *, apart: NDArray[Any] | None = None) -> float | None:
    """The precision of random neighbours, sum n_c (n_c - 1) / (n (n - 1)); `apart` as in `nearest`."""
    own = pd.factorize(apart)[0] if apart is not None else np.arange(len(groups))
    known = pd.notna(groups) & (own >= 0)
    code, own = pd.factorize(groups[known])[0], np.unique(own[known], return_inverse=True)[1]
    if not len(code):
        return None
    both = np.unique(np.stack([code, own]), axis=1, return_inverse=True, return_counts=True)
    size, own_size, shared = np.bincount(code)[code], np.bincount(own)[own], both[2][both[1]]
    return _mean_share(size - shared, len(code) - own_size)


def _mean_share(right: NDArray[Any], count: NDArray[Any]) -> float | None:
    counted = count > 0
    return float((right[counted] / count[counted]).mean()) if counted.any() else None


def _originals(points: NDArray[np.float64]) -> NDArray[np.int64]:
    """For each row, the first row that is equal to it."""
    first: dict[bytes, int] = {}
    rows = np.ascontiguousarray(points + 0.0)  # -0 is 0
    return np.array([first.setdefault(hashlib.sha256(row).digest(), i) for i, row in enumerate(rows)])
