"""One writer at a time: an operating-system lock next to a folder, a lease next to a remote store."""

import json
import os
import socket
import threading
import time
import uuid
from contextlib import suppress
from typing import Any, Protocol

from filelock import FileLock, Timeout

from stillwave.cache.errors import StoreError, StoreLocked
from stillwave.cache.places import split
from stillwave.cache.remote import RemotePrefix
from stillwave.cache.storage import LocalFolder, Storage, cannot_write

REFRESH_S = 20.0  # a holder shows that it is alive this often
EXPIRE_S = 90.0  # a holder not seen for this long counts as dead
SETTLE_S = 2.0  # after taking over a lease: time for another process that did the same to appear


class Lock(Protocol):
    def acquire(self) -> None:
        """Take the lock, or raise StoreLocked at once."""

    def check(self) -> None:
        """Raise StoreLocked if the lock is no longer held."""

    def release(self) -> None: ...


def lock(storage: Storage) -> Lock:
    """The lock of a store: `<store>.lock` next to it."""
    return FolderLock(storage) if isinstance(storage, LocalFolder) else Lease(storage)


class FolderLock:
    """A file locked by the operating system, which frees it if its holder dies."""

    def __init__(self, storage: LocalFolder) -> None:
        self._path = storage.path
        self._held = FileLock(f"{storage.path}.lock", timeout=0)

    def acquire(self) -> None:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._held.acquire()
        except Timeout:
            raise StoreLocked(
                f"{self._path}: another process is writing this store (it holds {self._held.lock_file}); "
                "wait until it ends, or stop it"
            ) from None
        except OSError as error:
            raise cannot_write(self._held.lock_file, error.strerror or str(error)) from error

    def check(self) -> None:
        pass  # the operating system does not revoke it

    def release(self) -> None:
        self._held.release()


class Lease:
    """An object that its holder rewrites every REFRESH_S; after EXPIRE_S without, another may take it over.

    It is created by a conditional put, so only one of two simultaneous writers gets it. A holder that was cut
    off for longer than EXPIRE_S finds another's name in the object, and stops at its next check(). Ages are
    taken from the server's clock if it reports when an object was put, else from the machines' own.
    """

    def __init__(self, storage: Storage) -> None:
        self._store = storage
        folder, self._name = split(f"{storage.path}.lock")
        assert isinstance(folder, RemotePrefix)
        self._folder = folder
        self._me = {"host": socket.gethostname(), "pid": os.getpid(), "uuid": uuid.uuid4().hex}
        self._seen = 0.0  # when the lease was last known to be ours, on this process's monotonic clock
        self._lost: StoreLocked | None = None
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def acquire(self) -> None:
        if not self._folder.put_new(self._name, self._body()) and not self._is_mine(holder := self._holder()):
            age = self._age(holder)
            if holder and age < EXPIRE_S:
                raise self._locked(holder, f"last seen {age:.0f} s ago")
            self._folder.put(self._name, self._body())
            time.sleep(SETTLE_S)
            if not self._is_mine(holder := self._holder()):
                raise self._locked(holder, "it came first")
        self._seen, self._lost = time.monotonic(), None
        self._stop.clear()
        self._thread = threading.Thread(target=self._keep, name="store lease", daemon=True)
        self._thread.start()

    def check(self) -> None:
        self._lost = self._lost or self._taken()
        if self._lost is not None:
            raise self._lost

    def release(self) -> None:
        if self._thread is not None:
            self._stop.set()
            self._thread.join()
            self._thread = None
            with suppress(StoreError):  # if it stays, it expires
                if self._is_mine(self._holder()):
                    self._folder.delete(self._name)

    def _keep(self) -> None:
        while not self._stop.wait(REFRESH_S):
            try:
                self._lost = self._lost or self._taken()
                if self._lost is not None:
                    return
                self._folder.put(self._name, self._body())
                self._seen = time.monotonic()
            except StoreError:  # the server does not answer: try again until the lease has run out
                if time.monotonic() - self._seen > EXPIRE_S:
                    self._lost = StoreLocked(
                        f"{self._store}: its lease could not be renewed for {EXPIRE_S:.0f} s, so another "
                        "process may be writing it; run the same command again, it resumes where it stopped"
                    )
                    return

    def _taken(self) -> StoreLocked | None:
        """What to raise if the object does not name this run. If gone, it was taken over and released."""
        holder = self._holder()
        if self._is_mine(holder):
            return None
        if holder:
            return self._locked(holder, f"as this run did not renew its lease for {EXPIRE_S:.0f} s")
        return StoreLocked(
            f"{self._store}: its lease {self._name} is gone: it was not renewed for {EXPIRE_S:.0f} s and "
            "another process wrote the store, or somebody deleted it; run the same command again"
        )

    def _body(self) -> bytes:
        return json.dumps(self._me | {"time": time.time()}).encode()

    def _holder(self) -> dict[str, Any]:
        """The holder that the object names; empty if there is no object, or it cannot be read."""
        try:
            data = self._folder.read(self._name)
        except FileNotFoundError:
            return {}
        try:
            holder = json.loads(data)
        except ValueError:
            return {}
        return holder if isinstance(holder, dict) else {}

    def _is_mine(self, holder: dict[str, Any]) -> bool:
        return holder.get("uuid") == self._me["uuid"]

    def _age(self, holder: dict[str, Any]) -> float:
        """Seconds since the object was last put."""
        probe = f"{self._name}.{self._me['uuid']}"
        try:
            self._folder.put(probe, b"")  # the server's time for it is the current time
            return self._folder.modified(probe) - self._folder.modified(self._name)
        except NotImplementedError:
            return time.time() - float(holder.get("time", 0))
        except FileNotFoundError:  # released meanwhile
            return EXPIRE_S
        finally:
            self._folder.delete(probe)

    def _locked(self, holder: dict[str, Any], when: str) -> StoreLocked:
        who = f"process {holder.get('pid')} on {holder.get('host')}"
        return StoreLocked(
            f"{self._store}: another process is writing this store ({who} holds {self._name}, {when}); wait "
            f"until it ends, or stop it: a lease that is not renewed expires after {EXPIRE_S:.0f} s"
        )
