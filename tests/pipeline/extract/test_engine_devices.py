"""Extraction end to end on each device: the same bytes twice, no races, memory that runs out."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

from stillwave.cache import EmbeddingStore
from stillwave.pipeline.backbones import Frames, build_backbone
from stillwave.pipeline.backbones.fbank import Fbank, FbankConfig
from stillwave.pipeline.backbones.mbert import MbertConfig
from stillwave.pipeline.backbones.wav2vec2 import Wav2Vec2Config
from stillwave.pipeline.corpora.manifest import read_manifest
from stillwave.pipeline.corpora.prepare import prepare
from stillwave.pipeline.extract import budget, engine
from stillwave.pipeline.extract.engine import Engine
from stillwave.pipeline.extract.stage import extract
from tests.devices import on_a_gpu, on_each_device
from tests.fakes import files_of, speech_config, write_speech, write_wave

TINY = Wav2Vec2Config(kind="wav2vec2", weights="random", size="tiny", max_batch_frames=100)
HALF = TINY.model_copy(update={"precision": "bf16"})
CONFIGS = {
    "fp32": TINY,
    "bf16": HALF,
    "text": MbertConfig(kind="mbert", weights="random", size="tiny", max_batch_frames=10),
}


@on_each_device
@pytest.mark.parametrize("name", CONFIGS)
def test_two_extractions_give_the_same_bytes(
    name: str, device: str, manifest: pd.DataFrame, tmp_path: Path
) -> None:
    for run in ("a", "b"):
        result = extract(CONFIGS[name], manifest, tmp_path / f"{run}.zarr", device=device, shard_frames=256)
        assert (result.rows, result.quarantined) == (len(manifest), ())
        assert result.batches > 3
    assert files_of(tmp_path / "a.zarr") == files_of(tmp_path / "b.zarr")


@on_each_device
def test_batches_side_by_side_give_the_frames_of_one_after_the_other(
    device: str, manifest: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where copies or memory of two batches got in each other's way, frames would be another's."""
    frames = {}
    for threads in (1, 2):
        monkeypatch.setattr(engine, "_threads", lambda *_, threads=threads: threads)
        extract(TINY, manifest, tmp_path / f"{threads}.zarr", device=device, shard_frames=256)
        frames[threads] = list(EmbeddingStore(tmp_path / f"{threads}.zarr"))
    for one, two in zip(frames[1], frames[2], strict=True):
        np.testing.assert_allclose(one.astype(np.float32), two.astype(np.float32), rtol=2e-3, atol=1e-3)


@on_each_device
def test_stored_frames_are_those_of_items_alone(device: str, manifest: pd.DataFrame, tmp_path: Path) -> None:
    extract(TINY, manifest, tmp_path / "a.zarr", device=device)
    extract(TINY, manifest, tmp_path / "cpu.zarr", device="cpu")
    for frames, expected in zip(
        EmbeddingStore(tmp_path / "a.zarr"), EmbeddingStore(tmp_path / "cpu.zarr"), strict=True
    ):
        np.testing.assert_allclose(frames.astype(np.float32), expected, rtol=2e-3, atol=1e-3)


@on_each_device
def test_auto_chooses_a_budget_and_says_the_padding(
    device: str, manifest: pd.DataFrame, tmp_path: Path
) -> None:
    config = TINY.model_copy(update={"max_batch_frames": "auto"})
    with Engine(build_backbone(config), config, torch.device(device)) as running:
        chosen = running.max_frames
    if device == "cpu":
        assert chosen == budget.CPU_BATCH_FRAMES
    else:
        assert chosen in [budget.SMALLEST * 2**n for n in range(5)]
    result = extract(config, manifest, tmp_path / "a.zarr", device=device)
    backbone = build_backbone(config)
    lengths = np.sort([backbone.num_frames(n) for n in manifest["num_samples"]])
    if device != "cpu":  # everything in one batch
        assert result.padding == pytest.approx(1 - lengths.mean() / lengths.max())
    assert 0 < result.padding < 0.5


