"""verify, repair and compact."""

import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest

from stillwave.cache import EmbeddingStore, IncompleteStore, NotReadable, StoreError, StoreLocked, StoreWriter
from stillwave.cache.compact import compact
from stillwave.cache.folders import beside
from stillwave.cache.verify import repair, verify
from tests.fakes import FINGERPRINT, SPEC, files_of, frames_of, row, write_store

ROWS = [row(f"r{i:02d}", 1 + (7 * i) % 20) for i in range(24)]


def test_a_sound_store_has_no_damage(tmp_path: Path) -> None:
    write_store(tmp_path / "a.zarr", ROWS)
    assert verify(tmp_path / "a.zarr").problems == ()


@pytest.mark.parametrize("position", [0, 20, -1])
def test_one_flipped_bit_is_found_and_only_its_unit_is_redone(tmp_path: Path, position: int) -> None:
    path = tmp_path / "a.zarr"
    units = write_store(path, ROWS)
    sound = files_of(path)
    shard = path / "frames/c/2/0"
    data = bytearray(shard.read_bytes())
    data[position] ^= 1
    shard.write_bytes(bytes(data))
    damage = verify(path)
    assert damage.shards == (2,)
    assert "c/2/0: checksum differs" in damage.problems[0]
    hurt = next(unit for unit in units if unit.first_shard <= 2 < unit.first_shard + unit.num_shards)
    assert repair(path) == (damage, len(hurt.items))
    with pytest.raises(IncompleteStore):
        EmbeddingStore(path)
    assert [unit.number for unit in write_store(path, ROWS)] == [hurt.number]
    assert files_of(path) == sound


def test_a_missing_shard_is_found(tmp_path: Path) -> None:
    path = tmp_path / "a.zarr"
    write_store(path, ROWS)
    shutil.rmtree(path / "frames/c/1")
    assert verify(path).shards == (1,)


def test_an_unfinished_store_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "a.zarr"
    write_store(path, ROWS)
    (path / "zarr.json").write_text(
        (path / "zarr.json").read_text().replace('"complete": true', '"complete": false')
    )
    assert "not complete" in verify(path).problems[0]


def test_compact_gives_the_layout_of_a_fresh_extraction(tmp_path: Path) -> None:
    path, kept = tmp_path / "a.zarr", [r for i, r in enumerate(ROWS) if i % 3]
    write_store(path, ROWS)
    for stop in range(4, len(kept) + 1, 4):
        write_store(path, kept[:stop])
    assert compact(path) > 0
    write_store(tmp_path / "fresh.zarr", kept)
    assert files_of(path) == files_of(tmp_path / "fresh.zarr")
    assert compact(path) == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "a.zarr",
        "a.zarr.lock",
        "fresh.zarr",
        "fresh.zarr.lock",
    ]


@pytest.mark.parametrize("moment", ["copying", "between the renames", "before the old is gone"])
def test_a_killed_compaction_loses_nothing(tmp_path: Path, moment: str) -> None:
    path, kept = tmp_path / "a.zarr", ROWS[::2]
    write_store(path, ROWS)
    write_store(path, kept)
    copy, old = beside(path, "new"), beside(path, "old")
    write_store(copy, kept if moment != "copying" else kept[:3])
    if moment == "between the renames":
        path.rename(old)
        with pytest.raises(IncompleteStore, match="stillwave compact"):
            EmbeddingStore(path)
    elif moment == "before the old is gone":
        path.rename(old)
        copy.rename(path)
    compact(path)
    store = EmbeddingStore(path)
    for i, r in enumerate(kept):
        np.testing.assert_array_equal(store[i], frames_of(r.item, r.length, SPEC))
    assert not old.exists()
    assert not copy.exists()


def test_a_copy_that_a_user_made_is_left_alone(tmp_path: Path) -> None:
    path, backup = tmp_path / "a.zarr", tmp_path / "a.zarr.old"
    write_store(path, ROWS)
    shutil.copytree(path, backup)
    write_store(path, ROWS[::2])
    compact(path)
    assert len(EmbeddingStore(backup)) == len(ROWS)


@pytest.mark.parametrize("name", ["ids", "view", "content_key", "offsets", "lengths", "unit", "shard_sha256"])
@pytest.mark.parametrize("damage", ["flipped bit", "lost chunk", "lost array"])
def test_a_damaged_index_is_noticed_by_readers_and_by_verify(tmp_path: Path, name: str, damage: str) -> None:
    path = tmp_path / "a.zarr"
    write_store(path, ROWS)
    chunk = path / name / "c/0"
    if damage == "lost chunk" and name == "view":
        pytest.skip("all views are 0 here, which is what Zarr reads where there is no chunk")
    if damage == "flipped bit":
        data = bytearray(chunk.read_bytes())
        data[len(data) // 2] ^= 1
        chunk.write_bytes(bytes(data))
    else:
        shutil.rmtree(path / name / ("c" if damage == "lost chunk" else ""))
    with pytest.raises(NotReadable, match="--rebuild"):
        EmbeddingStore(path)
    assert "--rebuild" in verify(path).problems[0]
    with pytest.raises(NotReadable):
        write_store(path, ROWS)
    write_store(path, ROWS, rebuild=True)
    assert verify(path).problems == ()


def test_compact_refuses_what_is_damaged(tmp_path: Path) -> None:
    path = tmp_path / "a.zarr"
    write_store(path, ROWS)
    write_store(path, ROWS[::2])
    shard = next((path / "frames/c").glob("*/0"))
    shard.write_bytes(shard.read_bytes()[:-1] + b"?")
    with pytest.raises(StoreError, match=r"checksum differs.*--repair"):
        compact(path)


def test_an_open_reader_never_serves_frames_of_another_layout(tmp_path: Path) -> None:
    path = tmp_path / "a.zarr"
    write_store(path, ROWS)
    write_store(path, ROWS[::2])
    store, sent = EmbeddingStore(path), pickle.dumps(EmbeddingStore(path))
    compact(path)
    with pytest.raises(StoreError, match="has changed since it was opened"):
        store[0]
    with pytest.raises(StoreError, match="has changed since it was sent"):
        pickle.loads(sent)
    assert len(EmbeddingStore(path)) == len(ROWS[::2])


def test_a_linked_store_has_one_lock_and_stays_linked(tmp_path: Path) -> None:
    real, link = tmp_path / "disk/a.zarr", tmp_path / "a.zarr"
    write_store(real, ROWS)
    link.symlink_to(real)
    write_store(link, ROWS[::2])
    with StoreWriter(real, SPEC, FINGERPRINT), pytest.raises(StoreLocked):
        write_store(link, ROWS)
    compact(link)
    assert link.is_symlink()
    assert len(EmbeddingStore(link)) == len(ROWS[::2])
