import hashlib
import multiprocessing
import os
import random
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from stillwave.cache import EmbeddingStore, FingerprintMismatch, StoreError, ledger
from stillwave.cache.places import open_storage
from stillwave.cache.verify import repair
from stillwave.pipeline.audio.augment import apply, draw
from stillwave.pipeline.audio.segments import load_waveform
from stillwave.pipeline.backbones import BackboneConfig, Frames, build_backbone
from stillwave.pipeline.backbones.fbank import Fbank, FbankConfig
from stillwave.pipeline.backbones.mbert import MbertConfig
from stillwave.pipeline.backbones.wav2vec2 import Wav2Vec2Config
from stillwave.pipeline.config.views import GaussianEffect, SpeedEffect, ViewsConfig
from stillwave.pipeline.corpora.manifest import read_manifest
from stillwave.pipeline.corpora.prepare import prepare
from stillwave.pipeline.extract.stage import extract, quarantine_path
from stillwave.pipeline.runs.origins import check_fresh
from tests.fakes import files_of, speech_config, write_speech, write_wave
from tests.zoo import encode_av, tone

FBANK = FbankConfig(kind="fbank", deltas=0)
VIEWS = ViewsConfig(count=2, speed=SpeedEffect(probability=0.7), gaussian=GaussianEffect(probability=0.7))
TINY = {"weights": "random", "size": "tiny"}
CONFIGS: dict[str, BackboneConfig] = {
    "fbank": FBANK,
    "wav2vec2": Wav2Vec2Config(kind="wav2vec2", **TINY),
    "wav2vec2_all": Wav2Vec2Config(kind="wav2vec2", layers="all", **TINY),
    "mbert": MbertConfig(kind="mbert", **TINY),
}


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_stored_frames_are_those_of_the_item_alone(
    config: BackboneConfig, manifest: pd.DataFrame, tmp_path: Path
) -> None:
    result = extract(config, manifest, tmp_path / "a.zarr", shard_frames=512)
    assert result.rows == len(manifest)
    store, backbone = EmbeddingStore(tmp_path / "a.zarr"), build_backbone(config)
    assert store.ids.tolist() == manifest["id"].tolist()
    for i in range(0, len(manifest), 5):
        if backbone.modality == "audio":
            assert backbone.sample_rate is not None
            item = torch.from_numpy(load_waveform(manifest["path"][i], backbone.sample_rate))
        else:
            item = torch.tensor(backbone.tokenize(manifest["text"][i]))
        with torch.inference_mode():
            alone = backbone(item[None], torch.tensor([len(item)])).values[0].numpy()
        assert store[i].shape == alone.shape
        np.testing.assert_allclose(store[i], alone, rtol=2e-3, atol=2e-3 * np.abs(alone).max())


def test_equal_texts_are_embedded_once(manifest: pd.DataFrame, tmp_path: Path) -> None:
    result = extract(CONFIGS["mbert"], manifest, tmp_path / "a.zarr")
    assert result.rows == len(manifest)
    assert result.forwards == manifest["text"].nunique()
    store = EmbeddingStore(tmp_path / "a.zarr")
    assert store.content_key[0] == hashlib.sha256(manifest["text"][0].encode()).hexdigest()


def test_a_second_run_does_nothing_and_one_more_row_is_one_more_forward(tmp_path: Path) -> None:
    folder = write_speech(tmp_path / "speech", count=100)
    manifest, out = read_manifest(folder / "manifest.parquet"), tmp_path / "a.zarr"
    first = extract(FBANK, manifest[:-1], out, shard_frames=1024)
    assert first.forwards == 99
    assert extract(FBANK, manifest[:-1], out, shard_frames=1024).forwards == 0
    old = {file: (file.stat().st_mtime_ns, file.read_bytes()) for file in (out / "frames/c").glob("*/0")}
    added = extract(FBANK, manifest, out, shard_frames=1024)
    assert (added.forwards, added.units) == (1, 1)
    assert {file: (file.stat().st_mtime_ns, file.read_bytes()) for file in old} == old


