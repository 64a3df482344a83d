"""What an unfinished store still has to do: the plan, and one record per unit done since it was made.

Both live in the store's folder while it is written and are gone once it is complete. A record is put in
place only after its unit's shards are on disk and checksummed, so a killed run loses at most the units in
flight. Records lie in a folder named after their plan: those of another plan do not count.
"""

import itertools
import json
import os
import shutil
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from cache.errors import NotReadable
from cache.layout import Item, Unit

PLAN = "plan.parquet"
UNITS = "units"


@dataclass(frozen=True)
class Plan:
    """Units, those in `kept` done before this plan was made, with the sha256 of their shards."""

    units: tuple[Unit, ...]
    kept: frozenset[int]
    shard_sha256: dict[int, str]
    name: str = field(default_factory=lambda: uuid.uuid4().hex)


@dataclass(frozen=True)
class Record:
    """A unit that is done: the sha256 of each of its shard files, and items that gave no frames."""

    shard_sha256: dict[int, str]
    failed: dict[Item, str]  # reason by item


def save_plan(root: Path, plan: Plan) -> None:
    """Put the plan in place in one atomic step; records of earlier plans are swept up."""
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
        "name": plan.name,
        "kept": json.dumps(sorted(plan.kept)),
        "shard_sha256": json.dumps({str(shard): sha for shard, sha in plan.shard_sha256.items()}),
    }
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(columns).replace_schema_metadata(metadata), sink)
    put(root / PLAN, sink.getvalue().to_pybytes())
    for folder in (root / UNITS).glob("*"):
        if folder.name != plan.name:
            shutil.rmtree(folder)


def load_plan(root: Path) -> Plan | None:
    """The plan of an unfinished store, or None. Raises NotReadable."""
    if not (root / PLAN).exists():
        return None
    try:
        table = pq.read_table(root / PLAN)
        metadata = table.schema.metadata
        name, kept = metadata[b"name"].decode(), frozenset(json.loads(metadata[b"kept"]))
        checksums = {int(shard): sha for shard, sha in json.loads(metadata[b"shard_sha256"]).items()}
        columns = {name: table.column(name).to_pylist() for name in table.column_names}
        numbers = np.asarray(columns["unit"], dtype=np.int64)
    except (pa.ArrowInvalid, LookupError, TypeError, ValueError) as error:
        raise NotReadable(f"{root / PLAN}: damaged ({error!r}); re-extract with --rebuild") from None
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
    return Plan(tuple(units), kept, checksums, name)


def save_record(root: Path, number: int, record: Record) -> None:
    """Mark a unit of the present plan done, in one atomic step."""
    name = pq.read_schema(root / PLAN).metadata[b"name"].decode()
    body = {
        "shard_sha256": {str(shard): sha for shard, sha in record.shard_sha256.items()},
        "failed": [[item.content_key, item.view, reason] for item, reason in record.failed.items()],
    }
    put(root / UNITS / name / f"{number:06d}.json", json.dumps(body).encode())


def load_records(root: Path, plan: Plan) -> dict[int, Record]:
    """Records of the units done since `plan` was made, by unit number; one that is damaged does not count."""
    records = {}
    for path in sorted((root / UNITS / plan.name).glob("*.json")):
        try:
            body = json.loads(path.read_text())
            records[int(path.stem)] = Record(
                shard_sha256={int(shard): sha for shard, sha in body["shard_sha256"].items()},
                failed={Item(key, view): reason for key, view, reason in body["failed"]},
            )
        except (ValueError, LookupError):
            continue
    return records


def clear(root: Path) -> None:
    """Remove the plan and the records."""
    (root / PLAN).unlink(missing_ok=True)
    shutil.rmtree(root / UNITS, ignore_errors=True)


def put(path: Path, data: bytes) -> None:
    """Write a small file so that it is there whole, on the disk, or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.partial")
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