class Huge(Fbank):
    """Frames that fp16 cannot hold, in the first item of each batch, and a NaN in the last one."""

    def forward(self, batch: Tensor, lengths: Tensor) -> Frames:
        values, counts = super().forward(batch, lengths)
        values[0, 0, 0] = 1e6
        values[-1, 0, 0] = torch.nan
        return Frames(values, counts)


@on_each_device
def test_frames_that_the_stored_type_cannot_hold_are_named(
    device: str, manifest: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From a GPU frames come in the stored type, which makes an infinity of what is too large."""
    monkeypatch.setattr("stillwave.pipeline.extract.stage.build_backbone", lambda config: Huge(config).eval())
    config = FbankConfig(kind="fbank", deltas=0, max_batch_frames=100_000, max_bad_fraction=0.5)
    result = extract(config, manifest, tmp_path / "a.zarr", device=device)
    assert sorted(row.reason for row in result.quarantined) == ["non_finite", "overflow"]
    overflow = next(row for row in result.quarantined if row.reason == "overflow")
    assert "1e+06 does not fit float16" in overflow.detail


@contextmanager
def memory_for(config: Wav2Vec2Config, rows: int, samples: int, part: float) -> Iterator[None]:
    """Leave torch the GPU memory of the weights, and a part of what a batch of (rows, samples) takes."""
    before = torch.cuda.memory_allocated()
    backbone = build_backbone(config).cuda()
    held = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    with torch.inference_mode():
        backbone(torch.zeros(rows, samples, device="cuda"), torch.full((rows,), samples))
    enough = held - before + part * (torch.cuda.max_memory_allocated() - held)
    del backbone
    torch._C._cuda_clearCublasWorkspaces()  # those of other streams, 32 MiB each
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + enough) / total)
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
        torch.cuda.empty_cache()


@on_a_gpu
def test_out_of_memory_halves_the_batches_and_continues(
    device: str, manifest: pd.DataFrame, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = TINY.model_copy(update={"size": "base", "max_batch_frames": 16_000})
    longest = int(manifest["num_samples"].max())
    extract(config, manifest, tmp_path / "whole.zarr", device=device)
    with memory_for(config, len(manifest), longest, part=0.6):
        result = extract(config, manifest, tmp_path / "a.zarr", device=device)
    assert (result.rows, result.quarantined) == (len(manifest), ())
    assert "out of memory on cuda with a batch of" in caplog.text
    whole, store = EmbeddingStore(tmp_path / "whole.zarr"), EmbeddingStore(tmp_path / "a.zarr")
    for frames, expected in zip(store, whole, strict=True):
        np.testing.assert_allclose(frames.astype(np.float32), expected, rtol=2e-3, atol=1e-3)


@on_a_gpu
def test_an_item_that_does_not_fit_alone_is_quarantined(device: str, tmp_path: Path) -> None:
    write_wave(tmp_path / "wav" / "long.wav", 90.0, 150, seed=99)
    write_speech(tmp_path, count=8)
    table = (tmp_path / "table.csv").read_text() + "wav/long.wav,low,s0,a long one\n"
    (tmp_path / "table.csv").write_text(table)
    prepare(speech_config(max_duration_s=None), tmp_path, tmp_path / "manifest.parquet")
    manifest = read_manifest(tmp_path / "manifest.parquet")
    config = TINY.model_copy(update={"size": "base", "max_batch_frames": 500, "max_bad_fraction": 0.5})
    with memory_for(config, 1, 90 * 16_000, part=0.6):
        result = extract(config, manifest, tmp_path / "a.zarr", device=device)
    assert [(row.id, row.reason) for row in result.quarantined] == [("wav/long", "out_of_memory")]
    assert len(EmbeddingStore(tmp_path / "a.zarr")) == 8
