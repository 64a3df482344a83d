import logging
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from stillwave.cache import EmbeddingStore
from stillwave.pipeline.backbones import Frames, build_backbone
from stillwave.pipeline.backbones.fbank import Fbank, FbankConfig
from stillwave.pipeline.backbones.numerics import compute_in, hold_weights
from stillwave.pipeline.backbones.wav2vec2 import Wav2Vec2Config
from stillwave.pipeline.corpora.manifest import read_manifest
from stillwave.pipeline.extract import budget, engine
from stillwave.pipeline.extract.stage import Progress, extract
from tests.fakes import files_of, write_speech

FBANK = FbankConfig(kind="fbank", deltas=0)
TINY = Wav2Vec2Config(kind="wav2vec2", weights="random", size="tiny")


def failing_above(frames: int, seen: list[int]) -> Any:
    """Fbank's forward on a device with memory for so many frames, padding included."""
    forward = Fbank.forward

    def limited(self: Fbank, batch: torch.Tensor, lengths: torch.Tensor) -> Frames:
        seen.append(len(batch) * self.num_frames(batch.shape[1]))
        if seen[-1] > frames:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return forward(self, batch, lengths)

    return limited


def test_out_of_memory_halves_the_batches_says_so_and_loses_nothing(
    manifest: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    extract(FBANK, manifest, tmp_path / "whole.zarr")
    seen: list[int] = []
    monkeypatch.setattr(Fbank, "forward", failing_above(300, seen))
    with caplog.at_level(logging.WARNING):
        result = extract(FBANK, manifest, tmp_path / "a.zarr")
    assert (result.rows, result.quarantined) == (len(manifest), ())
    assert max(seen) > 300
    assert "max_batch_frames: " in caplog.text
    assert "out of memory on cpu with a batch of" in caplog.text
    whole, store = EmbeddingStore(tmp_path / "whole.zarr"), EmbeddingStore(tmp_path / "a.zarr")
    for expected, frames in zip(whole, store, strict=True):
        np.testing.assert_allclose(frames, expected, rtol=2e-3, atol=1e-3)


def test_an_item_that_alone_does_not_fit_is_quarantined(
    manifest: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames = sorted(build_backbone(FBANK).num_frames(n) for n in manifest["num_samples"])
    monkeypatch.setattr(Fbank, "forward", failing_above(frames[-2], []))
    result = extract(FBANK, manifest, tmp_path / "a.zarr")
    assert [row.reason for row in result.quarantined] == ["out_of_memory"]
    assert "samples or tokens alone do not fit cpu" in result.quarantined[0].detail
    assert len(EmbeddingStore(tmp_path / "a.zarr")) == len(manifest) - 1


def test_any_other_error_of_the_model_stops_the_run(
    manifest: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> Frames:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    monkeypatch.setattr(Fbank, "forward", broken)
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        extract(FBANK, manifest, tmp_path / "a.zarr")
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("stillwave")] == []


def test_real_exhaustion_of_memory_is_told_from_other_errors() -> None:
    with pytest.raises(RuntimeError) as info:
        torch.empty(2**60, dtype=torch.uint8)
    assert budget.is_out_of_memory(info.value)
    assert budget.is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))
    assert budget.is_out_of_memory(MemoryError())
    with pytest.raises(RuntimeError) as info:
        torch.ones(2, 3) @ torch.ones(2, 3)
    assert not budget.is_out_of_memory(info.value)
    assert budget.is_out_of_memory(RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"))


@pytest.mark.parametrize(
    ("free", "per_frame", "frames"),
    [(1e9, 1e6, 1000), (2e9, 1e6, 2000), (3.9e9, 1e6, 2000), (1e3, 1e6, 1000), (1e15, 1e6, 16_000)],
)
def test_the_budget_is_the_largest_step_that_fits(free: float, per_frame: float, frames: int) -> None:
    assert budget.fitting(free, per_frame) == frames


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("threads", [1, 2, 5])
def test_frames_do_not_depend_on_the_number_of_threads(
    threads: int, precision: str, manifest: pd.DataFrame, tmp_path: Path
) -> None:
    """To the bit: every batch is computed by one thread, however many batches are computed at once."""
    config = TINY.model_copy(update={"max_batch_frames": 100, "precision": precision})
    extract(config, manifest, tmp_path / "one.zarr", shard_frames=256)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        extract(config, manifest, tmp_path / "more.zarr", shard_frames=256)
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert files_of(tmp_path / "more.zarr") == files_of(tmp_path / "one.zarr")


def test_batches_are_computed_side_by_side(
    manifest: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two forwards wait for each other: one at a time, they would wait forever."""
    barrier, forward = threading.Barrier(2, timeout=20), Fbank.forward
    first: list[int] = []

    def meeting(self: Fbank, batch: torch.Tensor, lengths: torch.Tensor) -> Frames:
        if len(first) < 2:
            first.append(1)
            barrier.wait()
        return forward(self, batch, lengths)

    monkeypatch.setattr(Fbank, "forward", meeting)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        extract(FBANK.model_copy(update={"max_batch_frames": 200}), manifest, tmp_path / "a.zarr")
    finally:
        torch.set_num_threads(before)
    assert not barrier.broken


def test_the_next_unit_is_computed_while_one_is_written(
    manifest: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first write waits until a batch of a later unit has been computed."""
    computed, write = threading.Event(), engine.write_unit
    forward, forwards = Fbank.forward, []

    def counted(self: Fbank, batch: torch.Tensor, lengths: torch.Tensor) -> Frames:
        forwards.append(1)
        if writing.is_set():
            computed.set()
        return forward(self, batch, lengths)

    writing = threading.Event()

    def waiting(*arguments: Any) -> Any:
        writing.set()
        assert computed.wait(20)
        return write(*arguments)

    monkeypatch.setattr(Fbank, "forward", counted)
    monkeypatch.setattr(engine, "write_unit", waiting)
    result = extract(FBANK, manifest, tmp_path / "a.zarr", shard_frames=256)
    assert result.units > 4


def test_a_full_disk_stops_the_run_at_once_and_the_next_one_goes_on(
    manifest: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, written = engine.write_unit, []

    def full(out: Any, spec: Any, unit: Any, frames: Any, plan: Any) -> Any:
        if len(written) == 2:
            raise OSError(28, "No space left on device", str(out))
        written.append(unit.number)
        return write(out, spec, unit, frames, plan)

    with monkeypatch.context() as patch:
        patch.setattr(engine, "write_unit", full)
        with pytest.raises(OSError, match=r"No space left on device.*a\.zarr"):
            extract(FBANK, manifest, tmp_path / "a.zarr", shard_frames=256)
    extract(FBANK, manifest, tmp_path / "whole.zarr", shard_frames=256)
    result = extract(FBANK, manifest, tmp_path / "a.zarr", shard_frames=256)
    assert 0 < result.forwards < len(manifest)
    assert files_of(tmp_path / "a.zarr") == files_of(tmp_path / "whole.zarr")


def test_progress_counts_every_item_once_and_ends_at_the_whole(tmp_path: Path) -> None:
    manifest = read_manifest(write_speech(tmp_path / "speech") / "manifest.parquet")
    seen: list[tuple[int, float, int, int]] = []

    def watch(progress: Progress) -> None:
        done = progress.done
        seen.append((done.items, done.audio_s, progress.items, progress.quarantined))

    Path(manifest["path"][3]).write_bytes(b"RIFF")
    result = extract(
        FBANK.model_copy(update={"max_bad_fraction": 0.5}), manifest, tmp_path / "a.zarr", progress=watch
    )
    assert [row[0] for row in seen] == sorted(row[0] for row in seen)
    items, audio_s, total, quarantined = seen[-1]
    assert (items, total, quarantined) == (len(manifest), len(manifest), 1)
    good = manifest.drop(index=3)
    assert audio_s == pytest.approx(float((good["num_samples"] / good["sample_rate"]).sum()), abs=0.01)
    assert result.audio_s == audio_s
    assert {"plan", "load", "forward", "write", "wall"} == result.seconds.keys()
    assert min(result.seconds.values()) > 0


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_held_weights_give_the_frames_of_autocast(precision: str) -> None:
    """Bit by bit, where autocast would cast the same weights: nothing is lost by casting them once."""
    generator = torch.Generator().manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Conv1d(4, 8, 3),
        torch.nn.utils.parametrizations.weight_norm(torch.nn.Conv1d(8, 8, 3, groups=2), dim=2),
        torch.nn.LayerNorm(18),
        torch.nn.Linear(18, 7),
    )
    values = torch.randn(2, 4, 22, generator=generator)
    with torch.inference_mode(), compute_in(precision, torch.device("cpu")):
        expected = model(values)
        hold_weights(model, precision)
        assert torch.equal(model(values), expected)
    assert model[0].weight.dtype != torch.float32
    assert model[2].weight.dtype == torch.float32
    assert not torch.nn.utils.parametrize.is_parametrized(model[1])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")
def test_compiled_frames_are_those_of_the_plain_model(manifest: pd.DataFrame, tmp_path: Path) -> None:
    extract(TINY, manifest[:6], tmp_path / "plain.zarr")
    extract(TINY.model_copy(update={"compile": True}), manifest[:6], tmp_path / "compiled.zarr")
    plain, compiled = EmbeddingStore(tmp_path / "plain.zarr"), EmbeddingStore(tmp_path / "compiled.zarr")
    for expected, frames in zip(plain, compiled, strict=True):
        np.testing.assert_allclose(frames, expected, rtol=2e-3, atol=2e-3)


def test_an_item_is_tried_alone_before_it_is_given_up(
    manifest: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A device with memory for any one item, but not while another thread is using it."""
    forward, using = Fbank.forward, threading.Lock()

    def crowded(self: Fbank, batch: torch.Tensor, lengths: torch.Tensor) -> Frames:
        if len(batch) > 1 or not using.acquire(blocking=False):
            raise torch.OutOfMemoryError("CUDA out of memory.")
        try:
            time.sleep(0.01)
            return forward(self, batch, lengths)
        finally:
            using.release()

    monkeypatch.setattr(Fbank, "forward", crowded)
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        result = extract(FBANK, manifest, tmp_path / "a.zarr")
    finally:
        torch.set_num_threads(before)
    assert (result.rows, result.quarantined) == (len(manifest), ())


def test_batches_planned_before_memory_ran_out_are_cut_too(
    manifest: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    monkeypatch.setattr(Fbank, "forward", failing_above(300, seen))
    extract(FBANK, manifest, tmp_path / "a.zarr")
    assert sum(frames > 300 for frames in seen) <= 2  # once, and as often as batches were under way
