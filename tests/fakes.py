"""Small stand-ins and builders that several tests share."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache import Item, Row, Spec, StoreWriter, Unit, write_unit

SPEC = Spec(dim=3, chunk_frames=4, shard_frames=16)
FINGERPRINT: dict[str, Any] = {"kind": "fake", "version": 1, "config": {"layers": "last"}, "weights": "abc"}


def row(id_: str, length: int, *, key: str | None = None, view: int = 0) -> Row:
    return Row(id_, Item(key or f"key-{id_}", view), length)


def frames_of(item: Item, length: int, spec: Spec) -> NDArray[Any]:
    """Frames that only depend on the item: what a deterministic backbone would give."""
    seed = [*item.content_key.encode(), item.view]
    return np.random.default_rng(seed).standard_normal((length, *spec.frame_shape)).astype(spec.dtype)


def unit_frames(unit: Unit, spec: Spec) -> Iterator[tuple[Item, NDArray[Any]]]:
    return ((item, frames_of(item, n, spec)) for item, n in zip(unit.items, unit.lengths, strict=True))


def write_store(
    path: Path,
    rows: Sequence[Row],
    spec: Spec = SPEC,
    fingerprint: dict[str, Any] = FINGERPRINT,
    **options: Any,
) -> list[Unit]:
    """Extract `rows` with frames_of; returns the units that had to be written."""
    with StoreWriter(path, spec, fingerprint, **options) as writer:
        pending = writer.plan(rows)
        for unit in pending:
            write_unit(path, spec, unit, unit_frames(unit, spec))
        writer.finish()
    return pending


def files_of(path: Path) -> dict[str, bytes]:
    """Every file below a folder, by relative path."""
    return {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()}
