"""The analysis folder: what is in it, that it is one thing, and what the command line makes of it."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from stillwave.analysis import analyze as module
from stillwave.analysis.analyze import analyze, standardised
from stillwave.analysis.embeddings import pool_store
from stillwave.analysis.measures import LAYERS
from stillwave.analysis.notes import fitted, on_label, on_layers
from stillwave.analysis.probes import probe
from stillwave.cache import EmbeddingStore, Spec
from stillwave.pipeline.backbones import load_backbone
from stillwave.pipeline.cli import app
from stillwave.pipeline.config.analysis import Analysis, Dbscan, Hdbscan, Kmeans, Neighbours, Tsne, Umap
from stillwave.pipeline.config.base import parse_config
from stillwave.pipeline.config.recipe import Recipe
from stillwave.pipeline.corpora.manifest import read_manifest
from stillwave.pipeline.extract.stage import extract
from stillwave.pipeline.train.stage import train
from tests.fakes import FINGERPRINT, rows_with_views, write_store

CONFIGS = Path(__file__).parents[2] / "configs"
BARE = Analysis(tsne=None, umap=None, kmeans=None, hdbscan=None)
QUICK = Analysis(umap=None, tsne=Tsne(iterations=250, perplexity=8), dbscan=Dbscan(eps=8), max_rows=34)


@pytest.fixture(scope="module")
def folder(speech: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """manifest.parquet and embeddings/fbank.zarr, as `stillwave run` leaves them; some rows lack a label."""
    folder = tmp_path_factory.mktemp("analyze")
    manifest = read_manifest(speech / "manifest.parquet")
    config = load_backbone(CONFIGS / "backbones/fbank_static.yaml")
    extract(config, manifest[:35], folder / "embeddings/fbank.zarr")
    manifest.loc[manifest.index[:3], "word"] = None
    manifest.to_parquet(folder / "manifest.parquet")
    return folder


@pytest.fixture(scope="module")
def made(folder: Path) -> Path:
    analyze(folder / "embeddings/fbank.zarr", folder / "analysis/fbank", QUICK)
    return folder / "analysis/fbank"


def digests(folder: Path) -> dict[str, str]:
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in folder.iterdir()}


def test_the_files_agree_with_each_other_and_with_the_store(made: Path, folder: Path) -> None:
    facts = json.loads((made / "analysis.json").read_text())
    rows = pd.read_parquet(made / "rows.parquet")
    store = EmbeddingStore(folder / "embeddings/fbank.zarr")
    manifest = read_manifest(folder / "manifest.parquet").set_index("id").loc[rows["id"]]
    numbers = store.rows(rows["id"])
    vectors = np.load(made / "embeddings.npy")
    assert (facts["rows"], facts["dim"]) == vectors.shape == (34, 80)
    np.testing.assert_array_equal(vectors, pool_store(store, numbers, "mean").values)
    labels = np.load(made / "labels.npy")
    assert (facts["label"], facts["classes"]) == ("word", ["high", "low"])
    named = [None if number < 0 else facts["classes"][number] for number in labels]
    assert named == manifest["word"].tolist()
    assert labels.dtype == np.int64
    assert (labels == -1).sum() == manifest["word"].isna().sum() > 0
    assert rows["speaker"].tolist() == manifest["speaker"].tolist()
    assert list(rows.columns[-7:]) == ["kmeans", "hdbscan", "dbscan", "pca_x", "pca_y", "tsne_x", "tsne_y"]
    for metric in ("cosine", "euclidean"):
        nearest = np.load(made / f"neighbours_{metric}.npy")
        assert nearest.shape == (34, 10)
        assert not (nearest == np.arange(34)[:, None]).any()
    x = standardised(vectors)
    distance = np.square(x[:, None].astype(float) - x[None]).sum(-1) + np.diag(np.full(34, np.inf))
    assert (nearest[:, 0] == distance.argmin(1)).all()
    assert pd.read_csv(made / "dimensions.csv").shape == (80, 7)
    assert facts["left_out"] == {
        "without frames": {"rows": 1, "first": [read_manifest(folder / "manifest.parquet")["id"].iloc[-1]]},
        "not drawn (max_rows)": {"rows": 1, "first": facts["left_out"]["not drawn (max_rows)"]["first"]},
    }
    assert [note.split(",")[0] for note in facts["notes"]][:2] == ["1 rows left out"] * 2


def test_the_table_of_leakage_is_of_the_same_figures(made: Path) -> None:
    facts = json.loads((made / "analysis.json").read_text())
    table = pd.read_csv(made / "leakage.csv").set_index("measure")
    assert list(table) == ["label", "speaker", "chance_label", "chance_speaker"]
    probes = {line["target"]: line for line in facts["probes"]}
    assert table.loc["linear probe, UAR", "label"] == pytest.approx(probes["label"]["uar"])
    assert probes["label"]["groups"] == 6
    assert probes["speaker"]["groups"] is None
    assert probes["label"]["uar"] > 0.9 > probes["speaker"]["uar"]  # tones are high or low, whoever has them
    retrieval = facts["retrieval"]
    assert table.loc["cosine P@5", "speaker"] == pytest.approx(retrieval["cosine"]["speaker"]["5"])
    apart = table.loc["euclidean P@1 among other speakers"]
    assert apart["label"] == pytest.approx(retrieval["euclidean"]["label_apart"]["1"])
    assert apart["chance_label"] == pytest.approx(retrieval["chance"]["label_apart"])
    assert np.isnan(apart["speaker"])
    kmeans = next(line for line in facts["clusters"] if line["method"] == "kmeans")
    assert kmeans["clusters"] == 2
    assert table.loc["kmeans ARI", "label"] == pytest.approx(kmeans["label"]["ari"])
    assert table.loc["kmeans ARI", "chance_label"] == 0
    assert 0 < table.loc["kmeans NMI", "chance_speaker"] < 0.3


def test_every_projection_has_a_picture_in_every_colour(made: Path) -> None:
    pictures = {file.stem for file in made.glob("*.png")}
    assert pictures == {file.stem for file in made.glob("*.svg")}
    assert pictures == {"dimensions", *(f"{a}_{b}" for a in ("pca", "tsne") for b in ("label", "speaker"))}
    assert (made / "explorer.html").exists()
    there = sorted(file.name for file in made.iterdir())
    assert json.loads((made / "analysis.json").read_text())["files"] == there


def test_the_same_inputs_give_the_same_bytes(made: Path, folder: Path) -> None:
    before = digests(made)
    analyze(folder / "embeddings/fbank.zarr", made, QUICK)
    assert digests(made) == before
    assert [file.name for file in made.parent.iterdir()] == ["fbank"]


def test_what_fails_leaves_the_old_analysis_whole(
    made: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = digests(made)

    def full(*_: Any) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(module, "draw", full)
    with pytest.raises(OSError, match="no space left"):
        analyze(folder / "embeddings/fbank.zarr", made, QUICK)
    assert digests(made) == before


def test_another_folder_is_not_overwritten(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "letters.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"that are not from an analysis \(letters.txt\)"):
        analyze(folder / "embeddings/fbank.zarr", tmp_path, QUICK)
    assert (tmp_path / "letters.txt").read_text() == "mine"


def test_a_manifest_that_is_not_there_is_named_with_where_it_was_looked_for(
    folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "embeddings").mkdir()
    (tmp_path / "embeddings/fbank.zarr").symlink_to(folder / "embeddings/fbank.zarr")
    with pytest.raises(ValueError, match=f"{tmp_path}/manifest.parquet: no such manifest.*--manifest"):
        analyze(tmp_path / "embeddings/fbank.zarr", tmp_path / "out", QUICK)


def test_a_store_of_layers_has_a_probe_for_each(
    manifest: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = Spec(dim=6, layers=3, chunk_frames=4, shard_frames=16)
    fingerprint = FINGERPRINT | {"config": {"layers": [2, 5, 11]}}
    write_store(tmp_path / "embeddings/deep.zarr", rows_with_views(manifest, 0), spec, fingerprint)
    manifest.to_parquet(tmp_path / "manifest.parquet")
    files, pool = [], module.pool_layers
    with monkeypatch.context() as patched:
        patched.setattr(module, "pool_layers", lambda *a, file: files.append(file) or pool(*a, file=file))
        facts = analyze(tmp_path / "embeddings/deep.zarr", tmp_path / "out", BARE)
    assert [file.parent.parent for file in files] == [tmp_path / "out"]  # on disk, and gone afterwards
    assert not list((tmp_path / "out").rglob("layers.npy"))
    assert facts["leakage"][0]["label"] == facts["probes"][4]["uar"]
    before = digests(tmp_path / "out")
    table = pd.read_csv(tmp_path / "out/layers.csv")
    assert list(table) == list(LAYERS)
    assert "layers.csv" in facts["files"]
    assert table["layer"].tolist() == [2, 5, 11]  # as the backbone has them
    assert table["index"].tolist() == [0, 1, 2]  # as the store has them
    store = EmbeddingStore(tmp_path / "embeddings/deep.zarr")
    label, speaker = (manifest[name].to_numpy(object) for name in ("word", "speaker"))
    for index, line in table.iterrows():
        values = pool_store(store, store.rows(manifest["id"]), "mean", int(index)).values
        alone = probe(values, label, speaker), probe(values, speaker)
        assert line[["label", "speaker"]].tolist() == pytest.approx([found["uar"] for found in alone])
        assert line[["label_std", "speaker_std"]].tolist() == pytest.approx(
            [found["uar_std"] for found in alone]
        )
        assert line[["chance_label", "chance_speaker"]].tolist() == pytest.approx([1 / 2, 1 / 6])
    best = table.loc[table["label"].idxmax()]
    (note,) = [note for note in facts["notes"] if note.startswith("layers.csv")]
    assert f"best on layer {best['layer']:.0f}, UAR {best['label']:.3f}" in note
    assert f"picked from 3 on the rows that test it: a hint, not a result; -S layer={best.name}" in note
    facts = analyze(
        tmp_path / "embeddings/deep.zarr", tmp_path / "out", Analysis(**BARE.model_dump() | {"layer": "mean"})
    )
    assert [line["layer"] for line in facts["probes"]] == [2, 2, 5, 5, 11, 11]
    after = digests(tmp_path / "out")
    for name in ("layers.csv", "layers.png", "layers.svg"):  # every layer, whichever is analyzed
        assert after[name] == before[name]
    vectors = pool_store(store, np.arange(36), "mean", "mean").values
    np.testing.assert_array_equal(np.load(tmp_path / "out/embeddings.npy"), vectors)


def test_without_a_label_no_layer_is_called_best() -> None:
    lines = [dict.fromkeys(LAYERS) | {"layer": i, "index": i, "speaker": 0.5} for i in range(3)]
    assert on_layers(lines) == []


def test_sizes_fit_the_rows_and_that_is_said() -> None:
    config = Analysis(kmeans=Kmeans(clusters=50), hdbscan=Hdbscan(min_cluster_size=40), umap=Umap())
    small, notes = fitted(config, 12)
    assert small.tsne is not None
    assert small.umap is not None
    assert (small.tsne.perplexity, small.umap.neighbours) == (pytest.approx(11 / 3), 11)
    assert (small.kmeans, small.hdbscan) == (Kmeans(clusters=12), Hdbscan(min_cluster_size=12))
    assert len(notes) == 4
    assert notes[0] == "tsne.perplexity 30 is too large for 12 rows: 3.66667 was taken"
    smaller, notes = fitted(Analysis(tsne=None, umap=None, kmeans=None, hdbscan=None), 8)
    assert smaller.neighbours == Neighbours(k=7, precision_at=(1, 5, 7))
    assert fitted(Analysis(), 1000) == (Analysis(), [])


def test_standardised_dimensions_have_mean_0_and_variance_1_or_are_0() -> None:
    x = np.random.default_rng(0).normal(5, 3, (200, 4)).astype(np.float32)
    x[:, 2] = 0.1
    found = standardised(x)
    np.testing.assert_allclose(found.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(found.std(axis=0), [1, 1, 0, 1], atol=1e-5)
    assert (found[:, 2] == 0).all()
    assert found.dtype == np.float32


def test_the_command_shows_a_run_and_says_what_was_left_out(folder: Path, tmp_path: Path) -> None:
    manifest = read_manifest(folder / "manifest.parquet")
    recipe = parse_config(
        {
            "backbones": ["fbank"],
            "label": "word",
            "head": {"kind": "segment", "num_heads": 4, "hidden": 16},
            "train": {"epochs": 1, "batch_size": 8},
        },
        Recipe,
        source="test",
    )
    run = tmp_path / "run"
    train(recipe, manifest, folder / "embeddings", run, manifest_path=folder / "manifest.parquet")
    out = tmp_path / "out"
    command = ["analyze", str(folder / "embeddings/fbank.zarr"), "--run", str(run), "--out", str(out)]
    settings = ["--config", str(CONFIGS / "analysis/default.yaml"), "-S", "umap=null", "-S", "tsne=null"]
    done = CliRunner().invoke(app, [*command, *settings])
    assert done.exit_code == 0, done.output
    assert "linear probe, UAR" in done.output
    assert "label: word" in done.output
    assert "1 rows left out, without frames" in done.output
    facts = json.loads((out / "analysis.json").read_text())
    assert (facts["run"], facts["label"], facts["config"]["label"]) == (str(run), "word", "word")
    rows = pd.read_parquet(out / "rows.parquet").set_index("id")
    assert rows["predicted"].isna().sum() == 3
    assert rows["confidence"].between(0.5, 1).sum() == 32
    assert (out / "pca_entropy.svg").exists()
    other = CliRunner().invoke(app, [*command, *settings, "-S", "label=text"])
    assert "the label is 'text', but" in str(other.exception)
    assert "predicts 'word': leave out -S label, or --run" in str(other.exception)
    again = CliRunner().invoke(app, [*command, *settings, "-S", "tsne.perplexty=3"])
    assert again.exit_code == 1
    assert "perplexty" in str(again.exception)


def small(manifest: pd.DataFrame, folder: Path, dim: int = 4) -> Path:
    """A store of 12 rows of `manifest`, which lies above it."""
    write_store(folder / "embeddings/a.zarr", rows_with_views(manifest[:12], 0), Spec(dim=dim))
    manifest[:12].to_parquet(folder / "manifest.parquet")
    return folder / "embeddings/a.zarr"


def test_the_label_that_was_chosen_of_several_is_noted(manifest: pd.DataFrame, tmp_path: Path) -> None:
    several = manifest.assign(intent=["p", "q"] * 18, emotion=["x", "y", "z"] * 12).drop(columns="word")
    facts = analyze(small(several, tmp_path), tmp_path / "out", BARE)
    assert facts["label"] == "emotion"
    assert "label: emotion, of intent, emotion; -S label= for another" in facts["notes"]
    assert on_label(several, Analysis(label="intent")) == []


@pytest.mark.usefixtures("one_font")
def test_what_a_corpus_lacks_is_noted(manifest: pd.DataFrame, tmp_path: Path) -> None:
    """Speakers, a font for its letters, and recordings where its manifest says."""
    names = ["中", "文"] * 18
    bare = manifest.drop(columns=["speaker", "word"]).assign(path="gone.wav", accent=names)
    store = small(bare, tmp_path)
    facts = analyze(store, tmp_path / "out", BARE)
    assert facts["probes"][0]["notes"][0].startswith("no speakers: rows were held out at random")
    assert any(note.startswith("probe of label: no speakers: rows were held") for note in facts["notes"])
    assert any("no installed font has 2 letters, drawn as boxes: 中 文;" in note for note in facts["notes"])
    assert any("12 of 12 recordings are not where" in note for note in facts["notes"])
    assert json.loads((tmp_path / "out/analysis.json").read_text()) == facts
    bare.drop(columns="accent")[:12].to_parquet(tmp_path / "manifest.parquet")
    assert analyze(store, tmp_path / "out", BARE)["notes"][0].startswith(
        "no label: the manifest has no column"
    )


def test_a_link_to_a_folder_is_written_through(manifest: pd.DataFrame, tmp_path: Path) -> None:
    store = small(manifest, tmp_path)
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    analyze(store, tmp_path / "link", BARE)
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real/explorer.html").exists()


def test_one_dimension_cannot_be_drawn(manifest: pd.DataFrame, tmp_path: Path) -> None:
    store = small(manifest, tmp_path, dim=1)
    with pytest.raises(ValueError, match=r"have 1 dimension, but a picture needs 2; -S pooling=multi_scale"):
        analyze(store, tmp_path / "out", BARE)
    assert not list((tmp_path / "out").iterdir())
    assert (
        analyze(store, tmp_path / "out", Analysis(**BARE.model_dump() | {"pooling": "multi_scale"}))["dim"]
        == 3
    )
