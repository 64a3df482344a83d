"""A run that teaches another, through training."""

import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from stillwave.pipeline.backbones.fbank import FbankConfig
from stillwave.pipeline.config.recipe import Recipe
from stillwave.pipeline.corpora.manifest import read_manifest
from stillwave.pipeline.extract.stage import extract
from stillwave.pipeline.runs.data import load_data
from stillwave.pipeline.runs.folds import folds_of
from stillwave.pipeline.runs.inference import predict
from stillwave.pipeline.runs.run import Run
from stillwave.pipeline.train.distill import Teacher
from stillwave.pipeline.train.stage import Teach, train
from tests.fakes import write_speech

TRAIN = {"epochs": 15, "batch_size": 8, "valid_fraction": 0.3}
SMALL = {"kind": "segment", "channels": 8, "strides": [4], "num_heads": 2, "hidden": 8, "dropout": 0.0}
TAUGHT = {"cross_entropy": 0.0, "distill": 1.0}


def recipe(**fields: Any) -> Recipe:
    return Recipe.model_validate(
        {"backbones": ["fbank"], "label": "word", "head": SMALL, "train": TRAIN} | fields
    )


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with manifest.parquet, two stores, and `teacher`, a run on the richer one."""
    folder = write_speech(tmp_path_factory.mktemp("distill"))
    manifest = read_manifest(folder / "manifest.parquet")
    extract(FbankConfig(kind="fbank"), manifest, folder / "e/rich.zarr")
    extract(FbankConfig(kind="fbank", num_mels=40, deltas=0), manifest, folder / "e/fbank.zarr")
    wide = recipe(backbones=["rich"], head=SMALL | {"channels": 32, "hidden": 32})
    train(wide, manifest, folder / "e", folder / "teacher", manifest_path=folder / "manifest.parquet")
    return folder


def taught(corpus: Path) -> Teach:
    return partial(Teacher, corpus / "teacher", read_manifest(corpus / "manifest.parquet"), device="cpu")


def student(corpus: Path, out: Path, chosen: Recipe, **options: Any) -> Path:
    manifest = read_manifest(corpus / "manifest.parquet")
    return train(chosen, manifest, corpus / "e", out, manifest_path=corpus / "manifest.parquet", **options)


def test_the_student_comes_to_say_what_the_teacher_says(corpus: Path, tmp_path: Path) -> None:
    """Without a single label its probabilities on training rows come nearer to the teacher than to chance."""
    chosen = recipe(losses=TAUGHT, train=TRAIN | {"epochs": 30, "learning_rate": 6e-3})
    out = student(corpus, tmp_path / "run", chosen, teach=taught(corpus))
    config = json.loads((out / "config.json").read_text())
    assert config["teacher"]["run"] == str(corpus / "teacher")
    assert config["teacher"]["sha256"].keys() == {"0", "1", "2"}
    manifest = read_manifest(corpus / "manifest.parquet")
    data = load_data(chosen, manifest, corpus / "e", "cpu")
    folds = folds_of(data, chosen)
    teacher = taught(corpus)(data, folds)
    for fold in folds:
        head = Run.open(out).model(fold.number).head
        said = softmax(predict(head, data.features, fold.train))
        wanted = softmax(teacher.logits(fold)[fold.train])
        assert np.abs(said - wanted).mean() < 0.5 * np.abs(0.5 - wanted).mean()
        losses = pd.read_csv(out / f"fold_{fold.number}" / "history.csv")["train_loss"]
        assert losses.iloc[-1] < 0.5 * losses.iloc[0]


def softmax(logits: np.ndarray) -> np.ndarray:
    exponents = np.exp(logits - logits.max(1, keepdims=True))
    return exponents / exponents.sum(1, keepdims=True)


def test_a_model_teaches_the_training_rows_of_its_fold_alone(corpus: Path) -> None:
    chosen = recipe(losses=TAUGHT)
    manifest = read_manifest(corpus / "manifest.parquet")
    data = load_data(chosen, manifest, corpus / "e", "cpu")
    folds = folds_of(data, chosen)
    teacher = taught(corpus)(data, folds)
    for fold in folds:
        logits = teacher.logits(fold)
        assert np.flatnonzero(np.isfinite(logits).all(1)).tolist() == sorted(fold.train.tolist())
        assert np.isnan(np.delete(logits, fold.train, axis=0)).all()
        head = Run.open(corpus / "teacher").model(fold.number).head
        expected = softmax(predict(head, teacher.data.features, fold.train))
        np.testing.assert_allclose(softmax(logits[fold.train]), expected, atol=1e-5)


def test_both_losses_are_in_the_curves(corpus: Path, tmp_path: Path) -> None:
    chosen = recipe(losses={"distill": 0.5, "distill_temperature": 4.0}, train=TRAIN | {"epochs": 1})
    out = student(corpus, tmp_path / "run", chosen, teach=taught(corpus))
    row = pd.read_csv(out / "fold_0/history.csv").iloc[0]
    total = row["loss_cross_entropy"] + 0.5 * row["loss_distill"]
    assert row["train_loss"] == pytest.approx(total, rel=1e-5)


def test_a_teacher_that_has_seen_the_test_rows_is_refused(corpus: Path, tmp_path: Path) -> None:
    chosen = recipe(losses=TAUGHT, train=TRAIN | {"seed": 5})  # other speakers are held out for validation
    with pytest.raises(ValueError, match="trained on rows that the student is validated or tested on"):
        student(corpus, tmp_path / "run", chosen, teach=taught(corpus))
    manifest = read_manifest(corpus / "manifest.parquet")
    manifest["fold"] = (manifest["fold"] + 1) % 3
    with pytest.raises(ValueError, match="changed since training, or this is another manifest"):
        train(
            recipe(losses=TAUGHT), manifest, corpus / "e", tmp_path / "run",
            manifest_path=corpus / "manifest.parquet", teach=partial(Teacher, corpus / "teacher", manifest),
        )  # fmt: skip
    assert not (tmp_path / "run").exists()


def test_a_teacher_that_was_trained_on_a_test_row_alone_is_refused(corpus: Path) -> None:
    """What it was trained on must be in no fold's test rows, even where validation rows are the same."""
    manifest = read_manifest(corpus / "manifest.parquet")
    data = load_data(recipe(), manifest, corpus / "e", "cpu")
    (fold, *_) = folds_of(data, recipe())
    Teacher(corpus / "teacher", manifest, data, [fold], "cpu")
    moved = replace(fold, train=fold.train[1:], test=np.append(fold.test, fold.train[0]))
    with pytest.raises(ValueError, match="of fold 0 was trained on rows that the student"):
        Teacher(corpus / "teacher", manifest, data, [moved], "cpu")
    valid = replace(fold, train=fold.train[1:], valid=np.append(fold.valid, fold.train[0]))
    with pytest.raises(ValueError, match="of fold 0 was trained on rows that the student"):
        Teacher(corpus / "teacher", manifest, data, [valid], "cpu")


def test_a_weight_without_a_teacher_and_a_teacher_without_a_weight(corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"losses\.distill is 1\.0, with no teacher"):
        student(corpus, tmp_path / "run", recipe(losses=TAUGHT))
    with pytest.raises(ValueError, match="a teacher needs a weight"):
        student(corpus, tmp_path / "run", recipe(), teach=taught(corpus))
