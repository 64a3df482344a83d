"""Enrolment: on stored frames, fine-tuned and personalised runs, what it changes and what it refuses."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import typer
from typer.testing import CliRunner

from stillwave.heads.personal import Personalised
from stillwave.pipeline.audio import samples as samples_module
from stillwave.pipeline.backbones import parse_backbone
from stillwave.pipeline.commands import model as model_commands
from stillwave.pipeline.config.base import parse_config
from stillwave.pipeline.config.recipe import Recipe
from stillwave.pipeline.corpora.manifest import read_manifest
from stillwave.pipeline.extract.stage import extract
from stillwave.pipeline.predict.clips import Clip, Sound, read_sound
from stillwave.pipeline.predict.enroll import enroll, read_clips
from stillwave.pipeline.predict.enrolled import load_speaker
from stillwave.pipeline.predict.ensemble import Ensemble
from stillwave.pipeline.predict.predictor import Predictor
from stillwave.pipeline.predict.reading import Reader
from stillwave.pipeline.train.finetune import finetune
from stillwave.pipeline.train.stage import train
from tests.fakes import write_wave

CNN: dict[str, Any] = {
    "kind": "cnn1d", "channels": [8, 8, 8], "kernel_sizes": [160, 5, 3], "strides": [20, 2, 1],
    "pools": [4, 2, 1], "filters": "mel",
}  # fmt: skip
FBANK = {"kind": "fbank", "deltas": 0, "num_mels": 20}
POOLED = {"kind": "pooled", "hidden": [12], "dropout": 0.0}
TRAIN = {"epochs": 6, "batch_size": 8, "learning_rate": 3e-3, "valid_fraction": 0.3, "group": None}
PERSONAL = {"dim": 4, "hidden": 8, "unknown": 0.3}


def recipe(**fields: Any) -> Recipe:
    raw = {"label": "word", "head": POOLED, "train": TRAIN} | fields
    made: Recipe = parse_config(raw, Recipe, "test")
    return made


def config(raw: dict[str, Any]) -> Any:
    return parse_backbone(raw, "test", trusted=True)


@pytest.fixture(scope="module")
def runs(speech: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Small runs of three folds on the same speech."""
    folder = tmp_path_factory.mktemp("runs")
    path = speech / "manifest.parquet"
    manifest = read_manifest(path)
    extract(config(FBANK), manifest, folder / "fbank.zarr")
    where: dict[str, Any] = {"manifest_path": path, "device": "cpu"}
    for name, fields in (("cached", {}), ("cached_personal", {"personalise": PERSONAL})):
        train(recipe(backbones=["fbank"], **fields), manifest, folder, folder / name, **where)
    # Longer: batch norm's running statistics take a few dozen steps to follow.
    long = TRAIN | {"epochs": 15, "batch_size": 4}
    live = {"backbones": ["cnn"], "finetune": {"unfreeze": "all", "learning_rate": 3e-3}, "train": long}
    for name, fields in (("live", {}), ("live_personal", {"personalise": PERSONAL})):
        finetune(recipe(**live, **fields), manifest, {"cnn": config(CNN)}, folder / name, **where)
    return {name: folder / name for name in ("cached", "cached_personal", "live", "live_personal")}


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, str]]:
    """A new speaker whose low and high are the other way round."""
    folder = tmp_path_factory.mktemp("clips")
    made = []
    for i in range(8):
        label, hertz = (("low", 240), ("high", 120))[i % 2]
        path = folder / f"{i}.wav"
        write_wave(path, 0.5 + 0.05 * i, hertz * (1 + 0.01 * i), seed=100 + i)
        made.append((str(path), label))
    return made


def probabilities(models: Ensemble, paths: list[str]) -> np.ndarray:
    reader = Reader(models.encoders)
    return np.stack([models([reader.item(read_sound(path, 1), None, None)])[0]["p"] for path in paths])


@pytest.mark.parametrize("name", ["cached", "cached_personal", "live", "live_personal"])
def test_a_speaker_is_learnt_and_the_run_stays(
    name: str, runs: dict[str, Path], clips: Any, tmp_path: Path
) -> None:
    run, file = runs[name], tmp_path / "ann.safetensors"
    files = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    result = enroll(run, "ann", clips, file, device="cpu")
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == files
    paths, labels = [path for path, _ in clips], np.array([label for _, label in clips])
    models = Ensemble(run, device="cpu")
    classes = np.array(models.classes)
    before = probabilities(models, paths)
    assert result.num_clips == 8
    assert result.accuracy_before == (classes[before.argmax(1)] == labels).mean()
    # What training left of the two classes differs from run to run; the clips say the opposite of it.
    assert result.accuracy_after >= 0.75 > result.accuracy_before
    speaker = load_speaker(run, "ann", file)
    assert sorted(speaker.folds) == [0, 1, 2]
    for fold in models.folds:
        speaker.apply(fold.model, fold.number)
    after = probabilities(models, paths)
    assert (classes[after.argmax(1)] == labels).mean() >= result.accuracy_after


