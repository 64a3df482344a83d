"""Training on views of a store, and averaging over them: which rows are used, with which labels, and when."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.typing import NDArray

import stillwave.pipeline.train.fit as fit_module
import stillwave.pipeline.train.stage as train_module
from stillwave.cache import EmbeddingStore, Row, Spec
from stillwave.pipeline.backbones.base import Frames
from stillwave.pipeline.config.recipe import Recipe
from stillwave.pipeline.config.train import RecipeViews, Train
from stillwave.pipeline.evaluate.stage import evaluate
from stillwave.pipeline.runs.data import load_data
from stillwave.pipeline.runs.features import CachedFeatures
from stillwave.pipeline.runs.head import build_head
from stillwave.pipeline.runs.run import Run
from tests.fakes import files_of, rows_with_views, write_store

COUNT = 2


def store_of(folder: Path, rows: list[Row]) -> Path:
    write_store(folder / "fbank.zarr", rows, Spec(dim=4))
    return folder


@pytest.fixture
def embeddings(manifest: pd.DataFrame, tmp_path: Path) -> Path:
    """A store of every row of the manifest in three views: clean, 1, 2."""
    return store_of(tmp_path / "embeddings", rows_with_views(manifest, COUNT))


def recipe(train: str = "clean", test: str = "clean", **fields: Any) -> Recipe:
    head = {"kind": "segment", "channels": 8, "num_heads": 2, "num_segments": 2, "hidden": 8}
    settings = Train(epochs=4, batch_size=8, **fields)
    views = RecipeViews(train=train, test=test)  # type: ignore[arg-type]
    return Recipe(backbones=["fbank"], label="word", head=head, views=views, train=settings)


def trained(chosen: Recipe, manifest: Path, embeddings: Path, out: Path) -> Path:
    return train_module.train(chosen, pd.read_parquet(manifest), embeddings, out, manifest_path=manifest)


@pytest.mark.parametrize(("train", "test"), [("sample", "clean"), ("clean", "average")])
def test_views_stand_behind_the_clean_rows_with_the_label_of_their_row(
    train: str, test: str, manifest: pd.DataFrame, embeddings: Path
) -> None:
    shuffled = manifest.sample(frac=1, random_state=1)
    data = load_data(recipe(train, test), shuffled, embeddings)
    plain = load_data(recipe(), shuffled, embeddings)
    store, size = EmbeddingStore(embeddings / "fbank.zarr"), len(manifest)
    assert len(data.features.lengths) == len(data.labels) == size * (COUNT + 1)
    np.testing.assert_array_equal(data.labels[:size], plain.labels)
    np.testing.assert_array_equal(data.features.rows[:size], plain.features.rows)
    assert sorted(np.concatenate(data.views).tolist()) == list(range(size * (COUNT + 1)))
    for i, id_ in enumerate(shuffled["id"]):
        assert data.views[i][0] == i
        assert set(data.labels[data.views[i]]) == {plain.labels[i]}
        for view, row in enumerate(data.views[i]):
            frames, lengths = data.features.batch(np.array([row]))
            (stored,) = store.rows([id_], view=view)
            np.testing.assert_array_equal(frames[0].numpy(), store[stored])
            assert lengths.tolist() == [store.lengths[stored]]


def test_views_that_nobody_asks_for_change_nothing(
    manifest: pd.DataFrame, embeddings: Path, tmp_path: Path
) -> None:
    seen = load_data(recipe(), manifest, embeddings)
    bare = load_data(recipe(), manifest, store_of(tmp_path / "bare", rows_with_views(manifest, 0)))
    assert len(seen.features.rows) == len(manifest)
    assert [views.tolist() for views in seen.views] == [[i] for i in range(len(manifest))]
    assert seen.digest() == bare.digest()


def test_a_row_may_lack_views_and_a_view_without_its_clean_row_is_not_used(
    manifest: pd.DataFrame, tmp_path: Path
) -> None:
    first, second, third = manifest["id"][:3]
    lost = {(first, 1), (second, 1), (second, 2), (third, 0)}
    rows = [row for row in rows_with_views(manifest, COUNT) if (row.id, row.item.view) not in lost]
    data = load_data(recipe("sample"), manifest, store_of(tmp_path, rows))
    assert data.missing == (third,)
    assert [len(views) for views in data.views[:3]] == [2, 1, 3]
    store = data.features.store
    assert store.view[data.features.rows[data.views[0]]].tolist() == [0, 2]
    assert third not in store.ids[data.features.rows].tolist()


def test_a_store_without_the_views_of_the_recipe_is_refused(manifest: pd.DataFrame, tmp_path: Path) -> None:
    bare = store_of(tmp_path, rows_with_views(manifest, 0))
    for chosen in (recipe("sample"), recipe(test="average")):
        with pytest.raises(ValueError, match=r"fbank.zarr has no views of these rows.*extract with `views`"):
            load_data(chosen, manifest, bare)


def test_the_digest_sees_which_views_were_trained_on(manifest: pd.DataFrame, tmp_path: Path) -> None:
    digests = {
        load_data(recipe("sample"), manifest, store_of(tmp_path / name, rows)).digest()
        for name, rows in {
            "two": rows_with_views(manifest, 2),
            "again": rows_with_views(manifest, 2),
            "three": rows_with_views(manifest, 3),
            "other": rows_with_views(manifest, 2, settings="sigma=0.1"),
        }.items()
    }
    assert len(digests) == 3


class Spy(CachedFeatures):
    """CachedFeatures that notes the rows of every batch."""

    seen: list[list[int]]

    def batch(self, rows: NDArray[np.int64]) -> Frames:
        self.seen.append(rows.tolist())
        return super().batch(rows)


def test_every_epoch_draws_one_view_per_training_row(
    manifest: pd.DataFrame, embeddings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stillwave.pipeline.runs.origins.CachedFeatures", Spy)
    data, epochs = load_data(recipe("sample"), manifest, embeddings), 25
    assert isinstance(data.features, Spy)
    train, valid = np.arange(24), np.arange(24, 36)

    def batches(**options: Any) -> list[list[int]]:
        data.features.seen = []  # type: ignore[attr-defined]
        head = build_head(recipe(), {"frames": data.features.frame_shape}, 2)
        settings = Train(epochs=epochs, batch_size=8)
        fit_module.fit(head, data.features, data.labels, train, valid, settings, **options)
        return data.features.seen  # type: ignore[attr-defined, no-any-return]

    seen = batches(views=data.views, seed=(0, 1))
    assert len(seen) == epochs * 4  # three batches of 8 to train on, one of 12 to validate on
    owner = {int(row): i for i, views in enumerate(data.views) for row in views}
    used = np.zeros((24, COUNT + 1), dtype=int)
    epochs_seen = [[*a, *b, *c] for a, b, c in zip(seen[::4], seen[1::4], seen[2::4], strict=True)]
    for n in range(epochs):  # batches are of similar length, as drawn
        lengths = [data.features.lengths[rows] for rows in seen[4 * n : 4 * n + 3]]
        spans = sorted((part.min(), part.max()) for part in lengths)
        assert spans[0][1] <= spans[1][0]
        assert spans[1][1] <= spans[2][0]
    for rows in epochs_seen:
        assert sorted(owner[row] for row in rows) == train.tolist()
        for row in rows:
            used[owner[row], data.views[owner[row]].tolist().index(row)] += 1
    assert all(sorted(seen[4 * n + 3]) == valid.tolist() for n in range(epochs))  # clean
    expected, p = 24 * epochs / (COUNT + 1), 1 / (COUNT + 1)
    assert np.abs(used.sum(axis=0) - expected).max() < 4 * np.sqrt(24 * epochs * p * (1 - p))
    assert used.min() > 0
    assert len({tuple(sorted(rows)) for rows in epochs_seen}) == epochs  # drawn anew each time
    assert batches(views=data.views, seed=(0, 1)) == seen
    assert batches(views=data.views, seed=(0, 2)) != seen
    assert all(max(rows) < 36 for rows in batches(seed=(0, 1)))  # no views: clean rows alone


@pytest.mark.parametrize("train", ["clean", "sample"])
def test_frames_are_standardised_by_the_rows_that_are_trained_on(
    train: str, speech: Path, manifest: pd.DataFrame, embeddings: Path, tmp_path: Path
) -> None:
    run = Run.open(trained(recipe(train), speech / "manifest.parquet", embeddings, tmp_path / "run"))
    store, views = EmbeddingStore(embeddings / "fbank.zarr"), range(COUNT + 1 if train == "sample" else 1)
    for fold in run.folds:
        ids = manifest.loc[manifest["fold"] != fold, "id"]
        rows = [row for view in views for row in store.rows(ids, view=view)]
        frames = np.concatenate([store[row].astype(np.float64) for row in rows])
        (standardise,) = run.model(fold).standardisers
        np.testing.assert_allclose(standardise.mean.numpy(), frames.mean(0), rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(standardise.std.numpy(), frames.std(0), rtol=1e-4)


def test_a_killed_training_on_views_ends_with_the_same_files(
    speech: Path, embeddings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(Exception):
        pass

    def kill(fold: int, epoch: int, figures: dict[str, float]) -> None:
        if (fold, epoch) == (1, 2):
            raise Killed

    monkeypatch.setattr(fit_module, "CHECKPOINT_EVERY_S", 0)
    chosen, manifest = recipe("sample"), speech / "manifest.parquet"
    whole = trained(chosen, manifest, embeddings, tmp_path / "whole")
    table = pd.read_parquet(manifest)
    with pytest.raises(Killed):
        train_module.train(
            chosen, table, embeddings, tmp_path / "again", manifest_path=manifest, progress=kill
        )
    again = trained(chosen, manifest, embeddings, tmp_path / "again")
    clean = trained(recipe(), manifest, embeddings, tmp_path / "clean")
    files = [{name: data for name, data in files_of(run).items() if name.endswith("model.safetensors")}
             for run in (whole, again, clean)]  # fmt: skip
    assert len(files[0]) == 3
    assert files[0] == files[1]
    assert all(files[0][name] != files[2][name] for name in files[0])


@pytest.mark.parametrize("test", ["clean", "average"])
def test_a_prediction_is_the_mean_of_the_probabilities_of_all_views(
    test: str, speech: Path, manifest: pd.DataFrame, embeddings: Path, tmp_path: Path
) -> None:
    run = trained(recipe(test=test), speech / "manifest.parquet", embeddings, tmp_path / "run")
    metrics = evaluate(run)
    assert metrics["n"] == len(manifest)
    predictions = pd.read_parquet(run / "report/predictions.parquet").set_index("id")
    store = EmbeddingStore(embeddings / "fbank.zarr")
    for record in manifest.to_dict("records"):
        head, config = Run.open(run).model(record["fold"]).head, Run.open(run).config
        views = range(COUNT + 1) if test == "average" else [0]
        probabilities = []
        for view in views:
            (row,) = store.rows([record["id"]], view=view)
            frames = torch.from_numpy(store[row].astype(np.float32))[None]
            with torch.inference_mode():
                logits = head(frames, torch.tensor([frames.shape[1]]))
            probabilities.append(logits.softmax(1)[0].double().numpy())
        columns = [f"p_{name}" for name in config["classes"]]
        got = predictions.loc[record["id"], columns].to_numpy(dtype=float)
        np.testing.assert_allclose(got, np.mean(probabilities, axis=0), atol=1e-6)
    assert json.loads((run / "config.json").read_text())["recipe"]["views"]["test"] == test
