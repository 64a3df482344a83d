"""A trained run on new audio and text: the numbers of `evaluate`, one clip or thousands."""

import csv
import io
import json
import math
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
import typer
from typer.testing import CliRunner

import stillwave.pipeline.predict.predictor as predict_module
from stillwave.pipeline.audio.decode import BadAudio, resample
from stillwave.pipeline.audio.segments import load_waveform
from stillwave.pipeline.backbones.cnn1d import Cnn1dConfig
from stillwave.pipeline.backbones.fbank import FbankConfig
from stillwave.pipeline.backbones.mbert import MbertConfig
from stillwave.pipeline.backbones.wav2vec2 import Wav2Vec2Config
from stillwave.pipeline.commands.model import predict
from stillwave.pipeline.config.recipe import Recipe
from stillwave.pipeline.corpora.manifest import read_manifest, write_manifest
from stillwave.pipeline.evaluate.stage import evaluate
from stillwave.pipeline.extract.stage import extract
from stillwave.pipeline.predict.clips import Clip, clips_of
from stillwave.pipeline.predict.enroll import enroll
from stillwave.pipeline.predict.predictor import Predictor
from stillwave.pipeline.predict.results import Failure, Prediction, fields_of
from stillwave.pipeline.runs.calibrate import Calibration
from stillwave.pipeline.runs.run import Run
from stillwave.pipeline.train.finetune import finetune
from stillwave.pipeline.train.stage import train
from tests.fakes import write_speech, write_wave
from tests.pipeline.train.test_fusion import HEAD, LOSSES

SEGMENT = {"kind": "segment", "num_heads": 4, "channels": 16, "strides": [4], "hidden": 16}
TRAIN = {"epochs": 3, "batch_size": 8, "learning_rate": 5e-3, "valid_fraction": 0.3}
FUSION = {"backbones": ["fbank", "mbert"], "modalities": ["audio", "text"], "head": HEAD, "losses": LOSSES}
BACKBONES = (
    FbankConfig(kind="fbank", deltas=0),
    MbertConfig(kind="mbert", weights="random", size="tiny", max_bad_fraction=0.5),
)
RECIPES: dict[str, dict[str, Any]] = {
    "segment": {"backbones": ["fbank"], "head": SEGMENT},
    "personal": {"backbones": ["fbank"], "head": SEGMENT, "personalise": {"dim": 4, "hidden": 8}},
    "fusion": FUSION,
}


