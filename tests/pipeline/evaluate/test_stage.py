"""Evaluating runs: what is read from their models, besides predictions."""

import json
from pathlib import Path

import numpy as np
import pytest

from stillwave.pipeline.backbones.fbank import FbankConfig
from stillwave.pipeline.backbones.mbert import MbertConfig
from stillwave.pipeline.config.recipe import Recipe
from stillwave.pipeline.corpora.manifest import read_manifest
from stillwave.pipeline.evaluate.stage import evaluate
from stillwave.pipeline.extract.stage import extract
from stillwave.pipeline.runs.run import Run
from stillwave.pipeline.train.stage import train

FUSION = {
    "kind": "fusion_openmax", "shared_dim": 8, "num_heads": 2, "fused_dim": 8, "depth": 1, "base_dim": 8,
    "bottleneck": 4, "anchor_dim": 4,
}  # fmt: skip
RECIPES = {
    "frames": {"backbones": ["mbert"], "head": {"kind": "pooled", "hidden": []}},
    "modalities": {"backbones": ["fbank", "mbert"], "modalities": ["audio", "text"], "head": FUSION},
    "one_layer": {"backbones": ["fbank"], "head": {"kind": "pooled", "hidden": []}},
}


@pytest.fixture(scope="module")
def stores(speech: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of speech without layers, and one of text with two of them."""
    folder = tmp_path_factory.mktemp("layers")
    manifest = read_manifest(speech / "manifest.parquet")
    extract(FbankConfig(kind="fbank", deltas=0), manifest, folder / "fbank.zarr")
    mbert = MbertConfig(kind="mbert", weights="random", size="tiny", layers=(3, 1))
    extract(mbert, manifest, folder / "mbert.zarr")
    return folder


def trained(speech: Path, stores: Path, name: str, out: Path) -> Run:
    settings = {"epochs": 2, "batch_size": 8, "learning_rate": 0.1}
    recipe = Recipe.model_validate(RECIPES[name] | {"label": "word", "train": settings})
    manifest = speech / "manifest.parquet"
    return Run.open(train(recipe, read_manifest(manifest), stores, out, manifest_path=manifest))


@pytest.mark.parametrize(("name", "mix"), [("frames", "layer_mix"), ("modalities", "layer_mix.text")])
def test_the_layer_weights_of_every_fold_are_those_of_its_model(
    name: str, mix: str, speech: Path, stores: Path, tmp_path: Path
) -> None:
    run = trained(speech, stores, name, tmp_path / "run")
    evaluate(run)
    metrics = json.loads((tmp_path / "run/report/metrics.json").read_text())
    assert metrics["layer_weights"].keys() == {mix}
    found = metrics["layer_weights"][mix]
    assert found["layers"] == [3, 1]
    assert found["folds"].keys() == {"0", "1", "2"}
    odds = np.exp([run.weights(fold)[f"head.{mix}.weights"].numpy() for fold in run.folds])
    expected = odds / odds.sum(1, keepdims=True)
    np.testing.assert_allclose([*found["folds"].values()], expected, rtol=1e-6)
    np.testing.assert_allclose(found["mean"], expected.mean(0), rtol=1e-6)
    assert np.abs(expected - 0.5).min() > 1e-3  # they have learned
    assert (tmp_path / "run/report/plots/layer_weights.png").exists()


def test_a_run_on_single_layers_has_no_layer_weights(speech: Path, stores: Path, tmp_path: Path) -> None:
    metrics = evaluate(trained(speech, stores, "one_layer", tmp_path / "run"))
    assert "layer_weights" not in metrics
    assert not (tmp_path / "run/report/plots/layer_weights.png").exists()
