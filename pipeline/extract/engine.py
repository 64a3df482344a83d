"""Running a backbone over units of a store at the speed of its bare forward pass: one engine per process.

Decoding, the forward pass and writing overlap. On a CPU every batch is computed by one thread, with as many
batches at once as there are threads: this is faster than one batch on all of them, and the frames do not
depend on the number of threads or processes, bit for bit.
"""

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from stillwave.cache import Item, Spec, Unit, write_unit
from stillwave.cache.batches import length_bucketed
from stillwave.pipeline.backbones import Backbone, BackboneConfig
from stillwave.pipeline.extract.budget import batch_frames, is_out_of_memory
from stillwave.pipeline.extract.memory import flat_memory
from stillwave.pipeline.extract.rows import Source, load
from stillwave.pipeline.extract.transfer import Transfer

log = logging.getLogger(__name__)

MAX_BATCH_ROWS = 256
LOADED_AT_ONCE = 32  # items of a batch per reader: several readers share a run's first batch
Loaded = tuple[Item, NDArray[Any]]  # samples or tokens of an item
Encoded = list[tuple[Item, NDArray[Any] | str]]  # frames of an item, or the reason for none


@dataclass
class Tally:
    """Counts: distinct items, `forwards` of them through the backbone and `failed` of them without frames.

    audio_s: duration of the encoded audio. frames: those of the items; padding: how many more a batch would
    have if all of its items were as long as the longest. seconds: by stage, summed over parallel threads.
    """

    items: int = 0
    forwards: int = 0
    failed: int = 0
    batches: int = 0
    frames: int = 0
    padding: int = 0
    audio_s: float = 0.0
    seconds: dict[str, float] = field(default_factory=lambda: {"load": 0.0, "forward": 0.0, "write": 0.0})

    def add(self, other: "Tally") -> None:
        self.items += other.items
        self.forwards += other.forwards
        self.failed += other.failed
        self.batches += other.batches
        self.frames += other.frames
        self.padding += other.padding
        self.audio_s += other.audio_s
        for stage, seconds in other.seconds.items():
            self.seconds[stage] += seconds


