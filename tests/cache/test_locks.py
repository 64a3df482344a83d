"""One writer at a time, and what becomes of a writer that is gone or was cut off."""

import json
import threading
import time
from pathlib import Path

import pytest

from stillwave.cache import EmbeddingStore, StoreLocked, StoreWriter, locks, write_unit
from stillwave.cache.locks import Lease
from stillwave.cache.places import open_storage
from stillwave.cache.remote import RemotePrefix
from tests.fakes import FINGERPRINT, SPEC, row, unit_frames, write_store

ROWS = [row("a", 5), row("b", 20)]


def test_two_coordinators_cannot_write_at_once(place: str) -> None:
    url = f"{place}/a.zarr"
    with (
        StoreWriter(url, SPEC, FINGERPRINT),
        pytest.raises(StoreLocked, match=r"another process.*a.zarr.lock"),
    ):
        write_store(url, ROWS)
    assert write_store(url, ROWS)


def test_the_holder_of_a_lease_and_the_remedy_are_named(remote: str) -> None:
    url = f"{remote}/a.zarr"
    with StoreWriter(url, SPEC, FINGERPRINT):
        holder = json.loads(open_storage(remote).read("a.zarr.lock"))
        with pytest.raises(
            StoreLocked,
            match=rf"process {holder['pid']} on {holder['host']} .*last seen [01] s ago.*expires after 90 s",
        ):
            write_store(url, ROWS)
    assert open_storage(remote).sizes() == {}


@pytest.mark.usefixtures("quick_lease")
def test_a_lease_is_kept_as_long_as_its_holder_lives(remote: str) -> None:
    first, second = Lease(open_storage(f"{remote}/a.zarr")), Lease(open_storage(f"{remote}/a.zarr"))
    first.acquire()
    for _ in range(2):
        time.sleep(locks.EXPIRE_S * 0.6)
        with pytest.raises(StoreLocked):
            second.acquire()
    first.check()
    first.release()
    second.acquire()
    second.release()


@pytest.mark.usefixtures("quick_lease")
@pytest.mark.parametrize(
    ("remote", "then"), [("memory", "it ends"), ("s3", "it still writes")], indirect=["remote"]
)
def test_one_who_was_cut_off_stops_once_another_has_taken_over(remote: str, then: str) -> None:
    url = f"{remote}/a.zarr"
    with StoreWriter(url, SPEC, FINGERPRINT) as asleep:
        pending = asleep.plan(ROWS)
        lease = asleep._lock
        assert isinstance(lease, Lease)
        assert lease._thread is not None
        lease._stop.set()  # the machine sleeps: nothing is renewed
        lease._thread.join()
        time.sleep(locks.EXPIRE_S + 1.2)
        with StoreWriter(url, SPEC, FINGERPRINT) as awake:
            for unit in awake.plan(ROWS):
                write_unit(url, SPEC, unit, unit_frames(unit, SPEC))
            assert awake.finish() == {}
            if then == "it still writes":
                with pytest.raises(StoreLocked, match="did not renew its lease for 2 s"):
                    asleep.finish()
        if then == "it ends":
            with pytest.raises(StoreLocked, match=r"a.zarr.lock is gone: it was not renewed for 2 s"):
                asleep.plan([row("c", 3)])
        with pytest.raises(FileNotFoundError):  # there is no plan for a late unit to be of
            write_unit(url, SPEC, pending[0], unit_frames(pending[0], SPEC))
    assert len(EmbeddingStore(url)) == len(ROWS)


@pytest.mark.usefixtures("quick_lease")
def test_of_two_who_take_over_at_once_one_gets_it(remote: str, monkeypatch: pytest.MonkeyPatch) -> None:
    storage, folder = open_storage(f"{remote}/a.zarr"), open_storage(remote)
    folder.put("a.zarr.lock", json.dumps({"host": "h", "pid": 1, "uuid": "dead", "time": 0}).encode())
    monkeypatch.setattr(Lease, "_age", lambda *_: 1000.0)
    monkeypatch.setattr(locks, "SETTLE_S", 0.5)
    leases, outcomes = [Lease(storage) for _ in range(3)], []

    def take(lease: Lease) -> None:
        try:
            lease.acquire()
            outcomes.append("held")
        except StoreLocked as error:
            outcomes.append(str(error))

    threads = [threading.Thread(target=take, args=(lease,)) for lease in leases]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes.count("held") == 1
    assert sum("it came first" in outcome or "last seen" in outcome for outcome in outcomes) == 2
    for lease in leases:
        lease.release()
    assert folder.sizes() == {}


def test_a_lease_that_cannot_be_renewed_stops_its_holder(
    remote: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "REFRESH_S", 0.05)
    monkeypatch.setattr(locks, "EXPIRE_S", 0.3)
    lease = Lease(open_storage(f"{remote}/a.zarr"))
    lease.acquire()
    with monkeypatch.context() as patch:
        patch.setattr("stillwave.cache.remote.RemotePrefix._name", lambda *_: 1 / 0)  # the network is gone
        time.sleep(0.6)
    with pytest.raises(StoreLocked, match=r"could not be renewed for 0 s.*run the same command again"):
        lease.check()
    lease.release()


def test_without_times_of_the_server_the_holders_own_counts(
    remote: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown(*_: object) -> float:
        raise NotImplementedError

    monkeypatch.setattr(RemotePrefix, "modified", unknown)
    monkeypatch.setattr(locks, "SETTLE_S", 0.0)
    folder = open_storage(remote)
    for age, free in ((30, False), (95, True)):
        holder = {"host": "h", "pid": 1, "uuid": "other", "time": time.time() - age}
        folder.put("a.zarr.lock", json.dumps(holder).encode())
        lease = Lease(open_storage(f"{remote}/a.zarr"))
        if free:
            lease.acquire()
            lease.release()
        else:
            with pytest.raises(StoreLocked, match=r"process 1 on h .*last seen 30 s ago"):
                lease.acquire()
    assert folder.sizes() == {}


def test_a_lock_file_that_says_nothing_is_taken_over(remote: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "SETTLE_S", 0.0)
    open_storage(remote).put("a.zarr.lock", b"{")
    assert write_store(f"{remote}/a.zarr", ROWS)


def test_a_link_and_its_target_have_one_lock(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "a.zarr").symlink_to(tmp_path / "disk/a.zarr")
    with StoreWriter(tmp_path / "a.zarr", SPEC, FINGERPRINT), pytest.raises(StoreLocked):
        write_store(tmp_path / "disk/a.zarr", ROWS)
