import os
import random
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stillwave.cache import (
    EmbeddingStore,
    FingerprintMismatch,
    Item,
    Row,
    Spec,
    StoreError,
    StoreLocked,
    StoreWriter,
    Unit,
    ledger,
    write_unit,
)
from stillwave.cache.errors import NotReadable
from stillwave.cache.places import open_storage
from stillwave.cache.verify import verify
from tests.fakes import FINGERPRINT, SPEC, files_of, frames_of, row, unit_frames, write_store

ROWS = [row(f"r{i:02d}", 1 + (7 * i) % 20) for i in range(24)]


class Killed(Exception):
    pass


def stamps(path: Path) -> dict[str, int]:
    return {str(f.relative_to(path)): f.stat().st_mtime_ns for f in path.rglob("*") if f.is_file()}


def extract_killed_after(path: Path, steps: int) -> None:
    """Write ROWS and stop after `steps` units, as a kill would leave it: nothing is cleaned up."""
    with StoreWriter(path, SPEC, FINGERPRINT) as writer:
        for step, unit in enumerate(writer.plan(ROWS)):
            if step == steps:
                raise Killed
            write_unit(path, SPEC, unit, unit_frames(unit, SPEC))


def test_equal_inputs_give_byte_identical_stores(tmp_path: Path) -> None:
    write_store(tmp_path / "a.zarr", ROWS)
    write_store(tmp_path / "b.zarr", ROWS)
    assert files_of(tmp_path / "a.zarr") == files_of(tmp_path / "b.zarr")


@pytest.mark.parametrize("steps", [0, 1, 5, 10])
def test_a_resumed_store_equals_an_uninterrupted_one(tmp_path: Path, steps: int) -> None:
    total = write_store(tmp_path / "whole.zarr", ROWS)
    with pytest.raises(Killed):
        extract_killed_after(tmp_path / "a.zarr", steps)
    (tmp_path / "a.zarr/frames/c/9/0").parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / "a.zarr/frames/c/9/0.0123.partial").write_bytes(b"torn")  # a kill within a write
    redone = write_store(tmp_path / "a.zarr", ROWS)
    assert len(redone) == len(total) - steps
    assert files_of(tmp_path / "a.zarr") == files_of(tmp_path / "whole.zarr")


def test_nothing_to_do_touches_nothing(tmp_path: Path) -> None:
    write_store(tmp_path / "a.zarr", ROWS)
    before = stamps(tmp_path / "a.zarr")
    assert write_store(tmp_path / "a.zarr", ROWS) == []
    assert stamps(tmp_path / "a.zarr") == before


def test_added_rows_get_units_of_their_own_and_old_shards_are_untouched(tmp_path: Path) -> None:
    path = tmp_path / "a.zarr"
    write_store(path, ROWS)
    old = {name: stamp for name, stamp in stamps(path).items() if name.startswith("frames/c")}
    added = write_store(path, [*ROWS, row("new", 3)])
    assert [unit.items for unit in added] == [(Item("key-new", 0),)]
    assert {name: stamps(path)[name] for name in old} == old
    store = EmbeddingStore(path)
    for i, r in enumerate([*ROWS, row("new", 3)]):
        np.testing.assert_array_equal(store[i], frames_of(r.item, r.length, SPEC))


def test_removed_rows_leave_the_index_and_changed_rows_are_redone(tmp_path: Path) -> None:
    path = tmp_path / "a.zarr"
    write_store(path, ROWS)
    changed = [*ROWS[:3], row("r03", 4, key="other bytes"), *ROWS[5:]]
    redone = write_store(path, changed)
    assert [item.content_key for unit in redone for item in unit.items] == ["other bytes"]
    store = EmbeddingStore(path)
    assert list(store.ids) == [r.id for r in changed]
    for i, r in enumerate(changed):
        np.testing.assert_array_equal(store[i], frames_of(r.item, r.length, SPEC))


def test_reordered_rows_need_no_frames(tmp_path: Path) -> None:
    write_store(tmp_path / "a.zarr", ROWS)
    assert write_store(tmp_path / "a.zarr", ROWS[::-1]) == []
    assert list(EmbeddingStore(tmp_path / "a.zarr").ids) == [r.id for r in ROWS[::-1]]


