"""Units of a store on many processes: each unit is a Dask task, on this machine or on a cluster.

A task may run twice if its worker was lost or seemed to be: the frames are the same to the bit, and shards
and records are written in one step, so it costs only time.
"""

import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from stillwave.cache import Item, Spec, Unit
from stillwave.cache.differences import differences
from stillwave.pipeline.backbones import BackboneConfig, build_backbone
from stillwave.pipeline.backbones.device import pick_device
from stillwave.pipeline.backbones.fingerprint import fingerprint
from stillwave.pipeline.config.packages import needed
from stillwave.pipeline.extract.engine import Engine, Tally
from stillwave.pipeline.extract.rows import Source

# Two units at a time in each worker: one is computed while another is written.
_UNITS_AT_ONCE = 2
_ANSWER_S = 20  # how long a scheduler may take to answer


@dataclass(frozen=True)
class Job:
    """What a worker needs in addition to its units.

    plan: the store's, so that a late worker does not write into another plan. threads: for each of our own
    workers, which share this machine's CPU and GPUs; 0 on a user's cluster.
    """

    config: BackboneConfig
    fingerprint: dict[str, Any]
    device: str
    out: str
    spec: Spec
    plan: str
    threads: int


def write_on_workers(
    client: Any,
    job: Job,
    units: Sequence[Unit],
    sources: Mapping[Item, Source],
    report: Callable[[Tally], None],
) -> Tally:
    """Write units on the workers of a Dask client.

    Raises ValueError if a worker would compute different numbers, keeps dying on one unit, or all are lost.
    """
    from distributed import CancelledError, KilledWorker, as_completed

    total, kept = Tally(), "finished units are kept: run the same command again"
    futures = [
        client.submit(_write_unit, job, unit, {item: sources[item] for item in unit.items}, pure=False)
        for unit in units
    ]
    try:
        for future in as_completed(futures):
            tally = future.result()
            future.release()  # a result kept on a worker would be recomputed if the worker were lost
            total.add(tally)
            report(tally)
    except KilledWorker as error:
        raise ValueError(
            f"{job.out}: workers kept dying on one unit ({error}): most likely too little memory; set a "
            f"smaller max_batch_frames or fewer workers; {kept}"
        ) from None
    except CancelledError:
        raise ValueError(f"{job.out}: the Dask scheduler was lost; {kept}") from None
    finally:
        client.cancel(futures)
    return total


@contextmanager
def connect(scheduler: str) -> Iterator[Any]:
    """A client of the Dask scheduler at an address. ValueError if none answers, or it has no workers."""
    with needed("--scheduler", "distributed"):
        from distributed import Client

    try:
        client = Client(scheduler, timeout=_ANSWER_S)
    except (OSError, TimeoutError, ValueError) as error:
        raise ValueError(
            f"--scheduler {scheduler}: no Dask scheduler answers there ({error}); start one with "
            "`dask scheduler`, and workers with `dask worker ADDRESS` in this environment"
        ) from None
    with client:
        try:
            client.wait_for_workers(1, timeout=_ANSWER_S)
        except TimeoutError:
            raise ValueError(
                f"--scheduler {scheduler}: it has no workers after {_ANSWER_S} s; start some with "
                f"`dask worker {scheduler}` in this environment"
            ) from None
        yield client


@contextmanager
def start_workers(count: int) -> Iterator[Any]:
    """A client of `count` new worker processes on this machine, which stop at the end of the block."""
    with needed("--workers", "distributed"):
        from distributed import Client, LocalCluster

    try:
        # memory_limit 0: a worker's memory holds the model and its batches, which Dask cannot spill.
        cluster = LocalCluster(
            n_workers=count,
            threads_per_worker=_UNITS_AT_ONCE,
            processes=True,
            memory_limit=0,
            dashboard_address=":0",
        )
    except RuntimeError as error:
        raise ValueError(
            f"workers {count}: they cannot be started ({error}). A script that starts some must do so under "
            '`if __name__ == "__main__":`, because each of them imports it'
        ) from error
    with cluster, Client(cluster) as client:
        yield client


def threads_per_worker(workers: int) -> int:
    """CPU threads for each of `workers` processes, so that together they use exactly the whole machine."""
    return max(1, torch.get_num_threads() // workers)


class _Shared(NamedTuple):
    """An engine of this worker, and its current tasks."""

    engine: Engine
    users: set[object]


_engines: dict[str, _Shared] = {}  # a worker builds its model once
_engines_lock = threading.Lock()


def _write_unit(job: Job, unit: Unit, sources: Mapping[Item, Source]) -> Tally:
    if any(item.content_key != source.content_key for item, source in sources.items() if not item.view):
        raise ValueError(
            "a worker would decode with another FFmpeg than planned; install the same version of PyAV there"
        )
    with _engine(job) as engine:
        return engine.write(job.out, job.spec, [unit], sources, plan=job.plan)


@contextmanager
def _engine(job: Job) -> Iterator[Engine]:
    """The engine of a job; engines of other jobs, possibly from another coordinator, are closed when idle."""
    made_by = json.dumps(job.fingerprint, sort_keys=True)
    key = f"{made_by} {job.config.model_dump_json()} {job.device} {job.threads}"
    me = object()
    with _engines_lock:
        if key not in _engines:
            for other, shared in list(_engines.items()):
                if not shared.users:
                    _engines.pop(other).engine.__exit__(None, None, None)
            _engines[key] = _Shared(_start_engine(job), set())
        _engines[key].users.add(me)
    try:
        yield _engines[key].engine
    finally:
        with _engines_lock:
            _engines[key].users.remove(me)


def _start_engine(job: Job) -> Engine:
    from distributed import get_worker

    backbone = build_backbone(job.config)
    if differing := differences(job.fingerprint, fingerprint(backbone)):
        raise ValueError(
            f"a worker would compute different numbers than planned: {'; '.join(differing)} (planned: "
            "stored, on the worker: now); install the same weights and library versions there"
        )
    worker = get_worker()
    threads = job.threads or worker.state.nthreads
    device = pick_device(job.device)
    if job.threads and job.device == "auto" and device.type == "cuda":
        # Ours are named 0, 1, ... and see all GPUs; others get theirs from CUDA_VISIBLE_DEVICES.
        device = torch.device("cuda", int(worker.name) % torch.cuda.device_count())
    return Engine(backbone, job.config, device, 0 if device.type == "cuda" else threads).__enter__()
