"""Writing one unit: its shards, their checksums, then the record that it is done. Runs in any process."""

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache import arrays, ledger
from cache.layout import Item, Spec, Unit
from cache.ledger import Record


def write_unit(
    path: str | Path, spec: Spec, unit: Unit, frames: Iterable[tuple[Item, NDArray[Any] | str]]
) -> Record:
    """Write a unit's shards, checksum them, and mark the unit done, in that order.

    frames: for each item of the unit, in any order, its (length, [layers,] dim) frames, or the reason why
    it has none. Runs in any process: the coordinator that planned holds the store's lock.
    """
    path = Path(path)
    place = {item: (o, n) for item, o, n in zip(unit.items, unit.offsets, unit.lengths, strict=True)}
    start = unit.first_shard * spec.shard_frames
    buffer = np.full((unit.num_shards * spec.shard_frames, *spec.frame_shape), np.nan, dtype=spec.dtype)
    failed: dict[Item, str] = {}
    for item, values in frames:
        offset, length = place.pop(item)
        if isinstance(values, str):
            failed[item] = values
            values = np.zeros((length, *spec.frame_shape), dtype=spec.dtype)
        if values.shape != (length, *spec.frame_shape):
            raise ValueError(
                f"item {item.content_key[:12]} (view {item.view}): got frames of shape {values.shape}, "
                f"planned {(length, *spec.frame_shape)}; num_frames() and forward() of the backbone disagree"
            )
        slot = buffer[offset - start : offset - start + length]
        with np.errstate(over="ignore"):
            slot[:] = values
        if not np.isfinite(slot).all():
            slot[:] = 0  # not NaN: a chunk of fill values would leave a hole in the shard's run of chunks
            failed[item] = _why_not_finite(values, spec.dtype)
    assert not place, f"unit {unit.number} got no frames for {len(place)} of its items"
    checksums = _write_shards(path, spec, unit, buffer)
    record = Record(shard_sha256=checksums, failed=failed)
    ledger.save_record(path, unit.number, record)
    return record


def _write_shards(path: Path, spec: Spec, unit: Unit, buffer: NDArray[Any]) -> dict[int, str]:
    array = arrays.open_frames(path, mode="r+")
    checksums = {}
    first = unit.first_shard * spec.shard_frames
    for shard in range(unit.first_shard, unit.first_shard + unit.num_shards):
        begin = shard * spec.shard_frames
        end = min(begin + spec.shard_frames, array.shape[0])
        file = path / arrays.shard_key(spec, shard)
        file.unlink(missing_ok=True)  # of a killed run: nothing of it may be merged into the new one
        array[begin:end] = buffer[begin - first : end - first]
        arrays.fsync(file)
        checksums[shard] = file_sha256(file)
    return checksums


def _why_not_finite(values: NDArray[Any], dtype: str) -> str:
    if np.isfinite(values).all():
        peak = float(np.abs(values).max())
        return f"overflow: |value| {peak:.3g} does not fit {dtype}; set storage_dtype: float32"
    return f"non_finite: the model gave {int((~np.isfinite(values)).sum())} NaN or Inf values"


def file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
