"""Stage one: run a frozen backbone over a manifest once, and store its frames."""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import soundfile
import torch
from numpy.typing import NDArray

from cache import Item, Row, Spec, StoreWriter, Unit, write_unit
from cache.batches import length_bucketed, pad
from pipeline.audio import AUDIO_VERSION, BadAudio, load_waveform, resampled_length
from pipeline.backbones import Backbone, build_backbone
from pipeline.config.backbone import BackboneConfig
from pipeline.device import pick_device
from pipeline.manifest import write_if_changed
from pipeline.memory import flat_memory
from pipeline.quarantine import Quarantined, check_bad_fraction, quarantine_csv

MAX_BATCH_ROWS = 64
_LIBRARIES = {"fbank": ("torch",), "wav2vec2": ("torch", "transformers"), "mbert": ("torch", "transformers")}

Progress = Callable[[int, int], None]  # distinct items done, items to do


@dataclass(frozen=True)
class ExtractResult:
    """What a run of the stage did: `forwards` counts the items that went through the backbone."""

    rows: int
    forwards: int
    units: int
    batches: int
    quarantined: tuple[Quarantined, ...]
    rebuilt: tuple[str, ...]  # fields in which the store that was given up differed


class _Source(NamedTuple):
    """Where one distinct item comes from: a row of the manifest, and its length in samples or tokens."""

    id: str
    path: str
    text: str | None
    sha256: str
    length: int


def extract(
    config: BackboneConfig,
    manifest: pd.DataFrame,
    out: str | Path,
    *,
    rebuild: bool = False,
    device: str = "auto",
    progress: Progress | None = None,
    shard_frames: int = 0,
) -> ExtractResult:
    """Bring the store at `out` to hold just the rows of `manifest`; only what is new runs.

    Rows without frames go to `<out>.quarantine.csv` with their reason. Raises FingerprintMismatch when the
    store was made with other settings and not `rebuild`, StoreLocked when another process writes it, and
    ValueError when more than `config.max_bad_fraction` of the rows are bad.
    """
    out = Path(out)
    backbone = build_backbone(config).to(pick_device(device)).eval()
    rows, sources, quarantined = _plan_rows(backbone, manifest)
    try:
        check_bad_fraction(quarantined, len(rows), config.max_bad_fraction, quarantine_path(out))
    except ValueError:
        _write_quarantine(out, quarantined)
        raise
    spec = Spec(
        dim=backbone.dim,
        layers=backbone.num_layers if backbone.num_layers > 1 else 0,
        dtype=config.storage_dtype,
        shard_frames=shard_frames,
    )
    counter = _Counter(progress)
    with StoreWriter(out, spec, fingerprint(backbone), rebuild=rebuild) as writer:
        pending = writer.plan(rows)
        counter.total = sum(len(unit.items) for unit in pending)
        with flat_memory(), ThreadPoolExecutor(max_workers=1) as pool:
            for unit in pending:
                batches = _batches(unit, config.max_batch_frames)
                frames = _frames(backbone, sources, unit, batches, pool, counter)
                write_unit(out, spec, unit, frames)
        failed = writer.finish()
        quarantined += [
            Quarantined(row.id, sources[row.item].path, "extract", *_split_reason(failed[row.item]))
            for row in rows
            if row.item in failed
        ]
        _write_quarantine(out, quarantined)
    usable = len(manifest) - len(quarantined)
    check_bad_fraction(quarantined, usable, config.max_bad_fraction, quarantine_path(out))
    return ExtractResult(
        rows=usable,
        forwards=counter.forwards,
        units=len(pending),
        batches=counter.batches,
        quarantined=tuple(quarantined),
        rebuilt=tuple(writer.rebuilt),
    )


def fingerprint(backbone: Backbone) -> dict[str, Any]:
    """Everything that a backbone's stored numbers depend on, versions of the libraries included.

    Versions count by major.minor: patch releases do not change numbers on purpose.
    """
    fields = backbone.fingerprint()
    libraries = {name: version(name) for name in _LIBRARIES[fields["kind"]]}
    if backbone.modality == "audio":
        libraries |= {"soxr": version("soxr"), "libsndfile": soundfile.__libsndfile_version__}
        fields["audio_version"] = AUDIO_VERSION
    return fields | {"libraries": {name: ".".join(text.split(".")[:2]) for name, text in libraries.items()}}


def quarantine_path(store: Path) -> Path:
    """Where `extract` lists the rows that a store does not have."""
    return store.with_name(f"{store.name}.quarantine.csv")


@dataclass
class _Counter:
    progress: Progress | None
    total: int = 0
    done: int = 0
    forwards: int = 0
    batches: int = 0

    def advance(self, done: int, forwards: int) -> None:
        self.done += done
        self.forwards += forwards
        self.batches += bool(forwards)
        if self.progress is not None:
            self.progress(self.done, self.total)


