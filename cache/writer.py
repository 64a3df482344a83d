"""The one way to write a store: lock, plan, write units, finish. It resumes if killed at any point.

with StoreWriter(path, spec, fingerprint) as writer:
    for unit in writer.plan(rows):
        write_unit(path, spec, unit, frames_of(unit))
    writer.finish()
"""

import logging
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from stillwave.cache import arrays, ledger
from stillwave.cache.differences import differences
from stillwave.cache.errors import FingerprintMismatch, NotReadable, StoreError
from stillwave.cache.layout import Item, Row, Spec, Unit, plan_units
from stillwave.cache.ledger import Plan, Record
from stillwave.cache.locks import lock
from stillwave.cache.places import open_storage
from stillwave.cache.storage import LocalFolder, Storage

log = logging.getLogger(__name__)


class StoreWriter:
    """Holds a store's lock and completes the store, whatever state it is in.

    fingerprint: JSON-ready dict of everything the numbers depend on. A store made with another one is
    never added to: FingerprintMismatch names what differs, unless `rebuild` allows starting again.
    made_with: JSON-ready settings to keep with a new store, for readers who want to make more frames of the
    same kind; never compared.
    """

    def __init__(
        self,
        path: str | Path,
        spec: Spec,
        fingerprint: dict[str, Any],
        *,
        rebuild: bool = False,
        made_with: dict[str, Any] | None = None,
    ) -> None:
        self.storage = open_storage(path).resolve()  # a linked store has one lock, and one folder to replace
        self.path = self.storage.path
        self.spec = spec
        self.fingerprint, self.made_with = fingerprint, made_with
        self.rebuild = rebuild
        self.rebuilt: list[str] = []  # what differed, if the old store was discarded
        self._lock = lock(self.storage)
        self._rows: list[Row] = []
        self._plan: Plan | None = None

    def __enter__(self) -> "StoreWriter":
        self._lock.acquire()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lock.release()

    def plan(self, rows: Sequence[Row], source: str = "") -> list[Unit]:
        """Set the rows that the store should hold; returns the units still to be written.

        source: sha256 of the manifest that lists them, kept until the store is complete.

        Items already stored stay where they are, new ones get units of their own after them, and rows that
        are no longer wanted leave the index. If nothing changes, nothing is written.
        """
        self._rows, wanted = list(rows), _distinct(rows)
        self._open_or_create()
        done = self._done_so_far()
        if done.source and source and done.source != source:
            log.warning(
                "%s: unfinished, and made for another manifest (sha256 %.12s, now %.12s); rows that both "
                "have are kept", self.storage, done.source, source,
            )  # fmt: skip
        self._plan = replace(_updated(done, wanted, self.spec.shard_frames), source=source)
        pending = [unit for unit in self._plan.units if unit.number not in self._plan.kept]
        if pending or not self._is_current(self._plan):
            self._lock.check()
            ledger.save_plan(self.storage, self._plan)
            arrays.set_complete(self.storage, "")
            end = max((unit.offsets[-1] + unit.lengths[-1] for unit in self._plan.units), default=0)
            arrays.resize_frames(self.storage, max(end, arrays.frames_length(self.storage)))
        return pending

    @property
    def plan_name(self) -> str:
        """Name of the plan that the units from `plan()` belong to."""
        assert self._plan is not None, "plan() comes first"
        return self._plan.name

    def finish(self) -> dict[Item, str]:
        """Write the index and mark the store complete; returns the items without frames, and why."""
        assert self._plan is not None, "plan() comes before finish()"
        self._lock.check()
        if not self.storage.exists(ledger.PLAN):
            return {}
        records = ledger.load_records(self.storage, self._plan)
        unwritten = [u.number for u in self._plan.units if u.number not in records.keys() | self._plan.kept]
        assert not unwritten, f"units {unwritten} are not written"
        failed = {item: reason for record in records.values() for item, reason in record.failed.items()}
        index = _index(self._rows, self._plan, failed)
        live = _live(_folded(self._plan, records), set(index.unit.tolist()))
        ledger.save_plan(self.storage, live)  # before shards go: the plan must not list what is deleted
        _remove_other_shards(self.storage, live.shard_sha256)
        end = int((index.offsets + index.lengths).max(initial=0))
        arrays.resize_frames(self.storage, end)
        shards = range(-(-end // self.spec.shard_frames))
        table = [live.shard_sha256.get(shard, "") for shard in shards]
        arrays.set_complete(self.storage, arrays.write_index(self.storage, index, table))
        ledger.clear(self.storage)
        self.storage.sweep()  # left by killed workers
        return failed

    def _open_or_create(self) -> None:
        """Ensure that a store with our fingerprint is in place, without the leftovers of a killed run."""
        storage = self.storage
        storage.recover()
        if storage.exists("zarr.json"):
            self.rebuilt = self._differences()
            if self.rebuilt and not self.rebuild:
                raise FingerprintMismatch(
                    f"{storage}: made with other settings: {'; '.join(self.rebuilt)}. "
                    "Re-extract everything with --rebuild, or give another --out"
                )
            storage.sweep()
        elif storage.is_foreign():
            raise StoreError(
                f"{storage}: not empty, and not an embedding store; "
                "give another --out, or remove what is there yourself"
            )
        if self.rebuilt or not storage.exists("frames/zarr.json"):
            self._discard()
            arrays.create_group(storage, self.spec, self.fingerprint, self.made_with)

    def _discard(self) -> None:
        """Delete the store. A kill at any moment leaves no part that could pass for a whole store.

        A folder is deleted in one step. Objects are deleted one by one: the store is marked incomplete first,
        then its plan goes, so that the next writer finds no record of a missing shard, and its metadata last.
        """
        if not isinstance(self.storage, LocalFolder):
            with suppress(
                FileNotFoundError, LookupError, TypeError, ValueError
            ):  # a damaged one cannot be read
                arrays.set_complete(self.storage, "")
            self.storage.delete(ledger.PLAN)
        self.storage.discard(last=("frames/zarr.json", "zarr.json"))

    def _differences(self) -> list[str]:
        """Why the store cannot be added to, field by field; StoreError if it is not a store."""
        try:
            attributes = arrays.read_attributes(self.storage)
            if not self.storage.exists("frames/zarr.json") and self.storage.sizes("frames/c"):
                raise NotReadable(f"{self.storage}: frames/zarr.json is missing; re-extract with --rebuild")
            if ledger.load_plan(self.storage) is None and attributes["complete"]:
                arrays.read_index(self.storage)
        except NotReadable as error:
            if self.rebuild:
                return [str(error)]
            raise
        stored = {"layout": attributes["layout"], **attributes["fingerprint"]}
        return differences(stored, {"layout": asdict(self.spec), **self.fingerprint})

    def _done_so_far(self) -> Plan:
        """The plan in progress including its records, or a complete store's plan, or an empty one."""
        plan = ledger.load_plan(self.storage)
        if plan is not None:
            return _folded(plan, ledger.load_records(self.storage, plan))
        if arrays.read_attributes(self.storage)["complete"]:
            return plan_of_index(self.storage, self.spec)
        return Plan((), frozenset(), {})

    def _is_current(self, plan: Plan) -> bool:
        """True if the store is complete and its index is exactly what finish() would write."""
        if self.storage.exists(ledger.PLAN) or not arrays.read_attributes(self.storage)["complete"]:
            return False
        return arrays.read_index(self.storage)[0].equals(_index(self._rows, plan, {}))


def _updated(plan: Plan, wanted: dict[Item, int], shard_frames: int) -> Plan:
    """Keep done units that are still valid, drop unfinished ones that are not, append units for the rest."""
    kept = [
        _only(unit, lambda item, n: wanted.get(item, n) == n)
        for unit in plan.units
        if unit.number in plan.kept
    ]
    kept = [unit for unit in kept if unit.items]
    pending = [
        unit
        for unit in plan.units
        if unit.number not in plan.kept
        and all(wanted.get(item) == n for item, n in zip(unit.items, unit.lengths, strict=True))
    ]
    units = [*kept, *pending]
    placed = {item for unit in units for item in unit.items}
    missing = [item for item in wanted if item not in placed]
    new = plan_units(
        missing,
        np.array([wanted[item] for item in missing], dtype=np.int64),
        shard_frames,
        first_shard=max((unit.first_shard + unit.num_shards for unit in units), default=0),
        number=max((unit.number for unit in units), default=-1) + 1,
    )
    return Plan((*units, *new), frozenset(unit.number for unit in kept), plan.shard_sha256)


def _folded(plan: Plan, records: dict[int, Record]) -> Plan:
    """The plan with finished units kept, without their failed items, which are tried again."""
    failed = {item for record in records.values() for item in record.failed}
    done = plan.kept | records.keys()
    units = [
        _only(unit, lambda item, _: item not in failed) if unit.number in records else unit
        for unit in plan.units
    ]
    checksums = plan.shard_sha256 | {
        shard: sha for record in records.values() for shard, sha in record.shard_sha256.items()
    }
    return Plan(tuple(unit for unit in units if unit.items), frozenset(done), checksums, source=plan.source)


def _live(plan: Plan, numbers: set[int]) -> Plan:
    """Only the units of `numbers`, with the checksums of their shards."""
    units = tuple(unit for unit in plan.units if unit.number in numbers)
    shards = {shard for u in units for shard in range(u.first_shard, u.first_shard + u.num_shards)}
    return Plan(units, frozenset(numbers), {shard: plan.shard_sha256[shard] for shard in sorted(shards)})


def _distinct(rows: Sequence[Row]) -> dict[Item, int]:
    wanted: dict[Item, int] = {}
    seen: set[tuple[str, int]] = set()
    for row in rows:
        if (row.id, row.item.view) in seen:
            raise ValueError(f"id {row.id!r} (view {row.item.view}) occurs twice; ids must be unique")
        seen.add((row.id, row.item.view))
        if wanted.setdefault(row.item, row.length) != row.length:
            raise ValueError(
                f"id {row.id!r}: {row.length} frames planned, but {wanted[row.item]} for equal content"
            )
    return wanted


def _only(unit: Unit, keep: Callable[[Item, int], bool]) -> Unit:
    """The unit with only the items for which keep(item, length); their places stay."""
    rows = zip(unit.items, unit.offsets, unit.lengths, strict=True)
    kept = [(item, offset, length) for item, offset, length in rows if keep(item, length)]
    items, offsets, lengths = zip(*kept, strict=True) if kept else ((), (), ())
    return Unit(unit.number, unit.first_shard, unit.num_shards, items, offsets, lengths)


def _index(rows: Sequence[Row], plan: Plan, failed: dict[Item, str]) -> arrays.Index:
    place = {
        item: (offset, length, unit.number)
        for unit in plan.units
        for item, offset, length in zip(unit.items, unit.offsets, unit.lengths, strict=True)
    }
    rows = [row for row in rows if row.item not in failed]
    placed = np.array([place[row.item] for row in rows], dtype=np.int64).reshape(-1, 3)
    texts = np.dtypes.StringDType()
    return arrays.Index(
        ids=np.array([row.id for row in rows], dtype=texts),
        view=np.array([row.item.view for row in rows], dtype=np.int64),
        content_key=np.array([row.item.content_key for row in rows], dtype=texts),
        offsets=placed[:, 0].copy(),
        lengths=placed[:, 1].copy(),
        unit=placed[:, 2].copy(),
    )


def _remove_other_shards(storage: Storage, used: Collection[int]) -> None:
    for number in {key.split("/")[2] for key in storage.sizes("frames/c")}:
        if number.isdigit() and int(number) not in used:
            storage.delete_tree(f"frames/c/{number}")


def plan_of_index(storage: Storage, spec: Spec) -> Plan:
    """The plan equivalent to a complete store's index, with every unit kept."""
    index, checksums = arrays.read_index(storage)
    order = np.lexsort((index.offsets, index.unit))
    members: dict[int, list[int]] = {}
    for i in order.tolist():
        unit = members.setdefault(int(index.unit[i]), [])
        if not unit or index.offsets[unit[-1]] != index.offsets[i]:  # rows with equal content count once
            unit.append(i)
    units = []
    for number, rows in members.items():
        offsets = tuple(int(index.offsets[i]) for i in rows)
        lengths = tuple(int(index.lengths[i]) for i in rows)
        first = offsets[0] // spec.shard_frames
        last = (offsets[-1] + lengths[-1] - 1) // spec.shard_frames
        items = tuple(Item(str(index.content_key[i]), int(index.view[i])) for i in rows)
        units.append(Unit(number, first, last - first + 1, items, offsets, lengths))
    kept = frozenset(unit.number for unit in units)
    return Plan(tuple(units), kept, {i: str(sha) for i, sha in enumerate(checksums) if sha})
