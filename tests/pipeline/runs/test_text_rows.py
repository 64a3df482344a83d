"""Rows of text alone, from the table to predictions."""

import hashlib
from pathlib import Path

import pandas as pd
import pytest

from stillwave.cache import EmbeddingStore
from stillwave.pipeline.backbones.fbank import FbankConfig
from stillwave.pipeline.backbones.mbert import MbertConfig
from stillwave.pipeline.config.recipe import Recipe
from stillwave.pipeline.corpora.manifest import ManifestError, check_manifest, read_manifest
from stillwave.pipeline.corpora.prepare import prepare
from stillwave.pipeline.corpora.quarantine import quarantine_path
from stillwave.pipeline.evaluate.stage import evaluate
from stillwave.pipeline.extract.stage import extract
from stillwave.pipeline.runs.data import load_data
from stillwave.pipeline.train.stage import train
from tests.fakes import speech_config, write_speech

HEAD = {"kind": "fusion_openmax", "shared_dim": 8, "num_heads": 2, "depth": 2, "base_dim": 16}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """36 clips, and six rows without one, two of them with the same words; one has no words either."""
    folder = write_speech(tmp_path_factory.mktemp("texts"))
    table = pd.read_csv(folder / "table.csv").assign(id=lambda rows: rows["file_path"])
    more = pd.DataFrame(
        {
            "id": [f"t{i}" for i in range(6)],
            "word": ["low", "high"] * 3,
            "speaker": [f"s{i}" for i in range(6)],
            "text": ["spoken low", "spoken high", "spoken low", "it is high", "low it is", None],
        }
    )
    pd.concat([table, more]).to_csv(folder / "table.csv", index=False)
    config = speech_config(text_rows=True, max_bad_fraction=0.1)
    config = config.model_copy(update={"columns": {**config.columns, "id": "id"}})
    prepare(config, folder, folder / "manifest.parquet")
    return folder


def test_a_row_of_text_alone_is_in_the_manifest_and_one_of_nothing_is_quarantined(corpus: Path) -> None:
    manifest = read_manifest(corpus / "manifest.parquet").set_index("id")
    assert len(manifest) == 36 + 5
    row = manifest.loc["t0"]
    assert (row["path"], row["num_samples"], row["duration_s"]) == ("", 0, 0.0)
    assert row["sha256"] == hashlib.sha256(b"spoken low").hexdigest() == manifest.loc["t2", "sha256"]
    assert "no_path" in (corpus / "quarantine.csv").read_text()


def test_it_trains_and_is_predicted(corpus: Path) -> None:
    manifest = read_manifest(corpus / "manifest.parquet")
    audio = FbankConfig(kind="fbank", deltas=0, max_bad_fraction=0.2)
    extract(audio, manifest, corpus / "e/fbank.zarr")
    extract(MbertConfig(kind="mbert", weights="random", size="tiny"), manifest, corpus / "e/mbert.zarr")
    assert len(EmbeddingStore(corpus / "e/fbank.zarr")) == 36
    listed = pd.read_csv(quarantine_path(corpus / "e/fbank.zarr"))
    assert (listed["reason"] == "no_audio").sum() == 5
    recipe = Recipe.model_validate(
        {
            "backbones": ["fbank", "mbert"],
            "modalities": ["audio", "text"],
            "label": "word",
            "head": HEAD,
            "train": {"epochs": 2, "batch_size": 8},
        }
    )
    train(recipe, manifest, corpus / "e", corpus / "run", manifest_path=corpus / "manifest.parquet")
    metrics = evaluate(corpus / "run")
    assert (metrics["n"], metrics["n_missing"]) == (41, 0)
    assert metrics["absent"] == {"audio": 5, "text": 0}


def test_without_the_option_a_row_without_a_path_is_quarantined(corpus: Path, tmp_path: Path) -> None:
    config = speech_config(max_bad_fraction=0.2)
    prepare(config, corpus, tmp_path / "manifest.parquet")
    assert len(read_manifest(tmp_path / "manifest.parquet")) == 36


def test_a_manifest_row_of_neither_is_refused(corpus: Path) -> None:
    manifest = read_manifest(corpus / "manifest.parquet")
    manifest.loc[manifest["id"] == "t3", "text"] = None
    with pytest.raises(ManifestError, match="'t3' has neither a path nor a text"):
        check_manifest(manifest, "m.parquet")


def test_a_text_is_the_same_in_either_form_of_unicode(corpus: Path, tmp_path: Path) -> None:
    composed, apart = "so sp\u00e4t ist es", "so spa\u0308t ist es"
    manifest = read_manifest(corpus / "manifest.parquet").assign(text=composed)
    mbert = MbertConfig(kind="mbert", weights="random", size="tiny")
    assert extract(mbert, manifest, tmp_path / "e/mbert.zarr").forwards == 1
    store = EmbeddingStore(tmp_path / "e/mbert.zarr")
    assert set(store.content_key.tolist()) == {hashlib.sha256(composed.encode()).hexdigest()}
    assert extract(mbert, manifest.assign(text=apart), tmp_path / "e/mbert.zarr").forwards == 0
    head = {"kind": "pooled"}
    recipe = Recipe.model_validate({"backbones": ["mbert"], "label": "word", "head": head})
    assert len(load_data(recipe, manifest.assign(text=apart), tmp_path / "e").manifest) == len(manifest)
    with pytest.raises(ValueError, match="were made from other content"):
        load_data(recipe, manifest.assign(text=f"{apart} "), tmp_path / "e")