@pytest.mark.parametrize("name", ["cached_personal", "live_personal"])
def test_a_personalised_run_gives_the_speaker_a_vector(
    name: str, runs: dict[str, Path], clips: Any, tmp_path: Path
) -> None:
    file = tmp_path / "ann.safetensors"
    enroll(runs[name], "ann", clips, file, fold=1, device="cpu")
    models = Ensemble(runs[name], 1, device="cpu")
    model = models.folds[0].model
    head = model if isinstance(model, Personalised) else model.head
    before = head.speakers.weight.clone()
    speaker = load_speaker(runs[name], "ann", file)
    speaker.apply(model, 1)
    moved = (head.speakers.weight - before).abs().amax(1) > 0
    assert moved.tolist() == [True] + [False] * (len(before) - 1)
    assert not torch.equal(head.output.weight, Ensemble(runs[name], 1).folds[0].model.output.weight)
    with pytest.raises(ValueError, match="'ann' was enrolled only in the models of folds 1, not in 0"):
        speaker.apply(model, 0)


def test_a_predictor_answers_as_the_enrolled_speaker(runs: dict[str, Path], clips: Any) -> None:
    run = runs["live_personal"]
    result = enroll(run, "ann", clips, device="cpu")
    assert result.file == str(run / "speakers" / "ann.safetensors")
    predictor = Predictor.load(run, device="cpu", speaker="ann")
    models = Ensemble(run, device="cpu")
    strangers = probabilities(models, [clips[0][0]])[0]
    models.enroll(load_speaker(run, "ann"))
    wanted = probabilities(models, [clips[0][0]])[0]
    answer = predictor(clips[0][0]).probabilities
    assert [answer[name] for name in models.classes] == pytest.approx(wanted.tolist(), abs=1e-6)
    assert np.abs(wanted - strangers).max() > 0.01
    shutil.rmtree(run / "speakers")


def test_what_cannot_be_tested_is_not(runs: dict[str, Path], clips: Any, tmp_path: Path) -> None:
    file = tmp_path / "ann.safetensors"
    alone = enroll(runs["cached"], "ann", clips[:2], file, device="cpu")  # one of each label
    assert (alone.num_clips, alone.num_tested, alone.accuracy_before, alone.accuracy_after) == (
        2,
        0,
        None,
        None,
    )
    some = enroll(runs["cached"], "ann", clips[:3], file, device="cpu")
    assert (some.num_clips, some.num_tested) == (3, 2)
    assert some.accuracy_after in (0.0, 0.5, 1.0)


def test_leave_one_out_is_what_enrolling_the_others_gives(
    runs: dict[str, Path], clips: Any, tmp_path: Path
) -> None:
    result = enroll(
        runs["cached"], "all", clips, tmp_path / "all.safetensors", fold=0, device="cpu", penalty=3.0
    )
    right = 0
    for left in range(len(clips)):
        others = [clip for i, clip in enumerate(clips) if i != left]
        file = tmp_path / f"{left}.safetensors"
        enroll(runs["cached"], "part", others, file, fold=0, device="cpu", penalty=3.0)
        models = Ensemble(runs["cached"], 0, device="cpu")
        load_speaker(runs["cached"], "part", file).apply(models.folds[0].model, 0)
        guess = models.classes[int(probabilities(models, [clips[left][0]])[0].argmax())]
        right += guess == clips[left][1]
    assert right / len(clips) == result.accuracy_after


def test_the_command_and_the_table_of_clips(runs: dict[str, Path], clips: Any, tmp_path: Path) -> None:
    app = typer.Typer()
    app.command()(model_commands.enroll)
    table, run = tmp_path / "clips.csv", runs["live"]
    pd.DataFrame(clips, columns=["file_path", "word"]).to_csv(table, index=False)
    arguments = ["--run", str(run), "--speaker", "bob", "--clips", str(table), "--device", "cpu"]
    found = CliRunner().invoke(app, arguments)
    assert found.exit_code == 0, found.output
    result = enroll(run, "bob", clips, device="cpu")
    scores = f"accuracy {result.accuracy_before:.3f} without, {result.accuracy_after:.3f} on each of 8 clips"
    assert f"bob.safetensors: 8 clips; {scores} by a model" in found.output
    assert load_speaker(run, "bob").name == "bob"
    (run / "speakers" / "bob.safetensors").unlink()
    (run / "speakers").rmdir()


