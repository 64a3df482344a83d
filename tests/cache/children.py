"""What tests run in processes of their own, to kill them or to take room from them."""

import os
import resource
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection

from stillwave.cache import Row, Spec, StoreError, StoreLocked, StoreWriter, locks, write_unit
from tests.fakes import FINGERPRINT, SPEC, unit_frames


def extract_slowly(
    url: str, rows: Sequence[Row], delay_s: float, environment: dict[str, str], lease_s: tuple[float, float]
) -> None:
    """Write a store, `delay_s` a unit, after the lease of a writer who was killed has run out.

    environment: of the S3 server. lease_s: seconds between renewals, and until a lease is free.
    """
    os.environ.update(environment)
    locks.REFRESH_S, locks.EXPIRE_S = lease_s
    locks.SETTLE_S = 0.05
    writer = StoreWriter(url, SPEC, FINGERPRINT)
    while True:
        try:
            writer.__enter__()
            break
        except StoreLocked:
            time.sleep(0.1)
    for unit in writer.plan(rows):
        time.sleep(delay_s)
        write_unit(url, SPEC, unit, unit_frames(unit, SPEC))
    writer.finish()
    writer.__exit__(None, None, None)


def write_in_a_small_space(
    path: str, rows: Sequence[Row], spec: Spec, limit: int, report: Connection
) -> None:
    """Write a store; after its first unit no file can grow beyond `limit` bytes. Reports the error's text."""
    try:
        with StoreWriter(path, spec, FINGERPRINT) as writer:
            for unit in writer.plan(rows):
                write_unit(path, spec, unit, unit_frames(unit, spec))
                resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    except StoreError as error:
        report.send(str(error))
