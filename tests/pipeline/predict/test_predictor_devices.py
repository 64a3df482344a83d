"""A trained run asked on each device: the answers of the CPU."""

from pathlib import Path

import pandas as pd
import pytest
import torch

from stillwave.pipeline.backbones.wav2vec2 import Wav2Vec2Config
from stillwave.pipeline.config.recipe import Recipe
from stillwave.pipeline.extract.stage import extract
from stillwave.pipeline.predict.clips import clips_of
from stillwave.pipeline.predict.predictor import Predictor
from stillwave.pipeline.train.stage import train
from tests.devices import on_a_gpu, on_each_device
from tests.pipeline.predict.test_predictor import SEGMENT, TRAIN, same


@pytest.fixture(scope="module")
def run(speech: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, manifest = tmp_path_factory.mktemp("run"), pd.read_parquet(speech / "manifest.parquet")
    config = Wav2Vec2Config(kind="wav2vec2", weights="random", size="tiny")
    extract(config, manifest, folder / "wav2vec2.zarr", device="cpu")
    recipe = Recipe.model_validate(
        {"backbones": ["wav2vec2"], "label": "word", "head": SEGMENT, "train": TRAIN}
    )
    path = speech / "manifest.parquet"
    return train(recipe, manifest, folder, folder / "run", manifest_path=path, device="cpu")


@on_each_device
def test_answers_are_the_cpus(device: str, run: Path, speech: Path) -> None:
    clips = clips_of([str(speech / "manifest.parquet")])
    expected = list(Predictor.load(run, device="cpu").predict_many(clips, batch_size=4))
    clips = clips_of([str(speech / "manifest.parquet")])
    found = list(Predictor.load(run, device=device).predict_many(clips, batch_size=4))
    assert len(found) == len(expected) == 36
    for ours, theirs in zip(found, expected, strict=True):
        same(ours, theirs, tolerance=1e-3)


@on_a_gpu
def test_a_predictor_on_a_gpu_leaves_nothing_on_the_cpu(device: str, run: Path) -> None:
    models = Predictor.load(run, device=device).models
    parts = [*models.encoders.values(), *(fold.model for fold in models.folds)]
    tensors = [tensor for part in parts for tensor in (*part.parameters(), *part.buffers())]
    assert {tensor.device for tensor in tensors} == {torch.device("cuda", 0)}
