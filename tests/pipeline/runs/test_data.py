from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from stillwave.pipeline.backbones.fbank import FbankConfig
from stillwave.pipeline.config.recipe import Recipe
from stillwave.pipeline.config.train import Train
from stillwave.pipeline.corpora.leaks import sizes, withhold
from stillwave.pipeline.extract.stage import extract
from stillwave.pipeline.runs.data import load_data
from stillwave.pipeline.runs.folds import check_groups, folds_of
from stillwave.pipeline.train.stage import train


@pytest.fixture(scope="module")
def embeddings(speech: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("embeddings")
    extract(
        FbankConfig(kind="fbank", deltas=0),
        pd.read_parquet(speech / "manifest.parquet"),
        folder / "fbank.zarr",
    )
    return folder


def recipe(**fields: object) -> Recipe:
    head = {"kind": "segment", "num_heads": 4}
    return Recipe(**({"backbones": ["fbank"], "label": "word", "head": head} | fields))  # type: ignore[arg-type]


def test_every_row_is_tested_once_and_speakers_stay_on_one_side(
    manifest: pd.DataFrame, embeddings: Path
) -> None:
    chosen = recipe(train=Train(valid_fraction=0.3))
    data = load_data(chosen, manifest, embeddings)
    folds = folds_of(data, chosen)
    assert sorted(np.concatenate([fold.test for fold in folds]).tolist()) == list(range(len(manifest)))
    for fold in folds:
        sides = [set(data.manifest["speaker"].iloc[rows]) for rows in (fold.train, fold.valid, fold.test)]
        assert all(sides)
        assert len(set.union(*sides)) == sum(map(len, sides))
        assert len(fold.train) + len(fold.valid) + len(fold.test) == len(manifest)


def test_features_are_the_rows_of_the_manifest(manifest: pd.DataFrame, embeddings: Path) -> None:
    shuffled = manifest.sample(frac=1, random_state=1)
    data = load_data(recipe(), shuffled, embeddings)
    assert data.classes == ("high", "low")
    assert [data.classes[i] for i in data.labels] == shuffled["word"].tolist()
    store = data.features.store
    for i in (0, 7):
        frames, lengths = data.features.batch(np.array([i]))
        (row,) = store.rows([shuffled["id"].iloc[i]])
        np.testing.assert_array_equal(frames[0].numpy(), store[row])
        assert lengths.tolist() == [store.lengths[row]]


def test_the_memory_map_and_the_resident_tensor_give_the_same_batches(
    manifest: pd.DataFrame, embeddings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    resident = load_data(recipe(), manifest, embeddings).features
    monkeypatch.setattr("stillwave.pipeline.runs.features.RESIDENT_BYTES", 0)
    mapped = load_data(recipe(), manifest, embeddings).features
    rows = np.array([3, 0, 9])
    for ours, theirs in zip(resident.batch(rows), mapped.batch(rows), strict=True):
        np.testing.assert_array_equal(ours.numpy(), theirs.numpy())


def test_a_predefined_split_is_one_fold(manifest: pd.DataFrame, embeddings: Path) -> None:
    sides = manifest.drop(columns="fold").assign(split=["train", "valid", "test"] * 12)
    (fold,) = folds_of(load_data(recipe(), sides, embeddings), recipe())
    assert (len(fold.train), len(fold.valid), len(fold.test)) == (12, 12, 12)


def test_rows_without_frames_or_label_are_left_out_by_name(manifest: pd.DataFrame, embeddings: Path) -> None:
    extra = manifest.iloc[[0]].assign(id="new")
    unlabelled = manifest.iloc[[1]].assign(id="unlabelled", word=None)
    data = load_data(recipe(), pd.concat([manifest, extra, unlabelled]), embeddings)
    assert data.missing == ("new",)
    assert len(data.labels) == len(manifest)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"label": "emotion"}, r"'emotion' is not a column.*word"),
        ({"classes": ["high", "loud"]}, r"\['loud'\], from `classes`.* do not occur.*has \['high', 'low'\]"),
    ],
)
def test_a_label_that_is_not_there_is_named(
    fields: dict[str, object], message: str, manifest: pd.DataFrame, embeddings: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        load_data(recipe(**fields), manifest, embeddings)


def test_folds_that_cannot_be_trained_or_tested_are_refused(manifest: pd.DataFrame, embeddings: Path) -> None:
    untested = manifest.drop(columns="fold").assign(split="train")
    alone = manifest.assign(fold=0)
    unseen = manifest.assign(fold=(manifest["word"] == "low").astype(int))
    for table, message in (
        (untested, "fold 0 has no test rows"),
        (alone, "fold 0 has no training rows"),
        (unseen, r"fold 0 has no training rows of \['high'\]"),
    ):
        with pytest.raises(ValueError, match=message):
            folds_of(load_data(recipe(), table, embeddings), recipe())


def test_frames_of_other_content_are_refused(manifest: pd.DataFrame, embeddings: Path) -> None:
    manifest.loc[3, "sha256"] = "0" * 64
    with pytest.raises(ValueError, match="were made from other content than the manifest's; extract again"):
        load_data(recipe(), manifest, embeddings)


def test_validation_by_group_needs_the_group(manifest: pd.DataFrame, embeddings: Path) -> None:
    chosen = recipe(train=Train(valid_fraction=0.2))
    data = load_data(chosen, manifest.drop(columns="speaker"), embeddings)
    with pytest.raises(ValueError, match=r"set train.group: null"):
        folds_of(data, chosen)


def test_training_refuses_a_group_on_both_sides_that_prepare_did_not_leave_there(
    manifest: pd.DataFrame, embeddings: Path, tmp_path: Path
) -> None:
    moved = manifest.assign(fold=np.roll(manifest["fold"], 1))
    place = {"manifest_path": tmp_path / "m.parquet"}
    with pytest.raises(ValueError, match=r"leaks \d speaker\(s\): .* rows.*train\.group: null to accept"):
        train(recipe(), moved, embeddings, tmp_path / "run", **place)
    assert not (tmp_path / "run").exists()
    for table, chosen in (
        (manifest, recipe()),
        (moved, recipe(train=Train(group=None))),
        (moved.drop(columns="speaker"), recipe()),
        (moved.assign(speaker=None), recipe()),
    ):
        check_groups(load_data(chosen, table, embeddings), chosen)
    side = moved.drop(columns="fold").assign(split=["train", "valid", "test"] * 12)
    with pytest.raises(ValueError, match=r"leaks \d speaker\(s\): .*test: \d rows, train: \d rows"):
        check_groups(load_data(recipe(), side, embeddings), recipe())


@pytest.mark.parametrize("fraction", [0.0, 0.4])
def test_rows_that_are_withheld_from_a_fold_are_on_none_of_its_sides(
    fraction: float, manifest: pd.DataFrame, embeddings: Path
) -> None:
    """Two speakers and the texts of rows 0 to 3 and 4 to 7 and so on in each fold."""
    chosen = recipe(train=Train(valid_fraction=fraction, group="text"))
    keys = {"text": [f"text {i // 4}" for i in range(36)], "speaker": manifest["speaker"].tolist()}
    disjoint = withhold(manifest.assign(text=keys["text"]), keys, "word").sample(frac=1, random_state=0)
    data = load_data(chosen, disjoint, embeddings)
    check_groups(data, chosen)
    check_groups(data, recipe())
    folds = folds_of(data, chosen)
    assert sorted(np.concatenate([fold.test for fold in folds]).tolist()) == list(range(36))
    everywhere = 0
    for fold in folds:
        used = np.concatenate([fold.train, fold.valid])
        assert bool(len(fold.valid)) == (fraction > 0)
        rest = sorted({*range(36)} - {*used.tolist(), *fold.test.tolist()})
        assert rest == [
            i for i, out in enumerate(data.manifest["withheld"]) if str(fold.number) in str(out).split()
        ]
        for column in ("speaker", "text"):
            assert not set(data.manifest[column].iloc[used]) & set(data.manifest[column].iloc[fold.test])
        assert not set(data.manifest["text"].iloc[fold.train]) & set(data.manifest["text"].iloc[fold.valid])
        everywhere += len(rest)
    assert everywhere == sizes_of_all(disjoint) > 0
    plain = load_data(chosen, disjoint.drop(columns="withheld"), embeddings)
    assert plain.digest() != data.digest()
    with pytest.raises(ValueError, match=r"leaks \d text\(s\): text \d"):
        check_groups(plain, chosen)


def sizes_of_all(manifest: pd.DataFrame) -> int:
    return sum(size.withheld for size in sizes(manifest).values())


def test_of_a_split_neither_training_nor_validation_rows_are_withheld(
    manifest: pd.DataFrame, embeddings: Path
) -> None:
    sides = manifest.drop(columns="fold").assign(split=["train", "valid", "test"] * 12)
    out = ["0" if i in (0, 1, 3) else None for i in range(36)]
    (fold,) = folds_of(load_data(recipe(), sides.assign(withheld=out), embeddings), recipe())
    assert [len(rows) for rows in (fold.train, fold.valid, fold.test)] == [10, 11, 12]
    assert not {0, 1, 3} & {*fold.train.tolist(), *fold.valid.tolist()}


def test_the_digest_sees_labels_folds_and_content(manifest: pd.DataFrame, embeddings: Path) -> None:
    digests = {load_data(recipe(), manifest, embeddings).digest()}
    for column, value in (
        ("fold", (manifest["fold"] + 1) % 3),
        ("speaker", "x"),
        ("word", manifest["word"][::-1].values),
    ):
        digests.add(load_data(recipe(), manifest.assign(**{column: value}), embeddings).digest())
    assert len(digests) == 4


def test_training_says_that_numbers_are_no_classes(manifest: pd.DataFrame, embeddings: Path) -> None:
    rated = manifest.assign(word=[f"{n}" for n in range(36)])
    with (
        pytest.warns(UserWarning, match="word: its 36 distinct values are all numbers, from 0 to 35"),
        pytest.raises(ValueError, match="fold 0 has no training rows of"),
    ):
        train(recipe(), rated, embeddings, embeddings / "run", manifest_path="m.parquet")