class Engine:
    """A frozen backbone on its device, and the threads that feed it; use as a context manager.

    threads: batches computed at once; 0 means torch's number of threads on a CPU, and two on a GPU, so that
    one's copies overlap with the other's work; one on an Apple GPU. The engine takes over the backbone: its
    weights are kept in the config's precision.
    """

    def __init__(
        self, backbone: Backbone, config: BackboneConfig, device: torch.device, threads: int = 0
    ) -> None:
        if device.type == "cuda":  # without it, matrix products may sum in a different order in each run
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        self.backbone = backbone.to(device)
        self.device = device
        self.threads = _threads(backbone, device, threads)
        backbone.hold_weights(config.precision)
        self.max_frames = batch_frames(backbone, config.max_batch_frames, device, self.threads)
        if getattr(config, "compile", False):
            backbone.compile(dynamic=True)
        self._transfer = Transfer(device, getattr(torch, config.storage_dtype))
        self._limit, self._exclusive = threading.Lock(), threading.Lock()
        self._permits = threading.Semaphore(self.threads)
        self._stack = ExitStack()

    def __enter__(self) -> "Engine":
        enter, cuda = self._stack.enter_context, self.device.type == "cuda"
        enter(flat_memory())
        if cuda:
            torch.cuda.synchronize(self.device)  # the weights are there before other streams use them
            # The flag is global: set it once here, not in one thread while another is computing.
            enter(torch.backends.cudnn.flags(enabled=True, allow_tf32=False))
        self._stack.callback(torch.set_num_threads, torch.get_num_threads())
        one_each = None if cuda or not self.backbone.concurrent else _one_thread
        # One reader suffices for a CPU's forward pass; and tokenizers are not thread-safe.
        readers = min(8, os.cpu_count() or 1) if cuda and self.backbone.modality == "audio" else 1
        # One writer keeps up with a CPU; a GPU makes frames faster than one thread can write them.
        self._writers = min(8, os.cpu_count() or 1) if cuda else 1
        self._ahead = self.threads + 2 * readers
        self._readers = enter(ThreadPoolExecutor(readers, "stillwave-read"))
        self._compute = enter(ThreadPoolExecutor(self.threads, "stillwave-compute", initializer=one_each))
        self._writer = enter(ThreadPoolExecutor(self._writers, "stillwave-write"))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def write(
        self,
        out: str | Path,
        spec: Spec,
        units: Sequence[Unit],
        sources: Mapping[Item, Source],
        report: Callable[[Tally], None] = lambda tally: None,
        plan: str | None = None,
    ) -> Tally:
        """Encode and write units (of `plan`); `report` gets what each batch and each write added.

        Units are written while the next ones are computed. May be called from several threads at once.
        """
        total = Tally()

        def count(tally: Tally) -> None:
            total.add(tally)
            report(tally)

        writing: deque[Future[Tally]] = deque()
        for unit, frames in self._units(units, sources, count):
            if len(writing) == self._writers:
                count(writing.popleft().result())
            writing.append(self._writer.submit(_write, out, spec, unit, frames, plan))
        for written in writing:
            count(written.result())
        return total

    def _units(
        self, units: Sequence[Unit], sources: Mapping[Item, Source], count: Callable[[Tally], None]
    ) -> Iterator[tuple[Unit, Encoded]]:
        """The frames of each unit, in order; later batches are computed while the caller uses one."""
        flying: deque[tuple[Unit | None, Future[tuple[Encoded, Tally]]]] = deque()
        frames: Encoded = []

        def land() -> Iterator[tuple[Unit, Encoded]]:
            nonlocal frames
            finished, future = flying.popleft()
            encoded, tally = future.result()
            frames += encoded
            count(tally)
            if finished is not None:
                yield finished, frames
                frames = []

        try:
            for unit in units:
                batches = self.batches(unit)
                for number, batch in enumerate(batches, 1):
                    while len(flying) >= self._ahead:
                        yield from land()
                    pairs = [(item, sources[item]) for item in batch]
                    parts = [pairs[i : i + LOADED_AT_ONCE] for i in range(0, len(pairs), LOADED_AT_ONCE)]
                    loading = [self._readers.submit(self._load, part) for part in parts]
                    future = self._compute.submit(self._encode, loading)
                    flying.append((unit if number == len(batches) else None, future))
            while flying:
                yield from land()
        finally:
            for _, future in flying:
                future.cancel()

    def batches(self, unit: Unit) -> list[list[Item]]:
        """Batches depend only on the unit, so that a resumed run repeats them bit for bit."""
        lengths = np.array(unit.lengths, dtype=np.int64)
        batches = length_bucketed(lengths, max_rows=MAX_BATCH_ROWS, max_frames=self.max_frames)
        return [[unit.items[i] for i in batch] for batch in batches]

    def _load(self, batch: list[tuple[Item, Source]]) -> tuple[list[tuple[Item, Any]], Tally]:
        started = time.perf_counter()
        loaded = [(item, load(self.backbone, source)) for item, source in batch]
        rate, tally = self.backbone.sample_rate, Tally(items=len(batch))
        tally.forwards = sum(not isinstance(values, str) for _, values in loaded)
        if rate is not None:
            tally.audio_s = sum(len(values) for _, values in loaded if not isinstance(values, str)) / rate
        tally.seconds["load"] = time.perf_counter() - started
        return loaded, tally

    def _encode(self, loading: list[Future[tuple[list[tuple[Item, Any]], Tally]]]) -> tuple[Encoded, Tally]:
        loaded, tally = list[tuple[Item, Any]](), Tally()
        for reading in loading:
            items, read = reading.result()
            loaded += items
            tally.add(read)
        started = time.perf_counter()
        encoded: Encoded = [(item, values) for item, values in loaded if isinstance(values, str)]
        good = [(item, values) for item, values in loaded if not isinstance(values, str)]
        with self._permits, torch.inference_mode():
            for part in self._fitting(good):
                encoded += self._forward(part)
                frames = [self.backbone.num_frames(len(values)) for _, values in part]
                tally.batches += 1
                tally.frames += sum(frames)
                tally.padding += len(frames) * max(frames) - sum(frames)
        tally.failed = sum(isinstance(values, str) for _, values in encoded)
        tally.seconds["forward"] = time.perf_counter() - started
        return encoded, tally

    def _fitting(self, items: list[Loaded]) -> list[list[Loaded]]:
        """Items as one batch, or as several if memory has run out with smaller ones since it was planned."""
        if not items:
            return []
        size = max(1, self.max_frames // self._longest(items))
        return [items[first : first + size] for first in range(0, len(items), size)]

    def _longest(self, items: list[Loaded]) -> int:
        return self.backbone.num_frames(max(len(values) for _, values in items))

    def _forward(self, items: list[Loaded]) -> Encoded:
        """Frames of items as one batch; or as smaller ones if memory does not suffice."""
        if (encoded := self._run(items)) is not None:
            return encoded
        if len(items) > 1:
            self._halve(items)
            middle = len(items) // 2
            return self._forward(items[:middle]) + self._forward(items[middle:])
        with self._alone():
            if (encoded := self._run(items)) is not None:
                return encoded
        length = len(items[0][1])
        return [(items[0][0], f"out_of_memory: {length} samples or tokens alone do not fit {self.device}")]

    def _run(self, items: list[Loaded]) -> Encoded | None:
        """Frames of items as one batch, or None if memory does not suffice."""
        try:
            with self._transfer.stream():
                frames = self.backbone(*self._transfer.send([values for _, values in items]))
                rows, lengths = self._transfer.fetch(frames)
            return [(item, row[:n]) for row, n, (item, _) in zip(rows, lengths, items, strict=True)]
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        return None

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Run the block while no other thread is computing. The caller's permit is released meanwhile."""
        self._permits.release()
        with self._exclusive:
            for _ in range(self.threads):
                self._permits.acquire()
        try:
            yield
        finally:
            self._permits.release(self.threads)
            self._permits.acquire()

    def _halve(self, items: list[Loaded]) -> None:
        """From now on make smaller batches than the one that did not fit."""
        frames = len(items) * self._longest(items)
        with self._limit:
            if frames <= self.max_frames:
                self.max_frames = max(1, frames // 2)
                log.warning(
                    "out of memory on %s with a batch of %d frames: continuing with batches of %d; set "
                    "max_batch_frames: %d to start there",
                    self.device, frames, self.max_frames, self.max_frames,
                )  # fmt: skip


def _threads(backbone: Backbone, device: torch.device, wanted: int) -> int:
    if not backbone.concurrent:
        return 1
    if device.type == "mps":
        return 1  # it has one queue
    return wanted or (2 if device.type == "cuda" else torch.get_num_threads())


def _write(out: str | Path, spec: Spec, unit: Unit, frames: Encoded, plan: str | None) -> Tally:
    started = time.perf_counter()
    record = write_unit(out, spec, unit, frames, plan)
    reasons = sum(isinstance(values, str) for _, values in frames)
    tally = Tally(failed=len(record.failed) - reasons)  # frames not finite, or too large for the stored type
    tally.seconds["write"] = time.perf_counter() - started
    return tally


def _one_thread() -> None:
    torch.set_num_threads(1)
