"""Personalised heads through training and evaluation: who is known, and where each begins."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from stillwave.pipeline.backbones.fbank import FbankConfig
from stillwave.pipeline.config.recipe import Recipe
from stillwave.pipeline.corpora.manifest import write_manifest
from stillwave.pipeline.evaluate.stage import evaluate
from stillwave.pipeline.extract.stage import extract
from stillwave.pipeline.runs.data import load_data
from stillwave.pipeline.runs.folds import folds_of
from stillwave.pipeline.runs.run import Run
from stillwave.pipeline.runs.speakers import numbered, training_speakers
from stillwave.pipeline.train.stage import train

HEAD = {"kind": "segment", "channels": 8, "strides": [4], "num_heads": 2, "hidden": 16}
TRAIN = {"epochs": 6, "batch_size": 8, "learning_rate": 5e-3, "group": None}
PERSONAL = {"dim": 4, "hidden": 8, "unknown": 0.2}


def recipe(**fields: Any) -> Recipe:
    return Recipe.model_validate(
        {"backbones": ["fbank"], "label": "word", "head": HEAD, "train": TRAIN} | fields
    )


@pytest.fixture(scope="module")
def corpus(speech: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stratified folds, so that test speakers are training speakers, too; but for s5, who is only tested."""
    folder = tmp_path_factory.mktemp("speakers")
    table = pd.read_parquet(speech / "manifest.parquet")
    table["fold"] = np.where(table["speaker"] == "s5", 0, np.arange(len(table)) // 12 % 2)
    write_manifest(table, folder / "manifest.parquet")
    extract(FbankConfig(kind="fbank", deltas=0), table, folder / "fbank.zarr")
    return folder


def run_train(corpus: Path, out: Path, recipe: Recipe, **options: Any) -> Path:
    path = corpus / "manifest.parquet"
    return train(recipe, pd.read_parquet(path), corpus, out, manifest_path=path, **options)


def predictions(run: Path, out: Path) -> pd.DataFrame:
    evaluate(run, out)
    return pd.read_parquet(out / "predictions.parquet")


@pytest.fixture(scope="module")
def basic(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_train(corpus, tmp_path_factory.mktemp("basic") / "run", recipe())


def test_speakers_of_a_fold_are_numbered_and_others_are_unknown(corpus: Path) -> None:
    data = load_data(recipe(), pd.read_parquet(corpus / "manifest.parquet"), corpus)
    first, second = folds_of(data, recipe())
    assert training_speakers(data, first.train) == ["s0", "s1", "s2", "s3", "s4"]
    assert training_speakers(data, second.train) == ["s0", "s1", "s2", "s3", "s4", "s5"]
    *_, numbers = numbered(data, ["s1", "s3"]).batch(np.arange(len(data.manifest)))
    expected = [{"s1": 1, "s3": 2}.get(name, 0) for name in data.manifest["speaker"]]
    assert numbers.tolist() == expected


def test_a_personalised_run_begins_as_the_basic_one(corpus: Path, basic: Path, tmp_path: Path) -> None:
    still = recipe(personalise=PERSONAL, train=TRAIN | {"epochs": 1, "learning_rate": 1e-12})
    run = run_train(corpus, tmp_path / "run", still, start=basic)
    before, after = predictions(basic, tmp_path / "a"), predictions(run, tmp_path / "b")
    np.testing.assert_allclose(after["raw_low"], before["raw_low"], atol=1e-5)


def test_training_moves_the_vectors_of_known_speakers(corpus: Path, basic: Path, tmp_path: Path) -> None:
    run = run_train(corpus, tmp_path / "run", recipe(personalise=PERSONAL), start=basic)
    state, facts = Run.open(run).weights(0), Run.open(run).facts(0)
    assert facts["speakers"] == ["s0", "s1", "s2", "s3", "s4"]
    assert state["head.speakers.weight"].shape == (6, 4)
    assert state["head.up.weight"].abs().max() > 0
    table = predictions(run, tmp_path / "report")
    assert (table["predicted"] == table["label"]).mean() > 0.8
    # The last layer is that of the basic head, trained on.
    basic_state = Run.open(basic).weights(0)
    assert not torch.equal(state["head.head.mlp.5.weight"], basic_state["head.mlp.5.weight"])


def test_without_speakers_or_from_a_personalised_start_it_is_refused(
    corpus: Path, basic: Path, tmp_path: Path
) -> None:
    table = pd.read_parquet(corpus / "manifest.parquet").drop(columns="speaker")
    with pytest.raises(ValueError, match="`personalise` needs the speakers of the training rows"):
        train(recipe(personalise=PERSONAL), table, corpus, tmp_path / "x", manifest_path="m")
    personal = recipe(personalise=PERSONAL, train=TRAIN | {"epochs": 1})
    run = run_train(corpus, tmp_path / "run", personal, start=basic)
    with pytest.raises(ValueError, match="start from the basic one"):
        run_train(corpus, tmp_path / "y", recipe(), start=run)
    assert not (tmp_path / "y").exists()
