"""Rows that are looked at: which, in what order, with which label, and what a run says of them."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from stillwave.analysis.labels import label_candidates
from stillwave.analysis.rows import manifest_beside, rows_of, with_predictions
from stillwave.cache import EmbeddingStore
from stillwave.pipeline.backbones import load_backbone
from stillwave.pipeline.config.analysis import Analysis
from stillwave.pipeline.config.base import parse_config
from stillwave.pipeline.config.recipe import Recipe
from stillwave.pipeline.corpora.manifest import read_manifest
from stillwave.pipeline.extract.stage import extract
from stillwave.pipeline.runs.data import data_of_run
from stillwave.pipeline.runs.predictions import predict_folds
from stillwave.pipeline.runs.run import Run
from stillwave.pipeline.train.stage import train
from tests.fakes import row, rows_with_views, write_store

CONFIGS = Path(__file__).parents[2] / "configs"


@pytest.fixture
def store(manifest: pd.DataFrame, tmp_path: Path) -> EmbeddingStore:
    """Frames of all rows, and a view of each."""
    write_store(tmp_path / "embeddings/fake.zarr", rows_with_views(manifest, 1))
    return EmbeddingStore(tmp_path / "embeddings/fake.zarr")


def test_rows_are_the_clean_ones_with_what_the_manifest_says(
    store: EmbeddingStore, manifest: pd.DataFrame
) -> None:
    found = rows_of(store, manifest.sample(frac=1, random_state=1), Analysis())
    assert store.ids[found.numbers].tolist() == found.table["id"].tolist() == manifest["id"].tolist()
    assert (store.view[found.numbers] == 0).all()
    assert list(found.table) == [
        "id", "path", "label", "speaker", "text", "duration_s", "num_frames",
    ]  # fmt: skip
    assert found.table["label"].tolist() == manifest["word"].tolist()
    assert found.table["num_frames"].tolist() == store.lengths[found.numbers].tolist()
    assert (found.label, found.classes, found.left_out) == ("word", ["high", "low"], {})


def test_rows_that_only_one_side_has_are_counted_and_named(manifest: pd.DataFrame, tmp_path: Path) -> None:
    rows = rows_with_views(manifest[:-2], 0)
    write_store(tmp_path / "s.zarr", [*rows, row("stranger", 5)])
    found = rows_of(EmbeddingStore(tmp_path / "s.zarr"), manifest, Analysis())
    ids = manifest["id"].tolist()
    assert found.left_out == {"not in the manifest": ["stranger"], "without frames": ids[-2:]}
    assert found.table["id"].tolist() == ids[:-2]
    with pytest.raises(ValueError, match=r"3 of its 35 clean rows are in the manifest; at least 10"):
        rows_of(EmbeddingStore(tmp_path / "s.zarr"), manifest[:3], Analysis())


def test_a_sample_is_seeded_in_order_and_said(store: EmbeddingStore, manifest: pd.DataFrame) -> None:
    def sample(seed: int) -> Any:
        return rows_of(store, manifest, Analysis(max_rows=12, seed=seed))

    found = sample(1)
    assert len(found.table) == 12
    assert found.table["id"].is_monotonic_increasing
    assert found.table["id"].tolist() == sample(1).table["id"].tolist() != sample(2).table["id"].tolist()
    left = found.left_out["not drawn (max_rows)"]
    assert sorted([*left, *found.table["id"]]) == manifest["id"].tolist()
    assert rows_of(store, manifest, Analysis(max_rows=100)).left_out == {}


def test_frames_of_other_audio_than_the_manifest_are_refused(
    store: EmbeddingStore, manifest: pd.DataFrame
) -> None:
    changed = manifest.assign(sha256=[hashlib.sha256(b"new").hexdigest(), *manifest["sha256"][1:]])
    with pytest.raises(ValueError, match="were made from other content than the manifest's"):
        rows_of(store, changed, Analysis())


@pytest.mark.parametrize("kind", ["category", "string", "object"])
def test_text_is_text_whatever_it_is_held_as(
    kind: Any, manifest: pd.DataFrame, store: EmbeddingStore
) -> None:
    held = manifest.drop(columns="word").assign(emotion=["x", None, "y10", "y9"] * 9)
    held = held.astype({"emotion": kind, "speaker": kind})
    assert label_candidates(held) == ["emotion"]
    found = rows_of(store, held, Analysis())
    assert found.table["label"].tolist() == ["x", None, "y10", "y9"] * 9
    assert found.classes == ["x", "y9", "y10"]
    assert found.table["speaker"].dtype == object


@pytest.mark.parametrize(
    ("store", "manifest"),
    [
        ("data/embeddings/fbank.zarr", "data/manifest.parquet"),
        (Path("/runs/first/embeddings/fbank.zarr"), "/runs/first/manifest.parquet"),
        ("fbank.zarr/", "../manifest.parquet"),
        ("s3://bucket/a/embeddings/fbank.zarr", "s3://bucket/a/manifest.parquet"),
    ],
)
def test_the_manifest_lies_above_the_stores_by_custom(store: str | Path, manifest: str) -> None:
    assert manifest_beside(store) == manifest


@pytest.fixture(scope="module")
def trained(speech: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stores of speech and text, a run on speech and one on both, beside their manifest."""
    folder = tmp_path_factory.mktemp("trained")
    manifest = read_manifest(speech / "manifest.parquet")
    manifest.loc[manifest.index[:2], "word"] = None
    manifest["tone"] = ["low", "high", "hum"] * 12
    for name in ("fbank", "mbert_tiny"):
        config = load_backbone(CONFIGS / f"backbones/{name}.yaml")
        extract(config, manifest, folder / f"embeddings/{name}.zarr")
    head = {"kind": "segment", "num_heads": 4, "hidden": 16}
    fusion = {"kind": "fusion_openmax", "shared_dim": 8, "num_heads": 2, "depth": 2, "base_dim": 16}
    unknown, blind = {"unknown": ["hum"], "score": "msp"}, {"epochs": 1, "batch_size": 8, "valid_fraction": 0}
    for name, raw in {
        "one": {},
        "rejects": {"label": "tone", "open_set": unknown | {"threshold": 0.3}},
        "undecided": {"label": "tone", "open_set": unknown | {"score": "energy"}, "train": blind},
        "both": {"backbones": ["fbank", "mbert_tiny"], "modalities": ["audio", "text"], "head": fusion},
    }.items():
        settings = {"label": "word", "train": {"epochs": 1, "batch_size": 8}}
        raw = {"backbones": ["fbank"], "head": head} | settings | raw
        recipe = parse_config(raw, Recipe, source="test")
        train(
            recipe, manifest, folder / "embeddings", folder / name, manifest_path=folder / "manifest.parquet"
        )
    manifest.to_parquet(folder / "manifest.parquet")
    return folder