def test_tables_with_text_and_without_labels(tmp_path: Path) -> None:
    table = tmp_path / "clips.csv"
    table.write_text("file_path,word,text\na.wav,low,the tone is low\nb.wav,high,\n")
    first, second = read_clips(table, "word")
    assert first == (Clip(str(tmp_path / "a.wav"), str(tmp_path / "a.wav"), "the tone is low"), "low")
    assert second[0].text is None  # type: ignore[union-attr]
    table.write_text("file_path,word\na.wav,low\nb.wav,\n")
    with pytest.raises(ValueError, match=r"clips\.csv: row 2 has no word"):
        read_clips(table, "word")
    needs = "The table needs a row per clip, with columns file_path and word, and text if the run reads it$"
    table.write_text("path,word\na.wav,low\n")
    with pytest.raises(ValueError, match=f"csv: no column 'file_path'; the columns are path, word. {needs}"):
        read_clips(table, "word")
    table.write_text("file_path,text\na.wav,low\n")
    with pytest.raises(ValueError, match=f"csv: no column 'word'; the columns are file_path, text. {needs}"):
        read_clips(table, "word")
    with pytest.raises(ValueError, match=r"gone\.csv: no such table of clips; it needs a row per clip, with"):
        read_clips(tmp_path / "gone.csv", "word")
    table.write_text("file_path,word\n,low\n")
    with pytest.raises(ValueError, match=r"row 1 of .* has no file_path"):
        read_clips(table, "word")


def test_what_is_refused(runs: dict[str, Path], clips: Any, tmp_path: Path) -> None:
    run = runs["cached_personal"]
    with pytest.raises(ValueError, match=r"speaker is '\.\./ann'"):
        enroll(run, "../ann", clips)
    with pytest.raises(ValueError, match="the run was trained on speaker 's3'"):
        enroll(run, "s3", clips)
    with pytest.raises(ValueError, match="1 clips; enrolment needs at least two"):
        enroll(run, "ann", clips[:1])
    with pytest.raises(ValueError, match=r"1\.wav: the label 'hi' is not one of high, low"):
        enroll(run, "ann", [clips[0], (clips[1][0], "hi")])
    with pytest.raises(ValueError, match="penalty is 0"):
        enroll(run, "ann", clips, penalty=0)
    with pytest.raises(ValueError, match=r"2\.wav and .*2\.wav are the same recording"):
        enroll(run, "ann", [*clips, clips[2]])
    (tmp_path / "empty.wav").touch()
    with pytest.raises(ValueError, match=r"empty.*empty\.wav.*leave the clip out"):
        enroll(run, "ann", [*clips, (tmp_path / "empty.wav", "low")])
    with pytest.raises(ValueError, match=r"missing: .*gone\.wav"):
        enroll(run, "ann", [*clips, ("gone.wav", "low")])
    assert not (run / "speakers").exists()
    with pytest.raises(ValueError, match="no run here"):
        enroll(tmp_path, "ann", clips)


def test_a_speaker_is_written_over_nothing_that_is_read(
    runs: dict[str, Path], clips: Any, tmp_path: Path
) -> None:
    run, file = runs["cached"], tmp_path / "a.safetensors"
    with pytest.raises(ValueError, match=r"--out .*ann\.json: a speaker is stored in a \.safetensors file"):
        enroll(run, "ann", clips, tmp_path / "ann.json")
    shutil.copy(clips[0][0], file)
    for taken, given in ((file, [(str(file), "low"), *clips[1:]]), (run / "fold_1/model.safetensors", clips)):
        before = taken.read_bytes()
        with pytest.raises(ValueError, match=rf"--out {taken} would overwrite .*, which is an input"):
            enroll(run, "ann", given, taken)
        assert taken.read_bytes() == before


def test_what_is_not_finite_is_not_kept(
    runs: dict[str, Path], clips: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, loud = tmp_path / "ann.safetensors", np.full(8000, 1e30, np.float32)
    loud[::2] *= -1
    loud_clip = (Clip("loud", Sound(loud, 16_000)), "low")
    with pytest.raises(ValueError, match=r"loud: samples reach 1e\+30"):
        enroll(runs["cached"], "ann", [*clips, loud_clip], file, device="cpu")
    monkeypatch.setattr(samples_module, "LOUDEST", np.inf)
    with pytest.raises(ValueError, match=r"^loud: the features in fold 0 are not finite numbers; leave"):
        enroll(runs["cached"], "ann", [*clips, loud_clip], file, device="cpu")
    with pytest.raises(
        ValueError, match=r"the speaker's weight, bias of fold 0 are not finite .* penalty of inf"
    ):
        enroll(runs["cached"], "ann", clips, file, device="cpu", penalty=np.inf)
    assert list(tmp_path.iterdir()) == []


def test_speakers_who_are_not_there_or_of_other_models(
    runs: dict[str, Path], clips: Any, tmp_path: Path
) -> None:
    file = tmp_path / "ann.safetensors"
    enroll(runs["cached"], "ann", clips, file, device="cpu")
    with pytest.raises(ValueError, match=r"'bob' is not enrolled \(enrolled: nobody\)"):
        load_speaker(runs["cached"], "bob")
    with pytest.raises(
        ValueError, match=r"ann\.safetensors: enrolled with models other than those of .*live"
    ):
        load_speaker(runs["live"], "ann", file)
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(ValueError, match=r"not a readable safetensors file; enrol 'ann' again$"):
        load_speaker(runs["cached"], "ann", file)
