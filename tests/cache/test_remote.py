"""A store at a URL is the store that a folder holds, byte for byte, whatever happens to its writers."""

import multiprocessing
import os
import pickle
import random
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from stillwave.cache import (
    EmbeddingStore,
    FingerprintMismatch,
    IncompleteStore,
    Row,
    Spec,
    StoreError,
    StoreWriter,
    ledger,
    ranges,
    units,
    write_unit,
)
from stillwave.cache.compact import compact
from stillwave.cache.places import open_storage
from stillwave.cache.remote import RemotePrefix
from stillwave.cache.verify import repair, verify
from tests.cache.children import extract_slowly
from tests.cache.test_store import SPECS
from tests.fakes import (
    FINGERPRINT,
    SPEC,
    files_of,
    frames_of,
    row,
    unit_frames,
    write_store,
)

ROWS = [row(f"r{i}", length) for i, length in enumerate((3, 33, 16, 1, 14, 9))]


class Killed(Exception):
    pass


def assert_holds(url: str, rows: list[Row], spec: Spec = SPEC) -> None:
    store = EmbeddingStore(url)
    assert list(store.ids) == [r.id for r in rows]
    for i, values in store.each(range(len(rows))):
        np.testing.assert_array_equal(values, frames_of(rows[i].item, rows[i].length, spec))
    assert verify(url).problems == ()


@pytest.mark.parametrize(
    ("remote", "kind"),
    [*(("memory", kind) for kind in SPECS), ("s3", "plain"), ("s3", "zstd")],
    indirect=["remote"],
)
def test_a_remote_store_has_the_bytes_and_the_rows_of_a_local_one(
    remote: str, tmp_path: Path, kind: str
) -> None:
    spec, url, local = SPECS[kind], f"{remote}/a.zarr", tmp_path / "a.zarr"
    write_store(url, ROWS, spec)
    write_store(local, ROWS, spec)
    assert files_of(url) == files_of(local)
    store, same = EmbeddingStore(url), EmbeddingStore(local)
    for i in (0, 3, -1):
        np.testing.assert_array_equal(store[i], same[i])
    for ours, theirs in zip(store.batch([5, 1, 5]), same.batch([5, 1, 5]), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    for number in (None, [4, 2]):
        assert torch.equal(store.resident(rows=number).values, same.resident(rows=number).values)
    np.testing.assert_array_equal(store.to_dask(30).compute(), same.to_dask(30).compute())
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(store))[2], same[2])


def test_a_remote_store_is_updated_as_a_local_one(remote: str, tmp_path: Path) -> None:
    url, local = f"{remote}/a.zarr", tmp_path / "a.zarr"
    for rows in (ROWS, ROWS[::2], [*ROWS[::2], row("new", 30)], ROWS[:1]):
        units = write_store(url, rows)
        assert units == write_store(local, rows)
        assert files_of(url) == files_of(local)
        assert write_store(url, rows) == []
    assert_holds(url, ROWS[:1])
    assert open_storage(remote).sizes().keys() == {
        f"a.zarr/{key}" for key in files_of(url)
    }  # no lock is left


def test_damage_is_found_and_only_its_unit_is_redone(remote: str) -> None:
    url = f"{remote}/a.zarr"
    units = write_store(url, ROWS)
    sound, storage = files_of(url), open_storage(url)
    data = bytearray(storage.read("frames/c/2/0"))
    data[5] ^= 1
    storage.put("frames/c/2/0", bytes(data))
    hurt = next(unit for unit in units if unit.first_shard <= 2 < unit.first_shard + unit.num_shards)
    damage, redo = repair(url)
    assert damage.shards == (2,)
    assert f"{url}/frames/c/2/0: checksum differs" in damage.problems[0]
    assert redo == len(hurt.items)
    with pytest.raises(IncompleteStore):
        EmbeddingStore(url)
    assert [unit.number for unit in write_store(url, ROWS)] == [hurt.number]
    assert files_of(url) == sound


def test_a_truncated_or_missing_shard_is_noticed(remote: str) -> None:
    url = f"{remote}/a.zarr"
    write_store(url, ROWS)
    storage = open_storage(url)
    data = storage.read("frames/c/0/0")
    storage.put("frames/c/0/0", data[:-10])
    with pytest.raises(StoreError, match=rf"{url}/frames/c/0/0: not laid out .*truncated"):
        EmbeddingStore(url).resident()
    rewritten = data[: -16 * 4 - 4] + bytes(8) * 8 + data[-4:]  # an index of the right size that says nothing
    storage.put("frames/c/0/0", rewritten)
    with pytest.raises(StoreError, match="rewritten by another tool"):
        EmbeddingStore(url).resident()
    storage.delete("frames/c/0/0")
    with pytest.raises(StoreError, match=r"shard 0 is missing.*--repair"):
        EmbeddingStore(url)


