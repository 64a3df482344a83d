"""Writing one unit: its shards, their checksums, then the record that it is done."""

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stillwave.cache import arrays, ledger
from stillwave.cache.errors import StoreError
from stillwave.cache.layout import Item, Spec, Unit
from stillwave.cache.ledger import Record
from stillwave.cache.places import open_storage
from stillwave.cache.storage import Storage


def write_unit(
    path: str | Path,
    spec: Spec,
    unit: Unit,
    frames: Iterable[tuple[Item, NDArray[Any] | str]],
    plan: str | None = None,
) -> Record:
    """Write a unit's shards, then mark the unit done.

    frames: for each item of the unit, in any order, its (length, [layers,] dim) frames, or the reason why
    it has none. Runs in any process, on any machine: the coordinator that planned holds the store's lock. A
    second attempt at the same unit, even at the same time, writes the same bytes. Raises StoreError if they
    cannot be written, or if the store was replanned in the meantime. Holds the unit's frames and one
    encoded shard in memory.

    plan: name of the plan that the unit belongs to, for writers who may be late; default: the current plan.
    """
    storage = open_storage(path)
    plan = plan or ledger.plan_name(storage)
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
    _check_plan(storage, plan, unit)
    record = Record(shard_sha256=_put_shards(storage, spec, unit, buffer), failed=failed)
    _check_plan(storage, plan, unit)
    ledger.save_record(storage, plan, unit.number, record)
    return record


def _check_plan(storage: Storage, plan: str, unit: Unit) -> None:
    try:
        there = ledger.plan_name(storage)
    except FileNotFoundError:
        there = "none: the store is complete, or deleted"
    if there != plan:
        raise StoreError(
            f"{storage}: another run replanned the store while unit {unit.number} was computed, so the unit "
            "is not kept; stop one of them, and run `stillwave verify` when the other has finished"
        )


def _put_shards(storage: Storage, spec: Spec, unit: Unit, buffer: NDArray[Any]) -> dict[int, str]:
    checksums = {}
    for i in range(unit.num_shards):
        data = arrays.encode_shard(spec, buffer[i * spec.shard_frames : (i + 1) * spec.shard_frames])
        checksums[unit.first_shard + i] = hashlib.sha256(data).hexdigest()
        storage.put(arrays.shard_key(spec, unit.first_shard + i), data)
    return checksums


def _why_not_finite(values: NDArray[Any], dtype: str) -> str:
    if np.isfinite(values).all():
        peak = float(np.abs(values).max())
        return f"overflow: |value| {peak:.3g} does not fit {dtype}; set storage_dtype: float32"
    return f"non_finite: the model gave {int((~np.isfinite(values)).sum())} NaN or Inf values"