def _plan_rows(
    backbone: Backbone, manifest: pd.DataFrame
) -> tuple[list[Row], dict[Item, _Source], list[Quarantined]]:
    """Frame counts of all rows, before any of them is read; rows that can have none are quarantined."""
    rows: list[Row] = []
    sources: dict[Item, _Source] = {}
    quarantined: list[Quarantined] = []
    for record in manifest.to_dict("records"):
        bad = None
        try:
            source = _source(backbone, record)
        except BadAudio as error:
            bad = Quarantined(record["id"], record["path"], "extract", error.reason, error.detail)
        except ValueError as error:
            bad = Quarantined(record["id"], record["path"], "extract", "bad_text", str(error))
        if bad is not None:
            quarantined.append(bad)
            continue
        item = Item(source.sha256, 0)
        sources.setdefault(item, source)
        rows.append(Row(source.id, item, backbone.num_frames(source.length)))
    return rows, sources, quarantined


def _source(backbone: Backbone, record: dict[Any, Any]) -> _Source:
    id_, path = str(record["id"]), str(record["path"])
    if backbone.modality == "text":
        text = record.get("text")
        if not isinstance(text, str) or not text.strip():
            raise ValueError("no text in the manifest's column `text`")
        sha256 = hashlib.sha256(text.encode()).hexdigest()
        return _Source(id_, path, text, sha256, len(backbone.tokenize(text)))
    assert backbone.sample_rate is not None
    length = resampled_length(int(record["num_samples"]), int(record["sample_rate"]), backbone.sample_rate)
    if backbone.num_frames(length) < 1:
        raise BadAudio("too_short", f"{length} samples at {backbone.sample_rate} Hz: less than one frame")
    return _Source(id_, path, None, str(record["sha256"]), length)


def _batches(unit: Unit, max_frames: int) -> list[list[Item]]:
    """Batches depend on the unit alone, so that a resumed run repeats them bit by bit."""
    lengths = np.array(unit.lengths, dtype=np.int64)
    batches = length_bucketed(lengths, max_rows=MAX_BATCH_ROWS, max_frames=max_frames)
    return [[unit.items[i] for i in batch] for batch in batches]


def _frames(
    backbone: Backbone,
    sources: dict[Item, _Source],
    unit: Unit,
    batches: list[list[Item]],
    pool: ThreadPoolExecutor,
    counter: _Counter,
) -> Iterator[tuple[Item, NDArray[Any] | str]]:
    device = next((tensor.device for tensor in backbone.state_dict().values()), torch.device("cpu"))
    loads = ([(item, sources[item]) for item in batch] for batch in batches)
    for loaded in _ahead(pool, lambda batch: [_load(backbone, *pair) for pair in batch], loads):
        good = [(item, values) for item, values in loaded if not isinstance(values, str)]
        yield from ((item, reason) for item, reason in loaded if isinstance(reason, str))
        if good:
            values, lengths = pad([values for _, values in good])
            with torch.inference_mode():
                frames = backbone(torch.from_numpy(values).to(device), torch.from_numpy(lengths).to(device))
            result = frames.values.float().cpu().numpy()
            for row, length, (item, _) in zip(result, frames.lengths.tolist(), good, strict=True):
                yield item, row[:length]
        counter.advance(len(loaded), len(good))


def _load(backbone: Backbone, item: Item, source: _Source) -> tuple[Item, NDArray[Any] | str]:
    if source.text is not None:
        return item, np.array(backbone.tokenize(source.text), dtype=np.int64)
    assert backbone.sample_rate is not None
    try:
        waveform = load_waveform(source.path, backbone.sample_rate, expected_sha256=source.sha256)
    except BadAudio as error:
        return item, str(error)  # "reason: detail"
    if len(waveform) != source.length:
        return item, f"changed: {len(waveform)} samples, {source.length} planned; run prepare again"
    return item, waveform


def _ahead(pool: ThreadPoolExecutor, load: Callable[[Any], Any], batches: Iterable[Any]) -> Iterator[Any]:
    """load(batch) of each batch in order, the next one read while the caller works on this one."""
    waiting = None
    for batch in batches:
        following = pool.submit(load, batch)
        if waiting is not None:
            yield waiting.result()
        waiting = following
    if waiting is not None:
        yield waiting.result()


def _write_quarantine(out: Path, quarantined: list[Quarantined]) -> None:
    out.parent.mkdir(parents=True, exist_ok=True)
    write_if_changed(quarantine_path(out), quarantine_csv(quarantined))


def _split_reason(text: str) -> tuple[str, str]:
    reason, _, detail = text.partition(": ")
    return reason, detail