@pytest.mark.parametrize("name", ["one", "both"])
def test_predictions_are_out_of_fold_and_by_id(trained: Path, name: str) -> None:
    manifest = read_manifest(trained / "manifest.parquet")
    rows = rows_of(EmbeddingStore(trained / "embeddings/fbank.zarr"), manifest, Analysis(max_rows=30))
    table = with_predictions(rows, trained / name, manifest).table.set_index("id")
    run = Run.open(trained / name)
    wanted = predict_folds(run, data_of_run(run, manifest)).set_index("id")
    unlabelled = manifest["id"][manifest["word"].isna()].tolist()
    for id_, line in table.iterrows():
        if id_ in unlabelled:
            assert line["predicted"] is None
            assert line["correct"] is None
            assert np.isnan(line["confidence"])
            continue
        one = wanted.loc[id_]
        assert line["predicted"] == one["predicted"]
        assert line["confidence"] == max(one["p_high"], one["p_low"])
        assert line["correct"] is (one["predicted"] == manifest.set_index("id")["word"][id_])
        assert line["fold"] == one["fold"] == manifest.set_index("id")["fold"][id_]
        p = one.filter(regex="^p_").to_numpy(float)
        assert line["entropy"] == pytest.approx(-(p * np.log(p)).sum() / np.log(len(p)))
        assert line.get("learned_uncertainty") == one.get("score_learned_uncertainty")
    assert ("score_learned_uncertainty" in wanted) == (name == "both" and run.recipe.losses.uncertainty > 0)


@pytest.mark.parametrize("name", ["rejects", "undecided"])
def test_a_row_of_an_unknown_class_is_correct_when_it_is_rejected(trained: Path, name: str) -> None:
    manifest = read_manifest(trained / "manifest.parquet")
    rows = rows_of(EmbeddingStore(trained / "embeddings/fbank.zarr"), manifest, Analysis(label="tone"))
    table = with_predictions(rows, trained / name, manifest).table
    assert set(table["predicted"]) <= {"low", "high"}
    known = table["label"] != "hum"
    assert (table["correct"] == (table["predicted"] == table["label"]))[known].all()
    if name == "undecided":
        assert "decision" not in table
        assert table["correct"][~known].tolist() == [None] * 12
        return
    rejected = table["confidence"] < 0.7  # msp is 1 - confidence
    assert table["decision"].tolist() == table["predicted"].where(~rejected, "unknown").tolist()
    assert table["correct"][~known].tolist() == rejected[~known].tolist()
    assert rejected[~known].nunique() == 2


def test_a_run_on_other_rows_is_refused(trained: Path, store: EmbeddingStore, manifest: pd.DataFrame) -> None:
    known = read_manifest(trained / "manifest.parquet")
    rows = rows_of(EmbeddingStore(trained / "embeddings/fbank.zarr"), known, Analysis())
    relabelled = known.assign(word=known["word"].map({"low": "high", "high": "low"}))
    with pytest.raises(ValueError, match="changed since training"):
        with_predictions(rows, trained / "one", relabelled)
    strangers = rows.table.assign(id=[f"x{i}" for i in range(len(rows.table))])
    with pytest.raises(ValueError, match=r"tests none of these 36 rows, the first of which is 'x0'"):
        with_predictions(type(rows)(strangers, rows.numbers, rows.label, {}), trained / "one", known)
