"""The remaining work of an unfinished store: the plan, and one record per unit done since the plan was made.

Both are in the store's folder while it is written and are deleted once it is complete. A record is written
only after its unit's shards are on disk and checksummed, so a killed run loses at most the units in
progress. Records are in a folder named after their plan: those of another plan do not count.
"""

import itertools
import json
import uuid
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from stillwave.cache.errors import NotReadable
from stillwave.cache.layout import Item, Unit
from stillwave.cache.storage import Storage

PLAN = "plan.parquet"
UNITS = "units"


@dataclass(frozen=True)
class Plan:
    """Units; those in `kept` were done before this plan was made, with the sha256 of their shards.

    source: sha256 of the manifest that lists its rows, if known.
    """

    units: tuple[Unit, ...]
    kept: frozenset[int]
    shard_sha256: dict[int, str]
    name: str = field(default_factory=lambda: uuid.uuid4().hex)
    source: str = ""


@dataclass(frozen=True)
class Record:
    """A unit that is done: the sha256 of each of its shard files, and the items without frames."""

    shard_sha256: dict[int, str]
    failed: dict[Item, str]  # reason by item


def save_plan(storage: Storage, plan: Plan) -> None:
    """Write the plan in one atomic step, and delete the records of earlier plans."""
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
        "source": plan.source,
        "kept": json.dumps(sorted(plan.kept)),
        "shard_sha256": json.dumps({str(shard): sha for shard, sha in plan.shard_sha256.items()}),
    }
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(columns).replace_schema_metadata(metadata), sink, write_page_checksum=True)
    storage.put(PLAN, sink.getvalue().to_pybytes())
    for name in {key.split("/")[1] for key in storage.sizes(UNITS)} - {plan.name}:
        storage.delete_tree(f"{UNITS}/{name}")


def load_plan(storage: Storage) -> Plan | None:
    """The plan of an unfinished store, or None. Raises NotReadable."""
    try:
        data = storage.read(PLAN)
    except FileNotFoundError:
        return None
    try:
        table = pq.read_table(pa.BufferReader(data), page_checksum_verification=True)
        metadata = table.schema.metadata
        name, source = metadata[b"name"].decode(), metadata.get(b"source", b"").decode()
        kept = frozenset(json.loads(metadata[b"kept"]))
        checksums = {int(shard): sha for shard, sha in json.loads(metadata[b"shard_sha256"]).items()}
        columns = {name: table.column(name).to_pylist() for name in table.column_names}
        numbers = np.asarray(columns["unit"], dtype=np.int64)
    except (pa.ArrowException, OSError, LookupError, TypeError, ValueError) as error:
        raise NotReadable(f"{storage}/{PLAN}: damaged ({error!r}); re-extract with --rebuild") from None
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
    return Plan(tuple(units), kept, checksums, name, source)


def plan_name(storage: Storage) -> str:
    """The name of the current plan, from the end of its file. FileNotFoundError if there is no plan."""
    with storage.open(PLAN) as file:
        return str(pq.read_schema(file).metadata[b"name"].decode())


def save_record(storage: Storage, plan: str, number: int, record: Record) -> None:
    """Mark a unit of the named plan as done, in one atomic step."""
    body = {
        "shard_sha256": {str(shard): sha for shard, sha in record.shard_sha256.items()},
        "failed": [[item.content_key, item.view, reason] for item, reason in record.failed.items()],
    }
    storage.put(f"{UNITS}/{plan}/{number:06d}.json", json.dumps(body).encode())


def load_records(storage: Storage, plan: Plan) -> dict[int, Record]:
    """Records of the units done since `plan` was made, by unit number; damaged ones do not count."""
    records = {}
    keys = [key for key in storage.sizes(f"{UNITS}/{plan.name}") if key.endswith(".json")]
    for key, data in storage.read_many(keys).items():
        try:
            body = json.loads(data)
            records[int(PurePosixPath(key).stem)] = Record(
                shard_sha256={int(shard): sha for shard, sha in body["shard_sha256"].items()},
                failed={Item(name, view): reason for name, view, reason in body["failed"]},
            )
        except (ValueError, LookupError):
            continue
    return records


def clear(storage: Storage) -> None:
    """Remove the plan and the records."""
    storage.delete(PLAN)
    storage.delete_tree(UNITS)