def kill_at(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """Raise Killed instead of the `step`-th change to the file system, and of every later one."""
    count = 0

    def guard(real: Callable[..., Any]) -> Callable[..., Any]:
        def guarded(*arguments: Any, **options: Any) -> Any:
            nonlocal count
            count += 1
            if count >= step:
                raise Killed
            return real(*arguments, **options)

        return guarded

    for owner, names in (
        (Path, ("replace", "rename", "unlink", "mkdir")),
        (shutil, ("rmtree",)),
        (os, ("fsync",)),
    ):
        for name in names:
            monkeypatch.setattr(owner, name, guard(getattr(owner, name)))


def write_some_failing(path: Path, rows: list[Row], failing: set[Item]) -> None:
    with StoreWriter(path, SPEC, FINGERPRINT) as writer:
        for unit in writer.plan(rows):
            pieces = unit_frames(unit, SPEC)
            write_unit(path, SPEC, unit, ((i, "missing: gone" if i in failing else f) for i, f in pieces))
        writer.finish()


@settings(max_examples=60, deadline=None)
@given(
    wanted=st.lists(st.sets(st.integers(0, 11), min_size=1), min_size=1, max_size=5),
    failing=st.lists(st.sets(st.integers(0, 11), max_size=4), min_size=5, max_size=5),
    kills=st.lists(st.integers(1, 60), min_size=5, max_size=5),
)
def test_any_history_of_edits_failures_and_kills_ends_with_the_right_frames(
    tmp_path_factory: pytest.TempPathFactory,
    wanted: list[set[int]],
    failing: list[set[int]],
    kills: list[int],
) -> None:
    path = tmp_path_factory.mktemp("history") / "a.zarr"
    for numbers, bad, kill in zip(wanted, failing, kills, strict=False):
        rows = [row(f"r{i}", 1 + (5 * i) % 23) for i in sorted(numbers)]
        with pytest.MonkeyPatch.context() as patch, suppress(Killed):
            kill_at(patch, kill)
            write_some_failing(path, rows, {row(f"r{i}", 1).item for i in bad})
    write_store(path, rows)
    store = EmbeddingStore(path)
    assert list(store.ids) == [r.id for r in rows]
    for i, r in enumerate(rows):
        np.testing.assert_array_equal(store[i], frames_of(r.item, r.length, SPEC))
    assert verify(path).problems == ()


FEW = ROWS[:6]


@pytest.mark.parametrize("then", [FEW, FEW[::2], [*FEW, row("new", 30)]], ids=["back", "same", "more"])
def test_killed_at_any_step_of_a_removal_nothing_is_lost(tmp_path: Path, then: list[Row]) -> None:
    """The next call may want the removed rows back: what was deleted must not count as stored."""
    write_store(tmp_path / "whole.zarr", FEW)
    finished, step = False, 0
    while not finished:
        step += 1
        path = tmp_path / f"{step}.zarr"
        shutil.copytree(tmp_path / "whole.zarr", path)
        with pytest.MonkeyPatch.context() as patch, suppress(Killed):
            kill_at(patch, step)
            write_store(path, FEW[::2])
            finished = True
        write_store(path, then)
        store = EmbeddingStore(path)
        for i, r in enumerate(then):
            np.testing.assert_array_equal(store[i], frames_of(r.item, r.length, SPEC))
        assert verify(path).problems == ()
        shutil.rmtree(path)
    assert step > 20


def test_another_length_under_an_equal_key_is_extracted_again(tmp_path: Path) -> None:
    path = tmp_path / "a.zarr"
    write_store(path, ROWS)
    longer = [row("r00", 9), *ROWS[1:]]
    assert [unit.lengths for unit in write_store(path, longer)] == [(9,)]
    np.testing.assert_array_equal(EmbeddingStore(path)[0], frames_of(longer[0].item, 9, SPEC))


def test_another_fingerprint_is_named_and_never_mixed(tmp_path: Path) -> None:
    path = tmp_path / "a.zarr"
    write_store(path, ROWS)
    before = stamps(path)
    other = FINGERPRINT | {"config": {"layers": "all"}, "weights": "xyz"}
    with pytest.raises(
        FingerprintMismatch, match=r"config.layers: stored 'last', now 'all'; weights: .*--rebuild"
    ):
        write_store(path, ROWS, fingerprint=other)
    with pytest.raises(FingerprintMismatch, match=r"layout.dtype: stored 'float16', now 'float32'"):
        write_store(path, ROWS, Spec(dim=3, dtype="float32", chunk_frames=4, shard_frames=16))
    assert stamps(path) == before
    rebuilt = write_store(path, ROWS, fingerprint=other, rebuild=True)
    assert sum(len(unit.items) for unit in rebuilt) == len(ROWS)
    assert EmbeddingStore(path).fingerprint == other


def test_two_coordinators_cannot_write_at_once(tmp_path: Path) -> None:
    with (
        StoreWriter(tmp_path / "a.zarr", SPEC, FINGERPRINT),
        pytest.raises(StoreLocked, match="another process"),
    ):
        write_store(tmp_path / "a.zarr", ROWS)
    write_store(tmp_path / "a.zarr", ROWS)


@pytest.mark.parametrize(
    ("bad", "reason"),
    [(np.nan, "non_finite"), (np.inf, "non_finite"), (1e5, "overflow.*storage_dtype: float32")],
)
def test_frames_that_cannot_be_stored_are_left_out_by_name_and_tried_again(
    tmp_path: Path, bad: float, reason: str
) -> None:
    path, culprit = tmp_path / "a.zarr", ROWS[5].item

    def frames(unit: Unit) -> Iterator[tuple[Item, np.ndarray]]:
        for item, values in unit_frames(unit, SPEC):
            yield item, np.full(values.shape, bad, dtype=np.float32) if item == culprit else values

    with StoreWriter(path, SPEC, FINGERPRINT) as writer:
        for unit in writer.plan(ROWS):
            write_unit(path, SPEC, unit, frames(unit))
        failed = writer.finish()
    assert list(failed) == [culprit]
    assert re.search(reason, failed[culprit])
    store = EmbeddingStore(path)
    assert "r05" not in store.ids.tolist()
    assert len(store) == len(ROWS) - 1
    for i, r in enumerate(r for r in ROWS if r.item != culprit):
        np.testing.assert_array_equal(store[i], frames_of(r.item, r.length, SPEC))
    again = write_store(path, ROWS)
    assert [unit.items for unit in again] == [(culprit,)]
    assert len(EmbeddingStore(path)) == len(ROWS)


def test_frames_of_another_length_than_planned_are_an_error(tmp_path: Path) -> None:
    with StoreWriter(tmp_path / "a.zarr", SPEC, FINGERPRINT) as writer:
        (unit,) = writer.plan([row("a", 5)])
        with pytest.raises(ValueError, match=r"shape \(4, 3\), planned \(5, 3\)"):
            write_unit(tmp_path / "a.zarr", SPEC, unit, [(unit.items[0], np.zeros((4, 3)))])


def test_a_folder_of_somebody_else_is_never_removed(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("four years of work")
    with pytest.raises(StoreError, match="not empty"):
        write_store(tmp_path, ROWS, rebuild=True)
    assert (tmp_path / "thesis.txt").exists()


def test_damaged_metadata_is_rebuilt_only_on_request(tmp_path: Path) -> None:
    path = tmp_path / "a.zarr"
    write_store(path, ROWS)
    (path / "zarr.json").write_text("{")
    with pytest.raises(StoreError, match=r"zarr.json is damaged.*--rebuild"):
        write_store(path, ROWS)
    assert write_store(path, ROWS, rebuild=True)


def test_duplicate_ids_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"'a' .* occurs twice"):
        write_store(tmp_path / "a.zarr", [row("a", 2), row("a", 2)])


def test_dead_shards_are_removed_and_their_space_is_used_again(tmp_path: Path) -> None:
    path = tmp_path / "a.zarr"
    write_store(path, [row("a", 10), row("b", 12), row("c", 14)])
    write_store(path, [row("a", 10)])
    assert sorted(p.name for p in (path / "frames/c").iterdir()) == ["0"]
    write_store(path, [row("a", 10), row("d", 3)])
    assert sorted(p.name for p in (path / "frames/c").iterdir()) == ["0", "1"]


def test_an_unfinished_store_tells_that_its_manifest_changed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "a.zarr"
    for source, warned in (("1" * 64, False), ("1" * 64, False), ("2" * 64, True), ("", False)):
        caplog.clear()
        with StoreWriter(path, SPEC, FINGERPRINT) as writer:
            writer.plan(ROWS, source)
        assert ("another manifest (sha256 111111111111, now 222222222222)" in caplog.text) == warned
        assert ledger.load_plan(open_storage(path)).source == source  # type: ignore[union-attr]


def test_a_damaged_plan_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.zarr"
    with StoreWriter(path, SPEC, FINGERPRINT) as writer:
        writer.plan(ROWS, "1" * 64)
    plan, draw = path / ledger.PLAN, random.Random(0)
    good, refused = plan.read_bytes(), 0
    whole = ledger.load_plan(open_storage(path))

    def read() -> object:
        try:
            return ledger.load_plan(open_storage(path))
        except NotReadable as error:
            return str(error)

    for place in range(4, len(good) // 3, 11):  # the pages; of the footer, Parquet has no checksum
        bad = bytearray(good)
        bad[place] ^= 1 << draw.randrange(8)
        plan.write_bytes(bad)
        found = read()
        refused += isinstance(found, str)
        assert found == whole or f"{ledger.PLAN}: damaged" in str(found), f"byte {place}"
    assert refused > 10