def prepared(folder: Path, seed: int, count: int, lacking: list[int]) -> Path:
    """A corpus whose rows `lacking` have no text, and its stores."""
    write_speech(folder, count=count, seed=seed)
    manifest = read_manifest(folder / "manifest.parquet")
    manifest.loc[lacking, "text"] = None
    write_manifest(manifest, folder / "manifest.parquet")
    for config in BACKBONES:
        extract(config, manifest, folder / f"e/{config.kind}.zarr")
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`old`, a corpus to train on; `new`, another one; and a run of each recipe."""
    folder = tmp_path_factory.mktemp("predict")
    old = prepared(folder / "old", 0, 36, [3, 8, 20])
    prepared(folder / "new", 100, 9, [2])
    manifest = read_manifest(old / "manifest.parquet")
    for name, fields in RECIPES.items():
        recipe = Recipe.model_validate({"label": "word", "train": TRAIN} | fields)
        train(recipe, manifest, old / "e", folder / name, manifest_path=old / "manifest.parquet")
    return folder


@pytest.fixture(scope="module")
def segment(folder: Path) -> Predictor:
    return Predictor.load(folder / "segment")


@pytest.fixture(scope="module")
def fusion(folder: Path) -> Predictor:
    return Predictor.load(folder / "fusion")


@pytest.fixture
def wav(folder: Path) -> str:
    return str(folder / "new/wav/000.wav")


def same(a: Any, b: Any, tolerance: float = 1e-5) -> None:
    """Two answers agree."""
    assert a.probabilities == pytest.approx(b.probabilities, abs=tolerance)
    assert a.score == pytest.approx(b.score, rel=1e-3)
    assert a.entropy == pytest.approx(b.entropy, abs=1e-4)
    assert (a.learned_uncertainty is None) == (b.learned_uncertainty is None)
    assert (a.learned_uncertainty or 0) == pytest.approx(b.learned_uncertainty or 0, abs=1e-4)
    assert (a.label, a.threshold) == (b.label, b.threshold)


@pytest.mark.parametrize("name", RECIPES)
def test_answers_are_those_of_evaluate_with_all_folds(folder: Path, name: str) -> None:
    """Rows without text are among them, and speakers that some folds know and others do not."""
    table = folder / "new/manifest.parquet"
    evaluate(folder / name, manifest=table, embeddings=folder / "new/e", ensemble=True)
    expected = pd.read_parquet(folder / name / "ensemble/predictions.parquet").set_index("id")
    found = list(Predictor.load(folder / name).predict_many(clips_of([str(table)]), batch_size=4))
    assert [one.clip for one in found] == expected.index.tolist()
    for one in found:
        assert isinstance(one, Prediction)
        row = expected.loc[one.clip]
        assert one.probabilities == pytest.approx({"high": row["p_high"], "low": row["p_low"]}, abs=1e-5)
        assert (one.label, one.decision) == (row["predicted"], row["decision"])
        assert one.score == pytest.approx(row["score"], rel=1e-4)
        assert one.threshold == pytest.approx(row["threshold"], rel=1e-6)
        assert one.segments == ()
        if name == "fusion":
            assert one.learned_uncertainty == pytest.approx(row["score_learned_uncertainty"], abs=1e-5)
        else:
            assert one.learned_uncertainty is None
        entropy = -sum(p * math.log(p) for p in one.probabilities.values()) / math.log(2)
        assert one.entropy == pytest.approx(entropy)
    assert len({round(one.score, 6) for one in found if isinstance(one, Prediction)}) == 9


def test_all_folds_are_the_mean_of_each(folder: Path, segment: Predictor, wav: str) -> None:
    each = [Predictor.load(folder / "segment", fold=fold)(wav) for fold in range(3)]
    together = segment(wav)
    for name in segment.classes:
        mean = np.mean([one.probabilities[name] for one in each])
        assert together.probabilities[name] == pytest.approx(mean, abs=1e-9)
    assert len({one.probabilities["low"] for one in each}) == 3
    with pytest.raises(ValueError, match=r"fold 3: .* has 0, 1, 2"):
        Predictor.load(folder / "segment", fold=3)


def test_a_path_samples_and_a_tensor_are_one_clip(segment: Predictor, wav: str) -> None:
    samples, rate = soundfile.read(wav, dtype="float32")
    from_path = segment(wav)
    assert from_path.duration_s == len(samples) / rate
    for audio in (samples, torch.from_numpy(samples), np.stack([samples, samples], axis=1)):
        same(segment(audio, rate), from_path, 1e-7)
    same(segment(Path(wav)), from_path, 1e-7)


def test_other_rates_are_resampled_as_extraction_does(segment: Predictor, tmp_path: Path) -> None:
    write_wave(tmp_path / "x.wav", 0.7, 130, seed=3, sample_rate=22_050)
    ours = load_waveform(tmp_path / "x.wav", 16_000)
    same(segment(tmp_path / "x.wav"), segment(ours, 16_000), 1e-7)
    samples, _ = soundfile.read(tmp_path / "x.wav", dtype="float32")
    assert segment(samples, 16_000).score != pytest.approx(segment(samples, 22_050).score)


def test_a_bad_clip_is_told_and_costs_no_other(segment: Predictor, folder: Path, tmp_path: Path) -> None:
    good = [str(folder / f"new/wav/{i:03d}.wav") for i in range(3)]
    (tmp_path / "empty.wav").write_bytes(b"")
    (tmp_path / "text.wav").write_text("no audio")
    soundfile.write(tmp_path / "short.wav", np.zeros(100), 16_000)
    soundfile.write(tmp_path / "nan.wav", np.full(9000, np.nan), 16_000, subtype="FLOAT")
    bad = [str(tmp_path / f"{name}.wav") for name in ("lost", "empty", "text", "short", "nan")]
    order = [bad[0], good[0], *bad[1:4], good[1], bad[4], good[2]]
    found = list(segment.predict_many([*clips_of(order), Clip("mute", text="hello")], batch_size=2))
    assert [one.clip for one in found] == [*order, "mute"]
    reasons = [one.error.partition(":")[0] for one in found if isinstance(one, Failure)]
    assert reasons == [
        *("missing", "empty", "not_audio", "too_short", "non_finite"),
        "the run reads audio, but the clip has none",
    ]
    assert found[4].to_dict()["error"].endswith("100 samples at 16000 Hz: less than one frame of the model")
    for path in good:
        same(next(one for one in found if one.clip == path), segment(path))
    with pytest.raises(BadAudio, match="missing"):
        segment(bad[0])


def test_clips_stream_through(segment: Predictor, wav: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers come before the clips end, and only so many are taken ahead of them."""
    monkeypatch.setattr(predict_module, "WINDOW_CLIPS", 4)
    taken = 0

    def endless() -> Iterator[Clip]:
        nonlocal taken
        while True:
            taken += 1
            yield Clip(f"clip {taken}", wav)

    answers = segment.predict_many(endless(), batch_size=2)
    for number in range(1, 20):
        assert next(answers).clip == f"clip {number}"
        assert taken <= number + 2 * 4 + 1
    answers.close()  # type: ignore[attr-defined]
    monkeypatch.setattr(predict_module, "WINDOW_S", 0.0)
    assert next(segment.predict_many(endless())).clip == f"clip {taken - 4}"
    assert list(segment.predict_many([])) == []
    with pytest.raises(ValueError, match="batch_size is 0; it must be at least 1"):
        next(segment.predict_many([], batch_size=0))


