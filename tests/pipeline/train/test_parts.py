"""A statistics head on three parts, from stores to predictions, with rows that lack some of them."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

import stillwave.pipeline.train.fit as fit_module
from stillwave.heads.statistics_classifier import StatisticsClassifier
from stillwave.pipeline.backbones import build_backbone, parse_backbone
from stillwave.pipeline.cli import app
from stillwave.pipeline.config.recipe import Recipe
from stillwave.pipeline.corpora.manifest import read_manifest, write_manifest
from stillwave.pipeline.evaluate.stage import evaluate
from stillwave.pipeline.extract.stage import extract
from stillwave.pipeline.predict.clips import clips_of
from stillwave.pipeline.predict.enroll import enroll
from stillwave.pipeline.predict.export import check_inputs, export
from stillwave.pipeline.predict.predictor import Predictor
from stillwave.pipeline.predict.results import Prediction
from stillwave.pipeline.runs.data import Data, load_data
from stillwave.pipeline.runs.features import Summaries
from stillwave.pipeline.runs.folds import folds_of
from stillwave.pipeline.runs.head import build_head
from stillwave.pipeline.runs.run import Run
from stillwave.pipeline.train.distill import Teacher
from stillwave.pipeline.train.finetune import finetune
from stillwave.pipeline.train.fit import fit
from stillwave.pipeline.train.stage import train
from tests.fakes import write_speech
from tests.pipeline.predict.test_enroll import CNN
from tests.pipeline.train.test_fit import NONE, Killed

TINY = {"weights": "random", "size": "tiny"}
# In an order that is not the alphabet's: three dimensions, numbers of layers and sample rates.
BACKBONES: dict[str, dict[str, Any]] = {
    "wave": {"kind": "wav2vec2", **TINY, "layers": "all"},
    "narrow": {"kind": "fbank", "sample_rate": 8000, "num_mels": 20, "deltas": 0, "max_bad_fraction": 0.5},
    "words": {"kind": "mbert", **TINY, "max_bad_fraction": 0.5},
}
TRAIN = {"epochs": 8, "batch_size": 8, "learning_rate": 3e-3, "valid_fraction": 0.3}
NO_TEXT, NO_AUDIO = [3, 8, 20], [5, 30]  # numbers of rows in the manifest


def recipe(**fields: Any) -> Recipe:
    raw = {"backbones": [*BACKBONES], "label": "word", "head": {"kind": "statistics"}, "train": TRAIN}
    return Recipe.model_validate(raw | fields)


def config(name: str, **fields: Any) -> Any:
    return parse_backbone(BACKBONES[name] | fields, name, trusted=True)


def extracted(folder: Path, no_audio: list[int], **options: Any) -> Path:
    """A corpus in which some rows lack text, or audio, and its three stores."""
    write_speech(folder, **options)
    manifest = read_manifest(folder / "manifest.parquet")
    manifest.loc[NO_TEXT[: len(no_audio) + 1], "text"] = None
    write_manifest(manifest, folder / "manifest.parquet")
    for path in manifest["path"][no_audio]:
        Path(path).write_bytes(b"lost")
    for name in BACKBONES:
        extract(config(name, max_bad_fraction=0.5), manifest, folder / f"e/{name}.zarr")
    return folder


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return extracted(tmp_path_factory.mktemp("parts"), NO_AUDIO)


def trained(corpus: Path, out: Path, chosen: Recipe, **options: Any) -> Path:
    path = corpus / "manifest.parquet"
    return train(chosen, read_manifest(path), corpus / "e", out, manifest_path=path, **options)


@pytest.fixture(scope="module")
def run(corpus: Path) -> Path:
    return trained(corpus, corpus / "run", recipe())


def data_of(corpus: Path) -> Data:
    return load_data(recipe(), read_manifest(corpus / "manifest.parquet"), corpus / "e")


def test_rows_that_lack_a_part_are_trained_and_predicted_on_the_others(corpus: Path, run: Path) -> None:
    metrics = evaluate(run)
    assert (metrics["n"], metrics["n_missing"]) == (36, 0)
    assert metrics["absent"] == {"wave": len(NO_AUDIO), "narrow": len(NO_AUDIO), "words": len(NO_TEXT)}
    assert metrics["uar"] > 0.8  # an octave apart, and the text names the label
    assert metrics["layer_weights"].keys() == {"layer_mix.wave"}
    table = pd.read_parquet(run / "report/predictions.parquet")
    assert table.filter(like="p_").notna().all(axis=None)
    head = Run.open(run).model(0).head
    assert isinstance(head, StatisticsClassifier)
    assert head.dims == tuple(part.frame_shape[-1] for part in data_of(corpus).parts.values())


def test_summaries_train_to_the_weights_that_frames_train_to(corpus: Path) -> None:
    data, chosen = data_of(corpus), recipe()
    fold = folds_of(data, chosen)[0]
    shapes = {name: part.frame_shape for name, part in data.parts.items()}
    states, histories = [], []
    for summarise in (False, True):
        head = build_head(chosen, shapes, 2)
        features = Summaries(data.features, head, batch_size=7) if summarise else data.features
        histories.append(fit(head, features, data.labels, fold.train, NONE, chosen.train, seed=(3,)))
        states.append(head.state_dict())
    assert histories[0][-1]["train_loss"] < 0.8 * histories[0][0]["train_loss"]
    for name, tensor in states[0].items():
        torch.testing.assert_close(states[1][name], tensor, rtol=1e-5, atol=1e-5, msg=name)


def test_summaries_are_the_heads_whatever_the_batch(corpus: Path) -> None:
    data = data_of(corpus)
    shapes = {name: part.frame_shape for name, part in data.parts.items()}
    head = build_head(recipe(), shapes, 2)
    rows = np.array([7, NO_AUDIO[0], 0, NO_TEXT[0], 7])
    found = Summaries(data.features, head).batch(rows)
    expected = head.summarise(*data.features.batch(rows))
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs)
    assert found[1].tolist() == [1, 0, 1, 1, 1]


def test_a_killed_training_ends_with_the_same_weights(
    corpus: Path, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fit_module, "CHECKPOINT_EVERY_S", 0)

    def kill(fold: int, epoch: int, figures: dict[str, float]) -> None:
        if (fold, epoch) == (1, 4):
            raise Killed

    with pytest.raises(Killed):
        trained(corpus, tmp_path, recipe(), progress=kill)
    trained(corpus, tmp_path, recipe())
    for fold in range(3):
        ours, theirs = (load_file(folder / f"fold_{fold}/model.safetensors") for folder in (tmp_path, run))
        assert ours.keys() == theirs.keys()
        for name, tensor in ours.items():
            assert torch.equal(tensor, theirs[name]), name


def test_new_clips_are_predicted_as_evaluate_predicts_them(run: Path, tmp_path: Path) -> None:
    new = extracted(tmp_path, [2], count=9, seed=100)
    table = new / "manifest.parquet"
    evaluate(run, manifest=table, embeddings=new / "e", ensemble=True)
    expected = pd.read_parquet(run / "ensemble/predictions.parquet").set_index("id")
    predictor = Predictor.load(run)
    found = {one.clip: one for one in predictor.predict_many(clips_of([str(table)]), batch_size=4)}
    read = [one for one in found.values() if isinstance(one, Prediction)]
    assert len(read) == 8  # the clip that was lost is a failure, as it is for any run
    for one in read:
        row = expected.loc[one.clip]
        assert one.probabilities == pytest.approx({"high": row["p_high"], "low": row["p_low"]}, abs=1e-5)
        assert one.score == pytest.approx(row["score"], rel=1e-3, abs=1e-4)
    wav = str(tmp_path / "wav/000.wav")
    alone, both, silent = predictor(wav), predictor(wav, text="it is low"), predictor(text="it is low")
    probabilities = [one.probabilities["low"] for one in (alone, both, silent)]
    assert len({round(p, 4) for p in probabilities}) == 3
    assert silent.label == "low"


def test_the_commands_analyze_report_and_export(corpus: Path, run: Path, tmp_path: Path) -> None:
    evaluate(run)
    page, file, folder = tmp_path / "page.html", tmp_path / "head.onnx", tmp_path / "analysis"
    quick = ["-S", "tsne=null", "-S", "umap=null", "-S", "kmeans=null", "-S", "hdbscan=null"]
    for arguments in (
        ["report", str(run), "--out", str(page)],
        ["export", "--run", str(run), "--out", str(file), "--part", "head", "--fold", "0"],
        ["analyze", str(corpus / "e/wave.zarr"), "--run", str(run), "--out", str(folder), *quick],
    ):
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == 0, result.output
    assert "layer_mix.wave" in page.read_text()
    assert "predicted" in pd.read_parquet(folder / "rows.parquet")
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    names = [f"{name}_{what}" for name in BACKBONES for what in ("frames", "lengths")]
    assert [one.name for one in session.get_inputs()] == names
    inputs = data_of(corpus).features.batch(np.array([0, 1, NO_AUDIO[0], NO_TEXT[0]]))
    given = [tensor.float() if tensor.is_floating_point() else tensor for tensor in inputs]
    feed = {name: tensor.numpy() for name, tensor in zip(names, given, strict=True)}
    outputs = dict(zip([one.name for one in session.get_outputs()], session.run(None, feed), strict=True))
    opened = Run.open(run)
    expected = opened.calibration(0).probabilities(opened.model(0).head.outputs(*inputs))
    assert np.abs(outputs["probabilities"] - expected).max() <= 1e-4
    for name in names[::2]:  # what a length of 0 says is absent may hold anything
        feed[name][(feed[name.replace("frames", "lengths")] == 0)] = 9.0
    assert np.array_equal(session.run(["probabilities"], feed)[0], outputs["probabilities"])


def test_a_run_of_several_encoders_of_audio_exports_its_head_alone(run: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"2 of its backbones read audio, .*with --part head"):
        export(run, tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())
    tiny = {"ast": {"kind": "ast", **TINY}, "words": BACKBONES["words"]}
    encoders = [build_backbone(parse_backbone(raw, name, trusted=True)) for name, raw in tiny.items()]
    with pytest.raises(ValueError, match=r"kind ast exports only without others"):
        check_inputs(Run.open(run), encoders)


def test_three_parts_teach_a_smaller_head(corpus: Path, run: Path, tmp_path: Path) -> None:
    """Also on rows that lack a part, of the teacher or of both."""
    path = corpus / "manifest.parquet"
    student = recipe(backbones=["narrow", "words"], losses={"cross_entropy": 0.0, "distill": 1.0})
    teach = partial(Teacher, run, read_manifest(path))
    taught = trained(corpus, tmp_path / "taught", student, teach=teach)
    curve = pd.read_csv(taught / "fold_0/history.csv")["train_loss"]
    assert curve.iloc[-1] < 0.8 * curve.iloc[0]
    assert evaluate(taught)["n"] == 36


def test_personalised_parts(corpus: Path, tmp_path: Path) -> None:
    personal = recipe(backbones=["narrow", "words"], personalise={"dim": 4, "hidden": 8})
    run = trained(corpus, tmp_path / "run", personal)
    assert evaluate(run)["n"] == 36
    wav = str(corpus / "wav/000.wav")
    predictor = Predictor.load(run)
    assert predictor.models.speakers == ("s0", "s1", "s2", "s3", "s4", "s5")
    answers = {predictor(wav, speaker=name).score for name in ("s0", "s1", None)}
    assert len(answers) == 3
    clips = [(str(corpus / f"wav/00{number}.wav"), ("low", "high")[number % 2]) for number in range(4)]
    enrolled = enroll(run, "new", clips)
    assert enrolled.num_clips == enrolled.num_seen == 4
    assert Predictor.load(run, speaker="new")(wav).label == "low"


def test_live_encoders_are_standardised_by_summaries_and_trained(corpus: Path, tmp_path: Path) -> None:
    path = corpus / "manifest.parquet"
    manifest = read_manifest(path)
    table = manifest.drop(columns="fold").assign(split=np.where(manifest["fold"] == 0, "test", "train"))
    table = table.drop(index=NO_AUDIO).reset_index(drop=True)  # lost files cannot be fine-tuned on
    names = ["wave", "cnn"]
    raw = {"wave": BACKBONES["wave"] | {"layers": [0, 1]}, "cnn": CNN}
    configs = {
        name: parse_backbone(raw[name] | {"storage_dtype": "float32"}, name, trusted=True) for name in names
    }
    for name, one in configs.items():
        extract(one, table, tmp_path / f"e/{name}.zarr")
    short = TRAIN | {"epochs": 1, "valid_fraction": 0}
    chosen = recipe(backbones=names, train=short)
    stored = train(chosen, table, tmp_path / "e", tmp_path / "stored", manifest_path=path)
    tuned = chosen.model_copy(
        update={"finetune": recipe(finetune={"unfreeze": "all", "learning_rate": 1e-3}).finetune}
    )
    live = finetune(tuned, table, configs, tmp_path / "live", manifest_path=path)
    ours, theirs = (Run.open(folder).weights(0) for folder in (live, stored))
    for part in (0, 1):
        for what in ("mean", "std"):
            name = f"head.standardise.{part}.{what}"
            torch.testing.assert_close(ours[name], theirs[name], rtol=1e-3, atol=1e-4)
    assert any(name.startswith("encoders.wave.") for name in ours)
    assert evaluate(live, manifest=write(table, tmp_path))["n"] == 12


def write(table: pd.DataFrame, folder: Path) -> Path:
    write_manifest(table, folder / "manifest.parquet")
    return folder / "manifest.parquet"


def test_a_part_that_a_fold_never_trains_is_refused(corpus: Path, tmp_path: Path) -> None:
    manifest = read_manifest(corpus / "manifest.parquet")
    manifest.loc[manifest["fold"] != 0, "text"] = None
    extract(config("words", max_bad_fraction=0.9), manifest, tmp_path / "words.zarr")
    for name in ("wave", "narrow"):
        (tmp_path / f"{name}.zarr").symlink_to(corpus / f"e/{name}.zarr")
        file = f"{name}.zarr.quarantine.csv"
        (tmp_path / file).write_bytes((corpus / "e" / file).read_bytes())
    data = load_data(recipe(), manifest, tmp_path)
    with pytest.raises(ValueError, match=r"no training rows with words.*remove words from `backbones`"):
        folds_of(data, recipe())
