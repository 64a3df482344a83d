"""Units of a store on many processes: each unit is a Dask task, on this machine or on a cluster.

A task may run twice, when its worker was lost or thought lost: the frames are the same to the bit, shards and
records are put in place in one step, so nothing comes of it but the time.
"""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from cache import Item, Spec, Unit
from cache.fingerprint import differences
from pipeline.backbones import build_backbone
from pipeline.config.backbone import BackboneConfig
from pipeline.device import pick_device
from pipeline.engine import Engine, Tally
from pipeline.fingerprint import fingerprint
from pipeline.rows import Source

# Two units at a time in each worker: one is computed while the other is written.
_UNITS_AT_ONCE = 2
_ANSWER_S = 20  # how long a scheduler may take to answer


@dataclass(frozen=True)
class Job:
    """What a worker needs besides its units. threads: batches at once on a CPU; 0: as many as its tasks."""

    config: BackboneConfig
    fingerprint: dict[str, Any]
    device: str
    threads: int
    out: str
    spec: Spec


def write_on_workers(
    job: Job,
    units: Sequence[Unit],
    sources: Mapping[Item, Source],
    report: Callable[[Tally], None],
    *,
    workers: int = 0,
    scheduler: str | None = None,
) -> Tally:
    """Write units on `workers` new processes of this machine, or on those of the Dask `scheduler`.

    Raises ValueError when a worker would compute other numbers, or keeps dying on one unit.
    """
    from distributed import KilledWorker, as_completed

    total = Tally()
    with _client(workers, scheduler) as client:
        futures = [
            client.submit(_write_unit, job, unit, {item: sources[item] for item in unit.items}, pure=False)
            for unit in units
        ]
        try:
            for future, tally in as_completed(futures, with_results=True):
                future.release()  # a result that is kept on its worker would be computed again, were it lost
                total.add(tally)
                report(tally)
        except KilledWorker as error:
            raise ValueError(
                f"{job.out}: workers kept dying on one unit ({error}): too little memory, most likely; set a "
                "smaller max_batch_frames or fewer workers. What is done is kept: run the same command again"
            ) from None
        finally:
            client.cancel(futures)
    return total


@contextmanager
def _client(workers: int, scheduler: str | None) -> Iterator[Any]:
    from distributed import Client, LocalCluster

    if scheduler is not None:
        try:
            client = Client(scheduler, timeout=_ANSWER_S)
        except (OSError, TimeoutError, ValueError) as error:
            raise ValueError(
                f"--scheduler {scheduler}: no Dask scheduler answers there ({error}); start one with "
                "`dask scheduler`, and workers with `dask worker ADDRESS` in this environment"
            ) from None
        with client:
            yield client
        return
    # memory_limit 0: a worker's memory is the model's and its batches', not Dask's to spill or to kill for.
    cluster = LocalCluster(
        n_workers=workers,
        threads_per_worker=_UNITS_AT_ONCE,
        processes=True,
        memory_limit=0,
        dashboard_address=":0",
    )
    with cluster, Client(cluster) as client:
        yield client


def threads_per_worker(workers: int) -> int:
    """CPU threads for each of `workers` processes, so that together they fill the machine and no more."""
    return max(1, torch.get_num_threads() // workers)


_engines: dict[str, Engine] = {}  # of this process: a worker builds its model once
_engines_lock = threading.Lock()


def _write_unit(job: Job, unit: Unit, sources: Mapping[Item, Source]) -> Tally:
    return _engine(job).write(job.out, job.spec, [unit], sources)


def _engine(job: Job) -> Engine:
    from distributed import get_worker

    key = f"{job.config.model_dump_json()} {job.device} {job.threads}"
    with _engines_lock:
        if key not in _engines:
            for engine in _engines.values():
                engine.__exit__(None, None, None)
            _engines.clear()
            backbone = build_backbone(job.config)
            if differing := differences(job.fingerprint, fingerprint(backbone)):
                raise ValueError(
                    f"a worker would compute other numbers than planned: {'; '.join(differing)} (planned: "
                    "stored, on the worker: now); give it the same weights and library versions"
                )
            threads = job.threads or get_worker().state.nthreads
            _engines[key] = Engine(backbone, job.config, _device(job.device), threads).__enter__()
        return _engines[key]


def _device(name: str) -> torch.device:
    """`auto` is this worker's GPU: workers of one machine, numbered from 0, take them in turn."""
    from distributed import get_worker

    number = get_worker().name
    if name == "auto" and torch.cuda.device_count() > 1 and isinstance(number, int):
        return torch.device("cuda", number % torch.cuda.device_count())
    return pick_device(name)
