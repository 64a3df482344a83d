"""Reclaiming space: rewrite a store as if its current rows had been extracted in one go."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stillwave.cache.arrays import read_attributes
from stillwave.cache.errors import StoreError
from stillwave.cache.folders import beside, exchange, recover
from stillwave.cache.layout import Item, Row, Unit, plan_units
from stillwave.cache.locks import lock
from stillwave.cache.places import open_storage
from stillwave.cache.storage import LocalFolder
from stillwave.cache.store import EmbeddingStore
from stillwave.cache.units import write_unit
from stillwave.cache.verify import verify
from stillwave.cache.writer import StoreWriter, plan_of_index


def compact(path: str | Path) -> int:
    """Free the space of removed rows and half-filled shards; returns the bytes freed.

    The frames are copied, not recomputed, into the layout of a fresh extraction, next to the store; the two
    folders are swapped at the end. If killed at any moment, either the old or the new store is there. Raises
    StoreError for a remote store: a rename is not atomic there.
    """
    storage = open_storage(path).resolve()
    if not isinstance(storage, LocalFolder):
        raise StoreError(
            f"{storage}: compact works on a local folder; copy the store down, compact it, and copy it back "
            "under another name"
        )
    path = storage.path
    if not beside(path, "old").exists():
        read_attributes(storage)  # first, so that no lock is made next to a folder that is no store
    held = lock(storage)
    held.acquire()
    try:
        recover(path)
        damage = verify(path)
        if damage.problems:
            raise StoreError(
                f"{path}: {damage.problems[0]}; run `stillwave verify --repair {path}` and extract"
            )
        store = EmbeddingStore(path)
        rows = [
            Row(str(id_), Item(str(key), int(view)), int(length))
            for id_, key, view, length in zip(
                store.ids, store.content_key, store.view, store.lengths, strict=True
            )
        ]
        distinct = {row.item: row.length for row in rows}
        fresh = plan_units(list(distinct), np.array(list(distinct.values())), store.spec.shard_frames)
        if list(plan_of_index(storage, store.spec).units) == fresh:
            return 0
        before, target = _disk_bytes(path), beside(path, "new")
        row_of = {row.item: number for number, row in enumerate(rows)}
        with StoreWriter(target, store.spec, store.fingerprint, made_with=store.made_with) as writer:
            for unit in writer.plan(rows):
                write_unit(target, store.spec, unit, _frames(store, row_of, unit))
            failed = writer.finish()
        assert not failed, f"frames that were stored cannot be stored: {failed}"
        exchange(path, target)
        Path(f"{target}.lock").unlink(missing_ok=True)
        return before - _disk_bytes(path)
    finally:
        held.release()


def _frames(
    store: EmbeddingStore, row_of: dict[Item, int], unit: Unit
) -> Iterator[tuple[Item, NDArray[Any]]]:
    return ((item, store[row_of[item]]) for item in unit.items)


def _disk_bytes(path: Path) -> int:
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