def test_an_open_reader_never_serves_frames_of_another_layout(remote: str) -> None:
    url = f"{remote}/a.zarr"
    write_store(url, ROWS)
    store, sent = EmbeddingStore(url), pickle.dumps(EmbeddingStore(url))
    store[0]
    write_store(url, ROWS[::2])
    for read in (lambda: store[0], lambda: store.batch([0, 1]), store.resident):
        with pytest.raises(StoreError, match="has changed since it was opened"):
            read()
    with pytest.raises(StoreError, match="has changed since it was sent"):
        pickle.loads(sent)


def test_neighbouring_rows_share_a_request(remote: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Resident reads each shard's frames by one request, beside the one for its index."""
    url = f"{remote}/a.zarr"
    rows = [row(f"r{i:02d}", 1 + i % 8) for i in range(24)]
    write_store(url, rows)
    requests: list[tuple[str, int, int]] = []
    real = RemotePrefix.read_ranges

    def counted(self: RemotePrefix, wanted: list[tuple[str, int, int]]) -> list[bytes]:
        requests.extend(wanted)
        return real(self, wanted)

    monkeypatch.setattr(RemotePrefix, "read_ranges", counted)
    store = EmbeddingStore(url)
    store.resident()
    shards = np.flatnonzero(store.shard_sha256 != "")
    assert len(requests) == 2 * len(shards) < len(store)
    requests.clear()
    store.resident()
    assert len(requests) == len(shards)
    assert sum(stop - start for _, start, stop in requests) == int(store.lengths.sum()) * SPEC.frame_bytes
    monkeypatch.setattr(ranges, "MAX_RANGE_BYTES", SPEC.frame_bytes)
    requests.clear()
    store.resident()
    assert len(requests) >= len(store)
    monkeypatch.setattr("stillwave.cache.store.MAX_GROUP_BYTES", 100)
    assert_holds(url, rows)


def test_compact_names_the_remedy(remote: str) -> None:
    write_store(f"{remote}/a.zarr", ROWS)
    with pytest.raises(StoreError, match="compact works on a local folder; copy the store down"):
        compact(f"{remote}/a.zarr")


def test_what_is_not_a_store_is_never_removed(remote: str) -> None:
    open_storage(f"{remote}/a.zarr").put("thesis.txt", b"four years of work")
    with pytest.raises(StoreError, match="not empty"):
        write_store(f"{remote}/a.zarr", ROWS, rebuild=True)
    assert files_of(f"{remote}/a.zarr") == {"thesis.txt": b"four years of work"}


def kill_at(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """Raise Killed instead of the `step`-th change to the store, and of every later one."""
    count = 0

    def guard(real: Callable[..., Any]) -> Callable[..., Any]:
        def guarded(storage: RemotePrefix, *arguments: Any) -> Any:
            nonlocal count
            count += 1
            if count >= step and storage.path.endswith(".zarr"):  # not its lock
                raise Killed
            return real(storage, *arguments)

        return guarded

    for name in ("put", "delete"):
        monkeypatch.setattr(RemotePrefix, name, guard(getattr(RemotePrefix, name)))

    def delete_all(storage: RemotePrefix, keys: Any) -> None:
        for key in list(keys):  # a bulk deletion may end anywhere
            RemotePrefix.delete(storage, key)

    monkeypatch.setattr(RemotePrefix, "_delete_all", delete_all)


FEW = [row("a", 3), row("b", 15), row("c", 16)]
OTHER = FINGERPRINT | {"weights": "xyz"}


@pytest.mark.parametrize(
    ("killed", "then", "options"),
    [
        ("removal", FEW, {}),
        ("removal", FEW[::2], {}),
        ("rebuild", FEW, {}),
        ("rebuild", FEW, {"fingerprint": OTHER, "rebuild": True}),
    ],
    ids=["removal, all back", "removal", "rebuild, the old one back", "rebuild"],
)
def test_killed_at_any_step_nothing_is_lost(
    killed: str, then: list[Row], options: dict[str, Any], tmp_path: Path
) -> None:
    write_store(tmp_path / "sound.zarr", FEW)
    sound, finished, step = files_of(tmp_path / "sound.zarr"), False, 0
    while not finished:
        step += 1
        url = f"memory://{tmp_path.name}/{step}.zarr"
        for key, data in sound.items():
            open_storage(url).put(key, data)
        with pytest.MonkeyPatch.context() as patch, suppress(Killed):
            kill_at(patch, step)
            if killed == "removal":
                write_store(url, FEW[::2])
            else:
                write_store(url, FEW, fingerprint=OTHER, rebuild=True)
            finished = True
        with suppress(StoreError):  # a reader sees a whole store, or is told that there is none
            seen = EmbeddingStore(url).ids.tolist()
            assert seen in (["a", "b", "c"], ["a", "c"])
            assert_holds(url, [r for r in FEW if r.id in seen])
        try:
            write_store(url, then, **options)
        except FingerprintMismatch:
            assert killed == "rebuild"
            write_store(url, then, rebuild=True)
        assert_holds(url, then)
    assert step > 20


def test_a_unit_written_twice_at_a_time_is_the_unit(remote: str, tmp_path: Path) -> None:
    url, local = f"{remote}/a.zarr", tmp_path / "a.zarr"
    write_store(local, ROWS)
    with StoreWriter(url, SPEC, FINGERPRINT) as writer:
        for unit in writer.plan(ROWS):
            pieces = unit_frames(unit, SPEC)

            def slow(unit: Any = unit, pieces: Any = pieces) -> Any:
                yield next(pieces)
                write_unit(url, SPEC, unit, unit_frames(unit, SPEC))  # the retry, while this one still lives
                yield from pieces

            write_unit(url, SPEC, unit, slow())
        writer.finish()
    assert files_of(url) == files_of(local)


def test_a_unit_of_a_plan_that_was_replaced_is_not_kept(place: str) -> None:
    """A worker outlives its coordinator, and the next one has planned other rows where it writes."""
    url = f"{place}/a.zarr"
    with StoreWriter(url, SPEC, FINGERPRINT) as writer:
        unit = writer.plan(ROWS)[0]
    with StoreWriter(url, SPEC, FINGERPRINT) as writer:
        (other, *_) = writer.plan(ROWS[1::2])
        late = unit_frames(unit, SPEC)

        def replanned() -> Any:
            yield next(late)
            ledger.save_plan(open_storage(url), ledger.Plan((other,), frozenset(), {}))
            yield from late

        with pytest.raises(StoreError, match="another run replanned the store while unit 0 was computed"):
            write_unit(url, SPEC, unit, replanned())
        plan = ledger.load_plan(open_storage(url))
        assert plan is not None
        assert ledger.load_records(open_storage(url), plan) == {}
        assert open_storage(url).sizes("frames/c") == {}


def test_a_plan_that_is_replaced_while_a_unit_is_put_gets_no_record_of_it(
    place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The shards are there when the plan changes: without another look, the unit would be called done."""
    url = f"{place}/a.zarr"
    with StoreWriter(url, SPEC, FINGERPRINT) as writer:
        unit = writer.plan(ROWS)[0]
        plan = ledger.load_plan(open_storage(url))
        assert plan is not None
        put = units._put_shards

        def put_and_replan(*arguments: Any) -> dict[int, str]:
            checksums = put(*arguments)
            ledger.save_plan(open_storage(url), ledger.Plan(plan.units[1:], frozenset(), {}))
            return checksums

        monkeypatch.setattr(units, "_put_shards", put_and_replan)
        with pytest.raises(StoreError, match="another run replanned the store while unit 0 was computed"):
            write_unit(url, SPEC, unit, unit_frames(unit, SPEC))
        there = ledger.load_plan(open_storage(url))
        assert there is not None
        assert ledger.load_records(open_storage(url), there) == {}
        assert ledger.load_records(open_storage(url), plan) == {}


LEASE_S = (0.2, 2.0)  # S3 tells times in whole seconds: an age may be one too high


def records(url: str) -> set[int]:
    plan = ledger.load_plan(open_storage(url))
    return set() if plan is None else set(ledger.load_records(open_storage(url), plan)) | plan.kept


@pytest.mark.usefixtures("quick_lease")
def test_a_worker_killed_on_s3_loses_only_its_unit(
    bucket: str, s3_server: dict[str, str], tmp_path: Path
) -> None:
    """Two coordinators in a row get SIGKILL; the third ends with the bytes of an undisturbed local store."""
    rows = [row(f"r{i:02d}", 9 + i % 8) for i in range(10)]  # each a unit of its own
    url, context = f"{bucket}/a.zarr", multiprocessing.get_context("spawn")
    total = write_store(tmp_path / "a.zarr", rows)
    chance, done = random.Random(7), set[int]()
    for _ in range(2):
        child = context.Process(target=extract_slowly, args=(url, rows, 0.05, s3_server, LEASE_S))
        child.start()
        wanted, deadline = len(done) + chance.randint(1, 2), time.monotonic() + 40
        while len(records(url)) < wanted:
            assert child.is_alive()
            assert time.monotonic() < deadline
            time.sleep(0.01)
        time.sleep(chance.uniform(0, 0.1))
        assert child.pid is not None
        os.kill(child.pid, signal.SIGKILL)
        child.join()
        assert child.exitcode == -signal.SIGKILL
        done, before = records(url), done
        assert before <= done
        assert len(done) < len(total)
    time.sleep(LEASE_S[1] + 1)
    left = write_store(url, rows)
    assert {unit.number for unit in left} == {unit.number for unit in total} - done
    assert files_of(url) == files_of(tmp_path / "a.zarr")
    assert open_storage(bucket).sizes().keys() == {f"a.zarr/{key}" for key in files_of(url)}
