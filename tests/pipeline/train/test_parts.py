"""Heads on several stores of any modality: training on summaries, evaluation, prediction, export."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from stillwave.pipeline.backbones.fbank import FbankConfig
from stillwave.pipeline.backbones.mbert import MbertConfig
from stillwave.pipeline.backbones.wav2vec2 import Wav2Vec2Config
from stillwave.pipeline.config.recipe import Recipe
from stillwave.pipeline.corpora.manifest import read_manifest, write_manifest
from stillwave.pipeline.evaluate.stage import evaluate
from stillwave.pipeline.extract.stage import extract
from stillwave.pipeline.predict.export import export
from stillwave.pipeline.predict.predictor import Predictor
from stillwave.pipeline.runs.data import load_data
from stillwave.pipeline.runs.features import Summaries
from stillwave.pipeline.runs.inference import predict
from stillwave.pipeline.runs.run import Run
from stillwave.pipeline.train.finetune import finetune
from stillwave.pipeline.train.fit import fit
from stillwave.pipeline.train.stage import train
from tests.fakes import write_speech

NO_TEXT = [3, 8, 20]  # numbers of rows in the manifest
BACKBONES = {
    # Not in alphabetical order: the head reads them in this one.
    "voice": Wav2Vec2Config(kind="wav2vec2", weights="random", size="tiny", layers="all"),
    "mbert": MbertConfig(kind="mbert", weights="random", size="tiny"),
    "fbank": FbankConfig(kind="fbank", deltas=0),
}


def recipe(**fields: Any) -> Recipe:
    plain = {
        "backbones": list(BACKBONES), "label": "word", "head": {"kind": "statistics"},
        "train": {"epochs": 10, "batch_size": 8, "learning_rate": 1e-2, "valid_fraction": 0.3},
    }  # fmt: skip
    return Recipe.model_validate(plain | fields)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with manifest.parquet and three stores, one of which lacks rows."""
    folder = write_speech(tmp_path_factory.mktemp("parts"))
    manifest = read_manifest(folder / "manifest.parquet")
    manifest.loc[NO_TEXT, "text"] = None
    write_manifest(manifest, folder / "manifest.parquet")
    for name, config in BACKBONES.items():
        extract(config.model_copy(update={"max_bad_fraction": 0.5}), manifest, folder / f"e/{name}.zarr")
    return folder


@pytest.fixture(scope="module")
def run(corpus: Path) -> Path:
    manifest = read_manifest(corpus / "manifest.parquet")
    return train(recipe(), manifest, corpus / "e", corpus / "run", manifest_path=corpus / "manifest.parquet")


def test_three_stores_train_and_evaluate(run: Path) -> None:
    metrics = evaluate(run)
    assert metrics["n"] == 36
    assert metrics["absent"] == {"voice": 0, "mbert": len(NO_TEXT), "fbank": 0}
    assert metrics["uar"] > 0.8  # an octave apart, and the text names the label
    assert list(metrics["layer_weights"]) == ["layer_mix.voice"]


def test_new_audio_and_text_are_predicted_as_evaluated(corpus: Path, run: Path) -> None:
    manifest = read_manifest(corpus / "manifest.parquet")
    evaluate(run)
    table = pd.read_parquet(run / "report/predictions.parquet").set_index("id")
    row = manifest.iloc[0]
    fold = int(table.loc[row["id"], "fold"])
    predictor = Predictor.load(run, fold=fold)
    found = predictor(row["path"], text=row["text"])
    for name, probability in found.probabilities.items():
        assert probability == pytest.approx(table.loc[row["id"], f"p_{name}"], abs=1e-3)
    assert predictor(manifest["path"][NO_TEXT[0]]).probabilities  # without its text


def test_training_on_summaries_equals_training_on_frames(corpus: Path, run: Path) -> None:
    one = recipe()
    data = load_data(one, read_manifest(corpus / "manifest.parquet"), corpus / "e")
    rows = np.arange(len(data.manifest))
    logits = []
    for summarised in (False, True):
        head = Run.open(run).model(0).head.train().requires_grad_(True)
        features = Summaries(data.features, head) if summarised else data.features
        fit(head, features, data.labels, rows, rows[:0], one.train.model_copy(update={"epochs": 2}))
        logits.append(predict(head, data.features, rows))
    np.testing.assert_allclose(logits[0], logits[1], rtol=1e-4, atol=1e-4)


def test_a_head_is_exported_with_an_input_per_part_and_a_model_is_not(run: Path, tmp_path: Path) -> None:
    assert export(run, tmp_path / "head.onnx", part="head", fold=0).difference < 1e-4
    with pytest.raises(ValueError, match="one input for each modality; export the head alone"):
        export(run, tmp_path / "model.onnx", fold=0)


def test_speakers_can_be_added(corpus: Path, tmp_path: Path) -> None:
    manifest = read_manifest(corpus / "manifest.parquet")
    personal = recipe(personalise={"dim": 4, "hidden": 8})
    out = train(personal, manifest, corpus / "e", tmp_path / "run", manifest_path=corpus / "manifest.parquet")
    assert evaluate(out)["uar"] > 0.8


def test_a_backbone_can_be_trained_below_it(corpus: Path, tmp_path: Path) -> None:
    manifest = read_manifest(corpus / "manifest.parquet")
    live = recipe(
        backbones=["voice"],
        finetune={"unfreeze": 1},
        train={"epochs": 1, "batch_size": 8, "learning_rate": 1e-2},
    )
    out = finetune(live, manifest, BACKBONES, tmp_path / "run", manifest_path=corpus / "manifest.parquet")
    head = Run.open(out).model(0).head
    (standardise,) = head.standardisers
    assert standardise.std.min() > 0
    assert (standardise.std != 1).all()  # fitted on summaries of live frames
    assert evaluate(out)["n"] == 36


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"modalities": ["audio"]}, "remove `modalities`"),
        ({"backbones": ["fbank", "fbank"]}, "name a store more than once"),
        ({"backbones": ["a.b", "fbank"]}, "must not contain a dot"),
        ({"augment": {"time_masks": 1}}, "a statistics head sees no single frames"),
    ],
)
def test_recipes_that_make_no_sense(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        recipe(**fields)
