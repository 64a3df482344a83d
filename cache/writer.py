"""The one way to write a store: lock, plan, write units, finish. Killed anywhere, it goes on where it was.

with StoreWriter(path, spec, fingerprint) as writer:
    for unit in writer.plan(rows):
        write_unit(path, spec, unit, frames_of(unit))
    writer.finish()
"""

import re
import shutil
from collections.abc import Collection, Sequence
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from cache import arrays, ledger
from cache.errors import FingerprintMismatch, NotReadable, StoreError
from cache.fingerprint import differences
from cache.folders import acquire, lock, recover_exchange
from cache.layout import Item, Row, Spec, Unit, plan_units
from cache.ledger import Plan, Record


class StoreWriter:
    """Holds a store's lock and takes it from whatever state it is in to a complete one.

    fingerprint: JSON-ready dict of everything the numbers depend on. A store made with another one is
    never added to: FingerprintMismatch names what differs, unless `rebuild` allows to start it anew.
    """

    def __init__(
        self, path: str | Path, spec: Spec, fingerprint: dict[str, Any], *, rebuild: bool = False
    ) -> None:
        self.path = Path(path)
        self.spec = spec
        self.fingerprint = fingerprint
        self.rebuild = rebuild
        self.rebuilt: list[str] = []  # what differed, when the old store was given up
        self._lock = lock(self.path)
        self._rows: list[Row] = []
        self._plan: Plan | None = None

    def __enter__(self) -> "StoreWriter":
        acquire(self._lock, self.path)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lock.release()

    def plan(self, rows: Sequence[Row]) -> list[Unit]:
        """Say which rows the store shall hold; returns the units still to be written.

        Items already stored stay where they are, new ones get units of their own after them, rows that
        are no longer wanted leave the index. When nothing changes, nothing is written.
        """
        self._rows = list(rows)
        self._open_or_create()
        plan = self._current_plan()
        wanted = _distinct(rows)
        done = plan.kept | set(ledger.load_records(self.path))
        pending = [unit for unit in plan.units if unit.number not in done]
        placed = {item for unit in plan.units for item in unit.items}
        if wanted.keys() - placed or any(item not in wanted for unit in pending for item in unit.items):
            plan = self._extended(plan, done, wanted)
            pending = [unit for unit in plan.units if unit.number not in plan.kept]
        self._plan = plan
        if pending or not self._is_current(plan):
            ledger.save_plan(self.path, plan)
            arrays.set_complete(self.path, False)
            arrays.resize_frames(self.path, max(_end(plan.units), arrays.open_frames(self.path).shape[0]))
        return pending

    def finish(self) -> dict[Item, str]:
        """Write the index and mark the store complete; returns the items that gave no frames, and why."""
        assert self._plan is not None, "plan() comes before finish()"
        if not (self.path / ledger.PLAN).exists():
            return {}
        records = ledger.load_records(self.path)
        missing = [u.number for u in self._plan.units if u.number not in records.keys() | self._plan.kept]
        assert not missing, f"units {missing} are not written"
        checksums, failed = _outcome(self._plan, records)
        index = _index(self._rows, self._plan, failed)
        used = _shards_used(index, self._plan, checksums)
        end = int((index.offsets + index.lengths).max(initial=0))
        arrays.resize_frames(self.path, end)
        _remove_unused_shards(self.path, used)
        table = [used.get(shard, "") for shard in range(-(-end // self.spec.shard_frames))]
        arrays.write_index(self.path, index, table)
        arrays.set_complete(self.path, True)
        ledger.clear(self.path)
        return failed

    def _open_or_create(self) -> None:
        """Leave a store of our fingerprint at `path`, without the leftovers of a killed run."""
        recover_exchange(self.path)
        if (self.path / "zarr.json").exists():
            self.rebuilt = self._differences()
            if self.rebuilt and not self.rebuild:
                raise FingerprintMismatch(
                    f"{self.path}: made with other settings: {'; '.join(self.rebuilt)}. "
                    "Re-extract everything with --rebuild, or give another --out"
                )
            for leftover in self.path.rglob("*.partial"):
                leftover.unlink()
        elif self.path.exists() and any(_foreign(entry) for entry in self.path.iterdir()):
            raise StoreError(
                f"{self.path}: the folder is not empty and holds no embedding store; "
                "give another --out, or empty it yourself"
            )
        if self.rebuilt or not (self.path / "frames" / "zarr.json").exists():
            if self.path.exists():
                shutil.rmtree(self.path)
            self.path.parent.mkdir(parents=True, exist_ok=True)
            arrays.create_group(self.path, self.spec, self.fingerprint)

    def _differences(self) -> list[str]:
        """Why the store at `path` cannot be added to, field by field; StoreError when it is not ours."""
        try:
            attributes = arrays.read_attributes(self.path)
        except NotReadable as error:
            if self.rebuild:
                return [str(error)]
            raise
        stored = {"layout": attributes["layout"], **attributes["fingerprint"]}
        return differences(stored, {"layout": asdict(self.spec), **self.fingerprint})

    def _current_plan(self) -> Plan:
        """The plan in progress, or one that keeps every unit of a complete store, or an empty one."""
        plan = ledger.load_plan(self.path)
        if plan is not None:
            return plan
        if not arrays.read_attributes(self.path)["complete"]:
            return Plan(units=[], kept=set())
        ledger.clear(self.path)  # records whose plan is gone: a run killed in its very last step
        return plan_of_index(self.path, self.spec)

    def _extended(self, plan: Plan, done: set[int], wanted: dict[Item, int]) -> Plan:
        """Keep what is done, drop units that are not, and plan what is wanted and missing behind them."""
        checksums, failed = _outcome(plan, ledger.load_records(self.path))
        kept = [_without(unit, failed.keys()) for unit in plan.units if unit.number in done]
        kept = [unit for unit in kept if unit.items]
        placed = {item for unit in kept for item in unit.items}
        missing = [item for item in wanted if item not in placed]
        new = plan_units(
            missing,
            np.array([wanted[item] for item in missing], dtype=np.int64),
            self.spec.shard_frames,
            first_shard=max((unit.first_shard + unit.num_shards for unit in kept), default=0),
            # beyond every number of the old plan: its records must not be taken for records of new units
            number=max((unit.number for unit in plan.units), default=-1) + 1,
        )
        return Plan(units=kept + new, kept={unit.number for unit in kept}, shard_sha256=checksums)

    def _is_current(self, plan: Plan) -> bool:
        """True when the store is complete and its index is just what finish() would write."""
        if (self.path / ledger.PLAN).exists() or not arrays.read_attributes(self.path)["complete"]:
            return False
        return arrays.read_index(self.path)[0].equals(_index(self._rows, plan, {}))


def _foreign(entry: Path) -> bool:
    """False for what a run killed while it made the folder leaves behind."""
    return re.fullmatch(r"zarr\.[0-9a-f]{32}\.partial", entry.name) is None


def _distinct(rows: Sequence[Row]) -> dict[Item, int]:
    wanted: dict[Item, int] = {}
    seen: set[tuple[str, int]] = set()
    for row in rows:
        if (row.id, row.item.view) in seen:
            raise ValueError(f"id {row.id!r} (view {row.item.view}) stands twice; ids must be unique")
        seen.add((row.id, row.item.view))
        if wanted.setdefault(row.item, row.length) != row.length:
            raise ValueError(
                f"id {row.id!r}: {row.length} frames planned, but {wanted[row.item]} for equal content"
            )
    return wanted


def _outcome(plan: Plan, records: dict[int, Record]) -> tuple[dict[int, str], dict[Item, str]]:
    """Checksums of all shards done, and the failed items. A kept unit's record is of an earlier plan."""
    checksums = dict(plan.shard_sha256)
    failed: dict[Item, str] = {}
    for number, record in records.items():
        if number not in plan.kept:
            checksums |= record.shard_sha256
            failed |= record.failed
    return checksums, failed


def _without(unit: Unit, failed: Collection[Item]) -> Unit:
    keep = [i for i, item in enumerate(unit.items) if item not in failed]
    return Unit(
        unit.number,
        unit.first_shard,
        unit.num_shards,
        tuple(unit.items[i] for i in keep),
        tuple(unit.offsets[i] for i in keep),
        tuple(unit.lengths[i] for i in keep),
    )


def _end(units: Sequence[Unit]) -> int:
    return max((unit.offsets[-1] + unit.lengths[-1] for unit in units if unit.items), default=0)


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


def _shards_used(index: arrays.Index, plan: Plan, checksums: dict[int, str]) -> dict[int, str]:
    """Checksums of the shards of every unit that still has a row."""
    live = set(index.unit.tolist())
    return {
        shard: checksums[shard]
        for unit in plan.units
        if unit.number in live
        for shard in range(unit.first_shard, unit.first_shard + unit.num_shards)
        if shard in checksums
    }


def _remove_unused_shards(path: Path, used: dict[int, str]) -> None:
    for folder in (path / "frames" / "c").glob("*"):
        if int(folder.name) not in used:
            shutil.rmtree(folder)


def plan_of_index(path: Path, spec: Spec) -> Plan:
    """The plan that a complete store's index amounts to, every unit kept."""
    index, checksums = arrays.read_index(path)
    order = np.lexsort((index.offsets, index.unit))
    members: dict[int, list[int]] = {}
    for i in order.tolist():
        unit = members.setdefault(int(index.unit[i]), [])
        if not unit or index.offsets[unit[-1]] != index.offsets[i]:  # rows of equal content stand once
            unit.append(i)
    units = []
    for number, rows in members.items():
        offsets = tuple(int(index.offsets[i]) for i in rows)
        lengths = tuple(int(index.lengths[i]) for i in rows)
        first = offsets[0] // spec.shard_frames
        last = (offsets[-1] + lengths[-1] - 1) // spec.shard_frames
        items = tuple(Item(str(index.content_key[i]), int(index.view[i])) for i in rows)
        units.append(Unit(number, first, last - first + 1, items, offsets, lengths))
    kept = {unit.number for unit in units}
    return Plan(units, kept, {i: str(sha) for i, sha in enumerate(checksums) if sha})
