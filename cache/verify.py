"""Whether a store is as its writer left it: every shard's checksum, and every row's place."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stillwave.cache import arrays, ledger
from stillwave.cache.errors import NotReadable
from stillwave.cache.layout import Spec
from stillwave.cache.ledger import Plan
from stillwave.cache.locks import lock
from stillwave.cache.places import open_storage
from stillwave.cache.writer import plan_of_index


@dataclass(frozen=True)
class Damage:
    """The findings of verify: `shards` whose bytes are wrong or missing, and all problems in words."""

    shards: tuple[int, ...]
    problems: tuple[str, ...]


def verify(path: str | Path) -> Damage:
    """Check a store against its own records; reads every byte. Raises StoreError if there are none."""
    storage = open_storage(path).resolve()
    attributes = arrays.read_attributes(storage)
    spec = Spec(**attributes["layout"])
    problems: list[str] = []
    if not attributes["complete"]:
        return Damage((), ("not complete: run the same `stillwave extract` again",))
    if not attributes.get("fingerprint"):
        problems.append("the fingerprint is missing: how these frames were made is unknown")
    try:
        index, checksums = arrays.read_index(storage)
        num_frames = arrays.frames_length(storage)
    except NotReadable as error:
        return Damage((), (*problems, str(error)))
    problems += _index_problems(index, len(checksums) * spec.shard_frames, num_frames)
    shards = []
    for shard, sha256 in enumerate(checksums.tolist()):
        if not sha256:
            continue
        key = arrays.shard_key(spec, shard)
        try:
            data = storage.read(key)
        except FileNotFoundError:
            problems.append(f"{storage}/{key}: missing")
        else:
            if hashlib.sha256(data).hexdigest() == sha256:
                continue
            problems.append(f"{storage}/{key}: checksum differs (sha256 of its {len(data)} bytes)")
        shards.append(shard)
    for row in np.flatnonzero(checksums[index.offsets // spec.shard_frames] == "") if not problems else ():
        problems.append(f"row {row} ({index.ids[row]}): is in a shard that was never written")
    return Damage(tuple(shards), tuple(problems))


def _index_problems(index: arrays.Index, capacity: int, num_frames: int) -> list[str]:
    sizes = {name: len(values) for name, values in index.arrays().items()}
    if len(set(sizes.values())) != 1:
        return [f"index arrays differ in length: {sizes}"]
    problems = []
    if (index.lengths < 1).any() or (index.offsets < 0).any():
        problems.append("index: a row with length < 1 or offset < 0")
    end = int((index.offsets + index.lengths).max(initial=0))
    if end > capacity or end != num_frames:
        problems.append(f"index: rows end at frame {end}, frames has {num_frames}, shards hold {capacity}")
    spans = np.unique(np.stack([index.offsets, index.lengths], axis=1), axis=0)
    if (spans[:-1].sum(axis=1) > spans[1:, 0]).any():
        problems.append("index: two rows overlap")
    return problems


def repair(path: str | Path) -> tuple[Damage, int]:
    """Verify, and mark the units of damaged shards as not done; the next extraction redoes only those.

    Returns what verify found, and how many distinct items are to be redone; the store is incomplete until
    then. A damaged index cannot be repaired: its problem says to re-extract with --rebuild.
    """
    storage = open_storage(path).resolve()
    arrays.read_attributes(storage)  # first, so that no lock is made next to a folder that is no store
    held = lock(storage)
    held.acquire()
    try:
        damage = verify(storage.path)
        if not damage.shards:
            return damage, 0
        plan = plan_of_index(storage, Spec(**arrays.read_attributes(storage)["layout"]))
        hurt = [
            unit
            for unit in plan.units
            if any(unit.first_shard <= shard < unit.first_shard + unit.num_shards for shard in damage.shards)
        ]
        kept = plan.kept - {unit.number for unit in hurt}
        ledger.save_plan(storage, Plan(plan.units, kept, plan.shard_sha256))
        arrays.set_complete(storage, "")
        return damage, sum(len(unit.items) for unit in hurt)
    finally:
        held.release()
