"""A disk that is full, a place that cannot be written: the message says so, and the next run resumes."""

import errno
import itertools
import multiprocessing
import os
import re
from pathlib import Path

import pytest

from stillwave.cache import IncompleteStore, Spec, StoreError, StoreWriter
from stillwave.cache.store import EmbeddingStore
from tests.cache.children import write_in_a_small_space
from tests.fakes import FINGERPRINT, SPEC, files_of, row, write_store

ROWS = [row(f"r{i:02d}", 1 + (11 * i) % 40) for i in range(12)]
REMEDY = r"cannot be written .*make room, or give another path, then run the same command again"


def test_a_shard_that_does_not_fit_is_named_and_the_next_run_completes_the_store(tmp_path: Path) -> None:
    path, spec = tmp_path / "a.zarr", Spec(dim=512, chunk_frames=4, shard_frames=64)
    total = write_store(tmp_path / "whole.zarr", ROWS, spec)
    receive, send = multiprocessing.Pipe(duplex=False)
    child = multiprocessing.get_context("spawn").Process(
        target=write_in_a_small_space, args=(str(path), ROWS, spec, 30_000, send)
    )
    child.start()
    assert receive.poll(60)
    message = receive.recv()
    child.join()
    shard = re.escape(str(path / f"frames/c/{total[1].first_shard}/0"))
    assert re.match(rf"{shard}: cannot be written \(File too large\); {REMEDY[19:]}", message)
    assert not list(path.rglob("*.partial"))
    with pytest.raises(IncompleteStore):
        EmbeddingStore(path)
    assert write_store(path, ROWS, spec) == total[1:]
    assert files_of(path) == files_of(tmp_path / "whole.zarr")


def test_a_full_disk_at_any_moment_costs_no_unit_that_was_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Run again and again, with room for three files more each time, until the store is complete."""
    path, fsync, left = tmp_path / "a.zarr", os.fsync, 10_000
    total = write_store(tmp_path / "whole.zarr", ROWS)

    def fsync_where_room_is_left(descriptor: int) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", fsync_where_room_is_left)
    messages: list[str] = []
    for room in itertools.count(0, 3):
        left = room
        try:
            last = write_store(path, ROWS)
        except StoreError as error:
            messages.append(str(error))
        else:
            break
    assert len(messages) > 4
    for message in messages:
        assert re.match(rf"{path}/.*{REMEDY}", message)
        assert "No space left on device" in message
    assert len(last) < len(total)
    assert files_of(path) == files_of(tmp_path / "whole.zarr")


@pytest.mark.parametrize("where", ["no such device", "below a file", "a folder without the right to write"])
def test_a_place_that_cannot_be_written_is_named_before_anything_runs(where: str, tmp_path: Path) -> None:
    if where == "no such device":
        path = Path("/proc/stillwave/a.zarr")  # not even root may make a folder there
    elif where == "below a file":
        (tmp_path / "file").write_text("")
        path = tmp_path / "file" / "a.zarr"
    else:
        if os.geteuid() == 0:
            pytest.skip("root may write everywhere")
        path = tmp_path / "a.zarr"
        tmp_path.chmod(0o500)
    try:
        with pytest.raises(StoreError, match=rf"{path}.lock: {REMEDY}"), StoreWriter(path, SPEC, FINGERPRINT):
            pytest.fail("the lock was taken")
    finally:
        tmp_path.chmod(0o700)
