"""Stage one: run a frozen backbone over a manifest once, and store its frames."""

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

import pandas as pd

from stillwave.cache import Row, Spec, StoreWriter
from stillwave.pipeline.audio.files import absolute, write_if_changed
from stillwave.pipeline.backbones import BackboneConfig, build_backbone
from stillwave.pipeline.backbones.device import pick_device
from stillwave.pipeline.backbones.fingerprint import fingerprint
from stillwave.pipeline.corpora.manifest import manifest_digest
from stillwave.pipeline.corpora.quarantine import (
    Quarantined,
    check_bad_fraction,
    quarantine_csv,
    quarantine_path,
)
from stillwave.pipeline.extract.engine import Engine, Tally
from stillwave.pipeline.extract.rows import in_view, plan_rows
from stillwave.pipeline.extract.scale import Job, connect, start_workers, threads_per_worker, write_on_workers


@dataclass(frozen=True)
class Progress:
    """Progress of a run: what is done of `items` distinct items, `seconds` after the first one started."""

    done: Tally
    items: int
    seconds: float
    quarantined: int  # rows known to have no frames, including those found while planning


@dataclass(frozen=True)
class ExtractResult:
    """The result of the stage: `forwards` counts the items that went through the backbone.

    padding: the fraction of the batches, in frames, that only pads them to their longest item; some backbones
    do not compute it.
    seconds: by stage, summed over parallel threads; `plan` is everything before the first unit, including
    loading the model, and `wall` is the whole run.
    """

    rows: int
    forwards: int
    units: int
    batches: int
    audio_s: float
    padding: float
    quarantined: tuple[Quarantined, ...]
    rebuilt: tuple[str, ...]  # fields in which the discarded store differed
    seconds: dict[str, float] = field(default_factory=dict)


def extract(
    config: BackboneConfig,
    manifest: pd.DataFrame,
    out: str | Path,
    *,
    rebuild: bool = False,
    device: str = "auto",
    workers: int = 0,
    scheduler: str | None = None,
    progress: Callable[[Progress], None] | None = None,
    shard_frames: int = 0,
) -> ExtractResult:
    """Make the store at `out` (a folder or an fsspec URL) hold exactly the rows of `manifest`.

    Only new rows are computed.

    workers: processes on this machine; 0 means only this one. scheduler: address of a Dask scheduler, whose
    workers do the work instead; they must see the same paths. The frames are the same to the bit.

    Rows without frames go to `<out>.quarantine.csv` with their reason. Raises FingerprintMismatch if the
    store was made with other settings and not `rebuild`, StoreLocked if another process writes it, and
    ValueError if more than `config.max_bad_fraction` of the rows are bad.
    """
    started = time.perf_counter()
    if workers < 0 or (workers and scheduler is not None):
        raise ValueError(f"workers {workers} with scheduler {scheduler}: give a number >= 1, or an address")
    target = pick_device(device) if scheduler is None else None  # checked before a store is touched
    backbone = build_backbone(config)
    rows, sources, quarantined = plan_rows(backbone, manifest, config.views)
    considered = len(rows) + len(quarantined)
    _check(quarantined, manifest, config, out)  # before any file is read
    spec = Spec(
        dim=backbone.dim,
        layers=backbone.num_layers if backbone.num_layers > 1 else 0,
        dtype=config.storage_dtype,
        shard_frames=shard_frames,
    )
    made_by = fingerprint(backbone)
    with ExitStack() as stack:
        client = stack.enter_context(connect(scheduler)) if scheduler is not None else None
        settings = config.model_dump(mode="json")
        writer = stack.enter_context(StoreWriter(out, spec, made_by, rebuild=rebuild, made_with=settings))
        pending = writer.plan(rows, manifest_digest(manifest))
        engine = None
        if pending and target is not None and not workers:
            engine = stack.enter_context(Engine(backbone, config, target))
        watch = _Watch(progress, sum(len(unit.items) for unit in pending), len(quarantined))
        if not pending:
            tally = Tally()
        elif engine is not None:
            tally = engine.write(out, spec, pending, sources, watch)
        else:
            threads = threads_per_worker(workers) if workers else 0
            client = client or stack.enter_context(start_workers(workers))
            job = Job(config, made_by, device, absolute(out), spec, writer.plan_name, threads)
            there = {item: source._replace(path=absolute(source.path)) for item, source in sources.items()}
            tally = write_on_workers(client, job, pending, there, watch)
        failed = writer.finish()
        quarantined += [
            _quarantined(row, sources[row.item].path, failed[row.item]) for row in rows if row.item in failed
        ]
        write_if_changed(quarantine_path(out), quarantine_csv(quarantined))  # the lock guards this file too
    _check(quarantined, manifest, config, out)
    planning = {"plan": watch.started - started, "wall": time.perf_counter() - started}
    return ExtractResult(
        rows=considered - len(quarantined),
        forwards=tally.forwards,
        units=len(pending),
        batches=tally.batches,
        audio_s=tally.audio_s,
        padding=tally.padding / max(1, tally.frames + tally.padding),
        quarantined=tuple(quarantined),
        rebuilt=tuple(writer.rebuilt),
        seconds=tally.seconds | planning,
    )


class _Watch:
    """Adds up what the engine reports, for a progress display."""

    def __init__(self, progress: Callable[[Progress], None] | None, items: int, quarantined: int) -> None:
        self.started = time.perf_counter()
        self._progress, self._items, self._quarantined = progress, items, quarantined
        self._done = Tally()

    def __call__(self, tally: Tally) -> None:
        self._done.add(tally)
        if self._progress is not None:
            seconds = time.perf_counter() - self.started
            quarantined = self._quarantined + self._done.failed
            done = replace(self._done, seconds=dict(self._done.seconds))
            self._progress(Progress(done, self._items, seconds, quarantined))


def _check(
    quarantined: Sequence[Quarantined], manifest: pd.DataFrame, config: BackboneConfig, out: str | Path
) -> None:
    """Raise ValueError if too many recordings are quarantined, in any view; the list has been written."""
    path, bad = quarantine_path(out), {row.id: row for row in reversed(quarantined)}
    recordings = list(reversed(bad.values()))
    try:
        check_bad_fraction(recordings, len(manifest) - len(bad), config.max_bad_fraction, path)
    except ValueError:
        write_if_changed(path, quarantine_csv(quarantined))
        raise


def _quarantined(row: Row, path: str, text: str) -> Quarantined:
    reason, _, detail = text.partition(": ")
    return Quarantined(row.id, path, "extract", reason, in_view(row.item.view, detail))