@pytest.mark.parametrize("rate", [16_000, 44_100])
def test_long_audio_has_a_timeline_and_its_mean(folder: Path, rate: int) -> None:
    predictor = Predictor.load(folder / "segment", segment_s=0.5, hop_s=0.2)
    parts = [load_waveform(folder / f"new/wav/{i:03d}.wav", rate) for i in range(4)]
    samples = np.concatenate(parts)[: round(1.95 * rate)]
    found = predictor(samples, rate)
    spans = [(0, 0.5), (0.2, 0.7), (0.4, 0.9), (0.6, 1.1), (0.8, 1.3), (1.0, 1.5), (1.2, 1.7), (1.4, 1.9)]
    assert [(one.start_s, one.end_s) for one in found.segments] == [
        *(pytest.approx(span) for span in spans),
        pytest.approx((1.45, 1.95)),
    ]
    for one in found.segments:
        cut = samples[round(one.start_s * rate) : round(one.end_s * rate)]
        assert one.probabilities == pytest.approx(predictor(cut, rate).probabilities, abs=1e-5)
    mean = np.mean([one.probabilities["low"] for one in found.segments])
    assert found.probabilities["low"] == pytest.approx(mean)
    assert found.score == pytest.approx(np.mean([one.score for one in found.segments]))
    assert np.ptp([one.score for one in found.segments]) > 0.1
    assert predictor(samples[: rate // 2], rate).segments == ()
    many = list(predictor.predict_many([Clip("long", predict_module.Sound(samples, rate))], batch_size=3))
    same(many[0], found)
    assert isinstance(many[0], Prediction)
    for a, b in zip(many[0].segments, found.segments, strict=True):
        same(a, b)


@pytest.mark.parametrize(("rate", "chunk_s"), [(16_000, 0.02), (44_100, 0.02), (44_100, 1.3)])
def test_a_stream_answers_as_the_whole_does(folder: Path, rate: int, chunk_s: float) -> None:
    predictor = Predictor.load(folder / "segment", fold=0, segment_s=0.5, hop_s=0.2)
    parts = [load_waveform(folder / f"new/wav/{i:03d}.wav", 16_000) for i in range(4)]
    samples = resample(np.concatenate(parts), 16_000, rate)
    stream, step = predictor.stream(rate), round(chunk_s * rate)
    live = [one for i in range(0, len(samples), step) for one in stream.push(samples[i : i + step])]
    assert len(live) >= 8
    live += stream.flush()
    offline = predictor(samples, rate).segments
    assert len(live) == len(offline)
    for a, b in zip(live, offline, strict=True):
        assert (a.start_s, a.end_s) == (b.start_s, b.end_s)
        same(a, b)
    stream.push(np.zeros(10))
    assert stream.flush() == []  # too little for a frame


def test_a_stream_that_cannot_be_is_refused(segment: Predictor) -> None:
    for rate in (0, -1, math.inf, math.nan):
        with pytest.raises(
            ValueError, match=f"sample_rate is {rate}; samples need the rate at which they were"
        ):
            segment.stream(rate)  # type: ignore[arg-type]
    with pytest.raises(BadAudio, match=r"too_short: 0.010 s, 160 samples at 16000 Hz"):
        segment.stream(8000, segment_s=0.01)
    with pytest.raises(ValueError, match="segment_s 1 and hop_s 2"):
        segment.stream(16_000, segment_s=1, hop_s=2)
    with pytest.raises(ValueError, match="the run reads only audio"):
        segment.stream(16_000, text="hello")


def test_a_backbone_that_hears_a_clip_alone_hears_all_of_a_long_one(folder: Path, tmp_path: Path) -> None:
    cnn = Cnn1dConfig(kind="cnn1d", channels=(8, 8, 8), clip_s=0.4)
    fields = {"backbones": ["c"], "label": "word", "head": {"kind": "pooled", "hidden": [8], "dropout": 0.0}}
    fields |= {"finetune": {"unfreeze": "all"}, "train": TRAIN | {"epochs": 1}}
    manifest = read_manifest(folder / "old/manifest.parquet").iloc[:12]
    manifest["fold"] %= 2
    table = tmp_path / "m.parquet"
    write_manifest(manifest, table)
    recipe = Recipe.model_validate(fields)
    run = finetune(recipe, read_manifest(table), {"c": cnn}, tmp_path / "run", manifest_path=table)
    predictor, clip = Predictor.load(run), 6400
    assert (predictor.segment_s, predictor.hop_s) == (0.4, 0.2)
    whole = np.concatenate([load_waveform(folder / f"new/wav/{i:03d}.wav", 16_000) for i in range(4)])
    parts = [whole[:clip], whole[clip : 2 * clip]]
    assert predictor(parts[0], 16_000).segments == ()
    found = predictor(np.concatenate(parts), 16_000)
    assert [one.end_s for one in found.segments] == pytest.approx([0.4, 0.6, 0.8])
    for part, one in zip(parts, found.segments[::2], strict=True):
        assert one.score == pytest.approx(predictor(part, 16_000).score, rel=1e-4)
    assert found.score == pytest.approx(np.mean([one.score for one in found.segments]))
    assert found.score != pytest.approx(predictor(parts[0], 16_000).score, rel=1e-4)
    assert len(predictor(np.concatenate(parts)[: clip + 1], 16_000).segments) == 2
    assert [one.end_s for one in predictor.stream(16_000).push(parts[1])] == [0.4]
    assert Predictor.load(run, segment_s=0.2).segment_s == 0.2
    message = r"segment_s is 0\.5, .* uses only the first 0\.4 s of a segment .*; give at most 0\.4"
    with pytest.raises(ValueError, match=message):
        Predictor.load(run, segment_s=0.5)
    with pytest.raises(ValueError, match=message):
        predictor.stream(16_000, segment_s=0.5)


def test_a_modality_may_be_missing_but_not_both(fusion: Predictor, wav: str) -> None:
    both, heard, read = fusion(wav, text="the tone is low"), fusion(wav), fusion(text="the tone is low")
    assert len({round(one.score, 4) for one in (both, heard, read)}) == 3
    assert (read.clip, read.duration_s) == ("text", None)
    found = list(fusion.predict_many([Clip("none"), Clip("t", text="the tone is low"), Clip("a", wav)]))
    assert isinstance(found[0], Failure)
    assert found[0].error == "the run reads audio or text, but the clip has none"
    same(found[1], read)
    same(found[2], heard)
    with pytest.raises(ValueError, match="text is ' '; give words, or leave it out"):
        fusion(wav, text=" ")


def test_a_text_belongs_to_every_segment(folder: Path, wav: str) -> None:
    fusion = Predictor.load(folder / "fusion", fold=0, segment_s=0.2, hop_s=0.1)
    samples, rate = soundfile.read(wav, dtype="float32")
    found = fusion(samples, rate, text="the tone is low")
    piece = fusion(samples[: round(0.2 * rate)], rate, text="the tone is low")
    assert found.segments[0].probabilities == pytest.approx(piece.probabilities, abs=1e-5)
    (live,) = fusion.stream(rate, text="the tone is low").push(samples[: round(0.2 * rate)])
    same(live, piece)


def test_who_speaks_makes_a_difference_where_the_run_knows(
    folder: Path, segment: Predictor, wav: str
) -> None:
    predictor = Predictor.load(folder / "personal", fold=0)
    known = predictor.models.speakers
    assert known
    assert set(known) < {f"s{i}" for i in range(6)}
    plain = predictor(wav)
    named = predictor(wav, speaker=known[0])
    assert named.score != pytest.approx(plain.score, rel=1e-6)
    same(Predictor.load(folder / "personal", fold=0, speaker=known[0])(wav), named)
    clips = [Clip("a", wav, speaker=known[0]), Clip("b", wav, speaker="nobody"), Clip("c", wav)]
    for found, expected in zip(predictor.predict_many(clips), (named, plain, plain), strict=True):
        same(found, expected)
    with pytest.raises(ValueError, match=f"speaker is 'eve'; the run knows {known[0]}, "):
        predictor(wav, speaker="eve")
    with pytest.raises(ValueError, match=f"speaker is 'Jane Doe'; the run knows {known[0]}, "):
        Predictor.load(folder / "personal", fold=0, speaker="Jane Doe")
    with pytest.raises(
        ValueError, match="speaker is 's1', but the run is not personalised; leave it out, or"
    ):
        segment(wav, speaker="s1")


@pytest.mark.parametrize("name", ["segment", "personal"])
def test_an_enrolled_speaker_has_answers_of_its_own(
    folder: Path, tmp_path: Path, wav: str, name: str
) -> None:
    """Clips whose labels are turned round on purpose are right afterwards; the run is as it was."""
    run = Path(shutil.copytree(folder / name, tmp_path / name))
    plain = Predictor.load(run)
    clips = [str(folder / f"new/wav/{i:03d}.wav") for i in range(6)]
    flipped = [{"low": "high", "high": "low"}[plain(clip).label] for clip in clips]
    labelled = list(zip(clips, flipped, strict=True))
    enroll(run, "eve", labelled, penalty=0.01)
    eve = Predictor.load(run, speaker="eve")
    elsewhere = tmp_path / "kept.safetensors"
    enroll(run, "eve", labelled, elsewhere, penalty=0.01)
    same(Predictor.load(run, speaker=elsewhere)(wav, speaker="eve"), eve(wav))
    shown = command("--run", run, wav, "--speaker", elsewhere)[1]
    assert json.loads(shown)["score"] == pytest.approx(eve(wav).score, rel=1e-4)
    with pytest.raises(
        ValueError, match=r"lost\.safetensors: no such file; give the one that `stillwave enroll --out`"
    ):
        Predictor.load(run, speaker=tmp_path / "lost.safetensors")
    with pytest.raises(ValueError, match=r"fold_0/model\.safetensors: not a speaker's file; give the one"):
        Predictor.load(run, speaker=run / "fold_0/model.safetensors")
    assert sum(eve(clip).label == label for clip, label in zip(clips, flipped, strict=True)) >= 5
    same(Predictor.load(run)(wav), plain(wav), 1e-9)
    known = Clip("a", wav, speaker=(*plain.models.speakers, "s1")[0])
    for found in eve.predict_many([known, Clip("b", wav)]):
        same(found, eve(wav))
    with pytest.raises(ValueError, match="speaker is 's1'; the run knows eve"):
        eve(wav, speaker="s1")


def test_a_fine_tuned_run_answers_by_its_own_backbones(folder: Path, tmp_path: Path, wav: str) -> None:
    wav2vec2 = Wav2Vec2Config(kind="wav2vec2", weights="random", size="tiny")
    fields = {"backbones": ["w"], "label": "word", "head": SEGMENT | {"strides": []}}
    fields |= {"finetune": {"unfreeze": 1, "learning_rate": 1e-2}, "train": TRAIN | {"epochs": 1}}
    manifest = read_manifest(folder / "old/manifest.parquet").iloc[:18]
    manifest["fold"] %= 2
    table = tmp_path / "m.parquet"
    write_manifest(manifest, table)
    recipe = Recipe.model_validate(fields)
    run = finetune(recipe, read_manifest(table), {"w": wav2vec2}, tmp_path / "run", manifest_path=table)
    samples, rate = soundfile.read(wav, dtype="float32")
    for fold in (0, 1):
        model = Run.open(run).model(fold, Run.open(run).encoders())
        with torch.no_grad():
            outputs = model.outputs(torch.from_numpy(samples)[None], torch.tensor([len(samples)]))
        expected = Calibration.load(run / f"fold_{fold}").probabilities(outputs)[0]
        found = Predictor.load(run, fold=fold)(wav)
        assert list(found.probabilities.values()) == pytest.approx(expected.tolist(), abs=1e-6)
    together = Predictor.load(run)
    assert len({id(one.model.encoders["frames"]) for one in together.models.folds}) == 2
    a, b = (
        next(one.model.encoders["frames"].encoder.layers[-1].parameters()) for one in together.models.folds
    )
    assert not torch.equal(a, b)
    one, two = together.predict_many(clips_of([wav, str(folder / "new/wav/001.wav")]))
    same(one, together(wav))
    same(two, together(folder / "new/wav/001.wav"))
    assert rate == 16_000


def test_runs_that_cannot_be_used_are_refused(folder: Path, tmp_path: Path) -> None:
    def broken(name: str) -> Path:
        return Path(shutil.copytree(folder / "segment", tmp_path / name))

    with pytest.raises(ValueError, match="no run here; make it with"):
        Predictor.load(tmp_path / "lost")
    (broken("half") / "complete").unlink()
    with pytest.raises(ValueError, match="training has not finished"):
        Predictor.load(tmp_path / "half")
    config = json.loads((broken("old") / "config.json").read_text())
    (tmp_path / "old/config.json").write_text(json.dumps(config | {"format": 1}))
    with pytest.raises(ValueError, match=r"a run of format 1 .*; this version reads format"):
        Predictor.load(tmp_path / "old")
    for name in ("model", "calibration"):
        (broken(f"bad_{name}") / f"fold_1/{name}.safetensors").write_bytes(b"nothing")
        with pytest.raises(ValueError, match=f"fold_1/{name}.safetensors: not a readable safetensors file"):
            Predictor.load(tmp_path / f"bad_{name}")
    other = config | {"backbones": {"frames": config["backbones"]["frames"] | {"num_mels": 40}}}
    (broken("other") / "config.json").write_text(json.dumps(other))
    with pytest.raises(
        ValueError, match=r"would give different frames .* config.num_mels: stored 80, now 40"
    ):
        Predictor.load(tmp_path / "other")
    (broken("mute") / "config.json").write_text(json.dumps(config | {"backbones": {"frames": None}}))
    with pytest.raises(
        ValueError, match=r"it does not record how the frames of fbank were made.* --backbones"
    ):
        Predictor.load(tmp_path / "mute")
    (tmp_path / "fbank.yaml").write_text("{kind: fbank, deltas: 0}")
    Predictor.load(tmp_path / "mute", backbones=tmp_path)


def test_arguments_that_make_no_sense_are_refused(segment: Predictor, wav: str) -> None:
    with pytest.raises(ValueError, match="a text was given, but the run reads only audio; leave it out"):
        segment(wav, text="hello")
    with pytest.raises(ValueError, match="sample_rate is 8000; leave it out, it applies only to samples"):
        segment(wav, 8000)
    with pytest.raises(ValueError, match="sample_rate is -1; samples need the rate"):
        segment(np.zeros(9000, np.float32), -1)
    with pytest.raises(ValueError, match="the run reads audio, but the clip has none"):
        segment()
    with pytest.raises(ValueError, match="segment_s 1 and hop_s 3"):
        Predictor(segment.models, segment_s=1, hop_s=3)


def test_decisions_follow_the_threshold_and_what_is_no_number_is_refused() -> None:
    values = {"p": np.array([0.7, 0.3]), "score": np.array(2.0), "threshold": np.array(2.0)}
    assert fields_of(values, ["a", "b"])["decision"] == "a"
    assert fields_of(values | {"score": np.array(2.1)}, ["a", "b"])["decision"] == "unknown"
    bare = fields_of(values | {"threshold": np.array(np.nan)}, ["a", "b"])
    assert (bare["decision"], bare["threshold"], bare["label"]) == (None, None, "a")
    assert fields_of(values | {"p": np.array([0.0, 1.0])}, ["a", "b"])["entropy"] == 0
    assert fields_of(values | {"p": np.array([0.5, 0.5])}, ["a", "b"])["entropy"] == 1
    with pytest.raises(ValueError, match="the model's output is not a number"):
        fields_of(values | {"p": np.array([np.nan, np.nan])}, ["a", "b"])


def command(*arguments: str | Path) -> tuple[int, str, str]:
    """`stillwave predict`: exit code, stdout and stderr."""
    app = typer.Typer()
    app.command()(predict)
    result = CliRunner().invoke(app, [str(one) for one in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


def test_the_command_prints_json_lines_and_counts_failures(
    folder: Path, segment: Predictor, wav: str
) -> None:
    code, shown, said = command("--run", folder / "segment", wav, "lost.wav", "--json")
    one, lost = map(json.loads, shown.splitlines())
    assert (code, said) == (1, "1 of 2 clips could not be predicted\n")
    expected = segment(wav).to_dict()
    assert list(one) == list(expected)
    for name in ("probabilities", "score", "entropy", "threshold"):
        assert one.pop(name) == pytest.approx(expected.pop(name), rel=1e-4)
    assert one == expected | {"clip": wav}
    assert lost == {"clip": "lost.wav", "error": "missing: lost.wav: No such file or directory"}
    assert command("--run", folder / "segment", wav)[:2] == (0, shown.splitlines(keepends=True)[0])


def test_a_note_is_in_every_format_and_said_once(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    loud = str(tmp_path / "loud.wav")  # longer than a segment, so it is read twice
    soundfile.write(loud, np.clip(3 * np.sin(np.arange(16_000) / 9), -1, 1), 16_000)
    note = "is clipped: samples stay at full scale"
    _, shown, _ = command("--run", folder / "segment", "--segment-s", "0.5", loud, "--json")
    assert json.loads(shown)["note"] == note
    assert caplog.messages == [f"{loud}: the file {note}"]
    _, shown, _ = command("--run", folder / "segment", "--segment-s", "0.5", loud, "--csv")
    assert [row["note"] for row in csv.DictReader(io.StringIO(shown))] == [note, "", "", ""]


def test_the_command_writes_csv(folder: Path, tmp_path: Path, wav: str) -> None:
    options = ("--run", folder / "segment", "--segment-s", "0.2", wav, "lost.wav", "--csv")
    code, shown, _ = command(*options)
    rows = list(csv.DictReader(io.StringIO(shown)))
    assert code == 1
    assert [row["segment"] for row in rows[:3]] == ["", "0", "1"]
    assert (rows[1]["start_s"], rows[2]["start_s"], rows[2]["end_s"]) == ("0.0", "0.1", "0.3")
    assert float(rows[0]["p_low"]) + float(rows[0]["p_high"]) == pytest.approx(1)
    assert rows[0]["label"] in ("low", "high")
    assert rows[-1]["error"].startswith("missing: ")
    assert rows[-1]["label"] == ""
    assert command(*options[:-1], "--out", tmp_path / "o.csv")[1] == ""
    assert (tmp_path / "o.csv").read_text() == shown
    with pytest.raises(ValueError, match="--json and --csv are two formats"):
        command(*options, "--json")


def test_the_command_writes_over_nothing_that_it_reads(folder: Path, tmp_path: Path, wav: str) -> None:
    mine = Path(shutil.copy(wav, tmp_path / "x.wav"))
    before = mine.read_bytes()
    for source in (mine, tmp_path):
        with pytest.raises(ValueError, match=r"--out .*x\.wav would overwrite .*x\.wav, which is an input"):
            command("--run", folder / "segment", source, "--out", mine)
    assert mine.read_bytes() == before
    assert command("--run", folder / "segment", tmp_path, "--out", tmp_path / "o.json")[0] == 0
    assert command("--run", folder / "segment", tmp_path, "--out", tmp_path / "o.json")[0] == 0
    assert json.loads((tmp_path / "o.json").read_text())["clip"] == str(mine)


def test_the_command_shows_a_table(folder: Path, wav: str) -> None:
    from stillwave.pipeline.predict.output import shower

    file = io.StringIO()
    show = shower("table", file, ["high", "low"])
    found = Predictor.load(folder / "segment", fold=1, segment_s=0.3)(wav)
    show(found)
    show(Failure("x" * 60, "empty: 0 bytes"))
    head, line, *segments, failed = file.getvalue().splitlines()
    assert head.split() == ["clip", "time", "label", "p", "entropy", "decision", "score"]
    assert line.split()[-5] == found.label
    assert f"{found.probabilities[found.label]:.3f}" in line
    assert len(segments) == len(found.segments)
    assert "0.00 to 0.30" in segments[0]
    assert failed == f"...{'x' * 37}  empty: 0 bytes"


def test_the_command_knows_text_and_speakers(folder: Path, wav: str, fusion: Predictor) -> None:
    code, shown, _ = command("--run", folder / "fusion", wav, "--text", "the tone is low")
    assert code == 0
    assert json.loads(shown)["score"] == pytest.approx(fusion(wav, text="the tone is low").score, rel=1e-4)
    shown = command("--run", folder / "personal", wav, "--speaker", "s3")[1]
    expected = Predictor.load(folder / "personal", speaker="s3")(wav)
    assert json.loads(shown)["score"] == pytest.approx(expected.score, rel=1e-4)
    with pytest.raises(ValueError, match="the run reads only audio"):
        command("--run", folder / "segment", wav, "--text", "hello")
    with pytest.raises(ValueError, match="no audio files below it"):
        command("--run", folder / "segment", folder / "segment")


def test_a_cold_start_imports_nothing_that_it_does_not_need(folder: Path, wav: str) -> None:
    """Each of these takes longer than the prediction."""
    program = (
        "import sys; from stillwave.pipeline.commands.model import predict\n"
        f"from pathlib import Path; predict(Path({str(folder / 'segment')!r}), [{wav!r}])\n"
        "print([x for x in ('pandas', 'transformers', 'sklearn', 'dvc', 'matplotlib', 'rich') "
        "if x in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    answer, imported = done.stdout.splitlines()
    assert json.loads(answer)["clip"] == wav
    assert imported == "[]"
