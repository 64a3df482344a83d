"""What an unfinished store still has to do: the plan, and one record per unit done.

Both live in the store's folder while it is written and are gone once it is complete. A record is put
in place only after its unit's shards are on disk and checksummed, so a killed run loses at most the
units in flight.
"""

import itertools
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from cache.layout import Item, Unit

PLAN = "plan.parquet"
UNITS = "units"


@dataclass
class Plan:
    """Units in order of their number; `kept` are those done before this plan was made."""

    units: list[Unit]
    kept: set[int]
    shard_sha256: dict[int, str] = field(default_factory=dict)  # of the kept units


@dataclass(frozen=True)
class Record:
    """A unit that is done: the sha256 of each of its shard files, and items that gave no frames."""

    shard_sha256: dict[int, str]
    failed: dict[Item, str]  # reason by item


def save_plan(root: Path, plan: Plan) -> None:
    """Write the plan in one atomic step."""
    columns: dict[str, list[Any]] = {name: [] for name in ("unit", "shard", "shards", "key", "view")}
    for unit in plan.units:
        columns["unit"] += [unit.number] * len(unit.items)
        columns["shard"] += [unit.first_shard] * len(unit.items)
        columns["shards"] += [unit.num_shards] * len(unit.items)
        columns["key"] += [item.content_key for item in unit.items]
        columns["view"] += [item.view for item in unit.items]
    columns["offset"] = [offset for unit in plan.units for offset in unit.offsets]
    columns["length"] = [length for unit in plan.units for length in unit.lengths]
    metadata = {
        "kept": json.dumps(sorted(plan.kept)),
        "shard_sha256": json.dumps({str(shard): sha for shard, sha in plan.shard_sha256.items()}),
    }
    table = pa.table(columns).replace_schema_metadata(metadata)
    temporary = root / f"{PLAN}.partial"
    pq.write_table(table, temporary)
    temporary.replace(root / PLAN)


def load_plan(root: Path) -> Plan | None:
    """The plan of an unfinished store, or None."""
    if not (root / PLAN).exists():
        return None
    table = pq.read_table(root / PLAN)
    metadata = table.schema.metadata or {}
    columns = {name: table.column(name).to_pylist() for name in table.column_names}
    numbers = np.asarray(columns["unit"], dtype=np.int64)
    cuts = [0, *(np.flatnonzero(np.diff(numbers)) + 1).tolist(), len(numbers)]
    units = [
        Unit(
            number=columns["unit"][a],
            first_shard=columns["shard"][a],
            num_shards=columns["shards"][a],
            items=tuple(Item(*pair) for pair in zip(columns["key"][a:b], columns["view"][a:b], strict=True)),
            offsets=tuple(columns["offset"][a:b]),
            lengths=tuple(columns["length"][a:b]),
        )
        for a, b in itertools.pairwise(cuts)
        if a < b
    ]
    checksums = json.loads(metadata[b"shard_sha256"])
    return Plan(
        units=units,
        kept=set(json.loads(metadata[b"kept"])),
        shard_sha256={int(shard): sha for shard, sha in checksums.items()},
    )


def save_record(root: Path, number: int, record: Record) -> None:
    """Mark a unit done, in one atomic step."""
    folder = root / UNITS
    folder.mkdir(exist_ok=True)
    body = {
        "shard_sha256": {str(shard): sha for shard, sha in record.shard_sha256.items()},
        "failed": [[item.content_key, item.view, reason] for item, reason in record.failed.items()],
    }
    temporary = folder / f"{number:06d}.json.partial"
    temporary.write_text(json.dumps(body))
    temporary.replace(folder / f"{number:06d}.json")


def load_records(root: Path) -> dict[int, Record]:
    """Records of the units done since the plan was made, by unit number."""
    records = {}
    for path in sorted((root / UNITS).glob("*.json")):
        body = json.loads(path.read_text())
        records[int(path.stem)] = Record(
            shard_sha256={int(shard): sha for shard, sha in body["shard_sha256"].items()},
            failed={Item(key, view): reason for key, view, reason in body["failed"]},
        )
    return records


def clear(root: Path) -> None:
    """Remove the plan, then the records: in this order a kill in between loses no work."""
    (root / PLAN).unlink(missing_ok=True)
    folder = root / UNITS
    if folder.exists():
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()