def test_a_changed_file_is_extracted_again_and_a_removed_one_leaves(tmp_path: Path) -> None:
    folder = write_speech(tmp_path / "speech", count=12)
    out = tmp_path / "a.zarr"
    extract(FBANK, read_manifest(folder / "manifest.parquet"), out)
    write_wave(folder / "wav/003.wav", 0.5, 300, seed=99)
    lines = (folder / "table.csv").read_text().splitlines()
    (folder / "table.csv").write_text("\n".join(lines[:-1]))
    prepare(speech_config(), folder, folder / "manifest.parquet")
    manifest = read_manifest(folder / "manifest.parquet")
    result = extract(FBANK, manifest, out)
    assert (result.rows, result.forwards) == (11, 1)
    store = EmbeddingStore(out)
    assert store.ids.tolist() == manifest["id"].tolist()
    assert len(store[3]) == 48  # 0.5 s: 1 + (8000 - 400) // 160


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda file: file.unlink(), "missing"),
        (lambda file: write_wave(file, 0.4, 100, seed=5), "changed"),
        (lambda file: file.write_bytes(b""), "empty"),
    ],
)
def test_a_file_lost_or_changed_since_prepare_is_quarantined(
    damage: object, reason: str, tmp_path: Path
) -> None:
    folder = write_speech(tmp_path / "speech", count=12)
    manifest, out = read_manifest(folder / "manifest.parquet"), tmp_path / "a.zarr"
    damage(folder / "wav/004.wav")  # type: ignore[operator]
    result = extract(FBANK.model_copy(update={"max_bad_fraction": 0.1}), manifest, out)
    assert [(row.id, row.reason) for row in result.quarantined] == [(manifest["id"][4], reason)]
    listed = pd.read_csv(quarantine_path(out))
    assert listed[["stage", "reason"]].to_numpy().tolist() == [["extract", reason]]
    assert len(EmbeddingStore(out)) == 11
    with pytest.raises(ValueError, match=r"1 of 12 rows are unusable \(1 .*max_bad_fraction = 5.0%"):
        extract(FBANK, manifest, out)


def test_what_is_too_short_for_a_frame_is_known_before_anything_runs(tmp_path: Path) -> None:
    folder = write_speech(tmp_path / "speech", count=12)
    write_wave(folder / "wav/000.wav", 0.02, 100, seed=1)
    prepare(speech_config(), folder, folder / "manifest.parquet")
    config = FBANK.model_copy(update={"max_bad_fraction": 0.1})
    result = extract(config, read_manifest(folder / "manifest.parquet"), tmp_path / "a.zarr")
    assert [(row.reason, row.detail) for row in result.quarantined] == [
        ("too_short", "320 samples at 16000 Hz: less than one frame")
    ]


def test_rows_without_text_are_quarantined_by_a_text_backbone(manifest: pd.DataFrame, tmp_path: Path) -> None:
    manifest.loc[[2, 5], "text"] = [None, "  "]
    config = CONFIGS["mbert"].model_copy(update={"max_bad_fraction": 0.2})
    result = extract(config, manifest, tmp_path / "a.zarr")
    assert [(row.id, row.reason) for row in result.quarantined] == [
        (manifest["id"][2], "bad_text"),
        (manifest["id"][5], "bad_text"),
    ]


@pytest.mark.parametrize(
    ("kind", "change", "named"),
    [
        ("wav2vec2", {"seed": 1}, "weights: stored"),
        ("wav2vec2", {"layers": [0]}, "layers"),
        ("wav2vec2", {"precision": "bf16"}, "precision: stored 'fp32', now 'bf16'"),
        ("fbank", {"low_hz": 50.0}, "low_hz: stored 20.0, now 50.0"),
        ("fbank", {"kaldi": True}, "kaldi: stored False, now True"),
        ("fbank", {"storage_dtype": "float32"}, "dtype: stored 'float16', now 'float32'"),
        ("mbert", {"seed": 1}, "weights: stored"),
    ],
)
def test_another_setting_is_named_and_rebuilt_on_request(
    kind: str, change: dict[str, object], named: str, manifest: pd.DataFrame, tmp_path: Path
) -> None:
    few, out = manifest[:4], tmp_path / "a.zarr"
    extract(CONFIGS[kind], few, out)
    other = type(CONFIGS[kind]).model_validate(CONFIGS[kind].model_dump() | change)
    with pytest.raises(FingerprintMismatch, match=named):
        extract(other, few, out)
    result = extract(other, few, out, rebuild=True)
    assert result.forwards > 0
    assert any(named in difference for difference in result.rebuilt)


def test_run_time_knobs_do_not_invalidate_a_store(manifest: pd.DataFrame, tmp_path: Path) -> None:
    extract(FBANK, manifest, tmp_path / "a.zarr")
    other = FBANK.model_copy(update={"max_batch_frames": 100, "max_bad_fraction": 0.5})
    assert extract(other, manifest, tmp_path / "a.zarr").forwards == 0


def test_damage_is_healed_by_extracting_only_its_rows(manifest: pd.DataFrame, tmp_path: Path) -> None:
    out = tmp_path / "a.zarr"
    first = extract(FBANK, manifest, out, shard_frames=512)
    sound = files_of(out)
    shard = out / "frames/c/1/0"
    shard.write_bytes(shard.read_bytes()[::-1])
    _, hurt = repair(out)
    healed = extract(FBANK, manifest, out, shard_frames=512)
    assert 0 < healed.forwards == hurt < first.forwards
    assert files_of(out) == sound


def _extract_in_child(folder: Path, out: Path) -> None:
    torch.set_num_threads(1)
    extract(FBANK, read_manifest(folder / "manifest.parquet"), out, shard_frames=256)


@pytest.mark.slow
def test_killed_at_20_random_moments_the_store_ends_byte_identical(speech: Path, tmp_path: Path) -> None:
    """kill -9, then the same call again: equal bytes, and no unit that was done is done again."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__, "stillwave.pipeline.backbones.fbank"])
    manifest = read_manifest(speech / "manifest.parquet")
    whole = extract(FBANK, manifest, tmp_path / "whole.zarr", shard_frames=256)
    expected = files_of(tmp_path / "whole.zarr")
    _run_child(context, speech, tmp_path / "warm.zarr")
    started = time.monotonic()
    _run_child(context, speech, tmp_path / "timed.zarr")
    duration = time.monotonic() - started
    draw, done_at_kill = random.Random(0), []
    for trial in range(20):
        out = tmp_path / f"{trial}.zarr"
        # A random unit, then a random part of a unit's time: so spread on a busy machine too.
        _run_child(context, speech, out, draw.randrange(whole.units), draw.uniform(0, duration / whole.units))
        done = _units_done(out, whole.units)
        again = extract(FBANK, manifest, out, shard_frames=256)
        assert again.units == whole.units - done
        assert files_of(out) == expected
        done_at_kill.append(done)
        shutil.rmtree(out)
    assert len(set(done_at_kill)) > 5, f"the kills hit too few different moments: {done_at_kill}"


def _units_done(out: Path, total: int) -> int:
    """Units that a killed run has recorded as done, or all of a complete store."""
    if (out / "zarr.json").exists() and '"complete": true' in (out / "zarr.json").read_text():
        return total
    storage = open_storage(out)
    plan = ledger.load_plan(storage)
    return 0 if plan is None else len(plan.kept | ledger.load_records(storage, plan).keys())


def _run_child(
    context: object, speech: Path, out: Path, units: int | None = None, seconds: float = 0.0
) -> None:
    """Extract in a child process; killed `seconds` after it has recorded `units` units, or left to end."""
    child = context.Process(target=_extract_in_child, args=(speech, out))  # type: ignore[attr-defined]
    child.start()
    while units is not None and child.is_alive() and len(list(out.glob("units/*/*.json"))) < units:
        time.sleep(0.001)
    child.join(None if units is None else seconds)
    if child.is_alive():
        os.kill(child.pid, signal.SIGKILL)
        child.join()


def test_views_are_stored_beside_the_clean_rows_and_computed_once(
    manifest: pd.DataFrame, tmp_path: Path
) -> None:
    out, few = tmp_path / "a.zarr", manifest[:8]
    assert extract(FBANK, few, out).forwards == 8
    config = FBANK.model_copy(update={"views": VIEWS})
    added = extract(config, few, out)
    assert (added.rows, added.forwards) == (24, 16)  # the clean rows are there
    assert extract(config, few, out).forwards == 0
    store, backbone = EmbeddingStore(out), build_backbone(FBANK)
    for id_, path, sha256 in zip(few["id"], few["path"], few["sha256"], strict=True):
        for view in (1, 2):
            effects = draw(VIEWS, sha256, view)
            waveform = torch.from_numpy(apply(load_waveform(path, 16000), 16000, effects))
            expected = backbone(waveform[None], torch.tensor([len(waveform)])).values[0].numpy()
            frames = store[store.rows([id_], view=view)[0]]
            assert frames.shape == expected.shape
            np.testing.assert_allclose(frames, expected, rtol=2e-3, atol=2e-2)
    assert extract(FBANK, few, out).rows == 8  # asked for no more, they leave


def test_a_clip_too_short_for_a_frame_has_no_views_either(tmp_path: Path) -> None:
    """Slowed down it might have one: then it would be both stored and quarantined."""
    folder = write_speech(tmp_path / "speech", count=12)
    write_wave(folder / "wav/000.wav", 395 / 16000, 100, seed=1)
    prepare(speech_config(), folder, folder / "manifest.parquet")
    slow = ViewsConfig(count=2, speed=SpeedEffect(probability=1, low=0.5, high=0.5))
    config = FBANK.model_copy(update={"views": slow, "max_bad_fraction": 0.1})
    result = extract(config, read_manifest(folder / "manifest.parquet"), tmp_path / "a.zarr")
    assert [(row.id, row.reason) for row in result.quarantined] == [("wav/000", "too_short")]
    assert result.rows == 3 * 11


def test_views_do_not_dilute_the_bound_on_bad_recordings(manifest: pd.DataFrame, tmp_path: Path) -> None:
    manifest.loc[:3, "num_samples"] = 100  # 4 of 36: 11 %, of all rows with 20 views 0.6 %
    many = FBANK.model_copy(update={"views": VIEWS.model_copy(update={"count": 20})})
    with pytest.raises(ValueError, match=r"4 of 36 rows are unusable \(4 too_short\)"):
        extract(many, manifest, tmp_path / "a.zarr")


def test_what_a_view_fails_of_is_said(manifest: pd.DataFrame, tmp_path: Path) -> None:
    manifest.loc[2, "path"] = "gone.wav"
    config = FBANK.model_copy(update={"views": VIEWS, "max_bad_fraction": 0.1})
    result = extract(config, manifest, tmp_path / "a.zarr")
    assert [row.reason for row in result.quarantined] == ["missing"] * 3
    assert [row.detail.startswith("view ") for row in result.quarantined] == [False, True, True]
    assert result.rows == 3 * (len(manifest) - 1)


def test_nan_out_of_a_model_is_quarantined_and_never_stored(
    manifest: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model whose weights hold one NaN in a place that only long items reach."""
    forward = Fbank.forward

    def sick(self: Fbank, batch: torch.Tensor, lengths: torch.Tensor) -> Frames:
        frames = forward(self, batch, lengths)
        frames.values[:, 80:, 3] = float("nan")
        return frames

    monkeypatch.setattr(Fbank, "forward", sick)
    long = [build_backbone(FBANK).num_frames(n) > 80 for n in manifest["num_samples"]]
    config = FBANK.model_copy(update={"max_bad_fraction": 0.9})
    result = extract(config, manifest, tmp_path / "a.zarr")
    assert {row.id for row in result.quarantined} == set(manifest["id"][long])
    assert {row.reason for row in result.quarantined} == {"non_finite"}
    assert all(np.isfinite(frames).all() for frames in EmbeddingStore(tmp_path / "a.zarr"))


def test_overflow_to_float16_is_quarantined_with_its_remedy(
    manifest: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward = Fbank.forward

    def loud(self: Fbank, batch: torch.Tensor, lengths: torch.Tensor) -> Frames:
        frames = forward(self, batch, lengths)
        return Frames(1e6 * frames.values, frames.lengths)

    monkeypatch.setattr(Fbank, "forward", loud)
    with pytest.raises(ValueError, match=r"36 overflow.*does not fit float16; set storage_dtype: float32"):
        extract(FBANK, manifest, tmp_path / "a.zarr")
    assert (
        extract(FBANK.model_copy(update={"storage_dtype": "float32"}), manifest, tmp_path / "b.zarr").rows
        == 36
    )


def test_a_path_that_cannot_be_written_is_an_error_before_any_model_runs(
    manifest: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Fbank, "forward", None)
    with pytest.raises(StoreError, match=r"/proc/stillwave.*"):
        extract(FBANK, manifest, "/proc/stillwave/a.zarr")


def test_rows_that_ffmpeg_decodes_are_keyed_by_its_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = FBANK.model_copy(update={"max_bad_fraction": 0.2})
    root, out, store = tmp_path / "speech", tmp_path / "manifest.parquet", tmp_path / "fbank.zarr"
    write_speech(root, 12)
    first = sorted(root.rglob("*.wav"))[0]
    first.write_bytes(encode_av(tone(0.5), "aac", "ipod"))  # whatever its name
    prepare(speech_config(), root, out)
    manifest = read_manifest(out)
    spoken = manifest["path"] != ""
    assert extract(config, manifest, store).forwards == spoken.sum()
    made_by = EmbeddingStore(store).fingerprint
    keys = dict(
        zip(EmbeddingStore(store).ids.tolist(), EmbeddingStore(store).content_key.tolist(), strict=True)
    )
    for row in manifest[spoken].to_dict("records"):
        assert (keys[row["id"]] == row["sha256"]) == (row["decoder"] is None)
    # Another FFmpeg: its row alone is computed again, and the fingerprint is the same.
    monkeypatch.setattr("stillwave.pipeline.audio.ffmpeg.VERSION", "99.1")
    again = extract(config, manifest, store)
    assert (again.forwards, EmbeddingStore(store).fingerprint) == (1, made_by)
    check_fresh(EmbeddingStore(store), np.arange(int(spoken.sum())), manifest[spoken].reset_index(drop=True))
    # A manifest from before: what libsndfile once counted is not what FFmpeg finds.
    old = extract(config, manifest.drop(columns="decoder"), store)
    assert [(row.reason, row.path) for row in old.quarantined] == [("changed", first.as_posix())]
    assert "read by ffmpeg, and by libsndfile when the manifest was made" in old.quarantined[0].detail
