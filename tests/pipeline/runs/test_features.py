from pathlib import Path

import numpy as np
import pytest
import torch

import stillwave.pipeline.runs.features as module
from stillwave.cache import EmbeddingStore
from stillwave.pipeline.runs.features import ABSENT, CachedFeatures, JoinedFeatures, valid_frames
from tests.fakes import row, write_store

CPU = torch.device("cpu")
ROWS = np.array([2, ABSENT, 0, ABSENT, 1])


@pytest.fixture
def store(tmp_path: Path) -> EmbeddingStore:
    write_store(tmp_path / "a.zarr", [row("a", 5), row("b", 2), row("c", 7)])
    return EmbeddingStore(tmp_path / "a.zarr")


@pytest.fixture(params=["resident", "mapped"])
def features(
    request: pytest.FixtureRequest, store: EmbeddingStore, monkeypatch: pytest.MonkeyPatch
) -> CachedFeatures:
    if request.param == "mapped":
        monkeypatch.setattr(module, "RESIDENT_BYTES", 0)
    return CachedFeatures(store, ROWS, CPU)


def test_absent_rows_have_length_zero_and_the_others_their_own_frames(
    features: CachedFeatures, store: EmbeddingStore
) -> None:
    assert features.lengths.tolist() == [7, 0, 5, 0, 2]
    values, lengths = features.batch(np.array([3, 0, 4, 1]))
    assert lengths.tolist() == [0, 7, 2, 0]
    assert values.shape == (4, 7, 3)
    np.testing.assert_array_equal(values[1].numpy(), store[2])
    np.testing.assert_array_equal(values[2, :2].numpy(), store[1])
    assert not values[0].any()


def test_a_batch_without_any_frames_has_one_frame_of_padding(features: CachedFeatures) -> None:
    values, lengths = features.batch(np.array([1, 3]))
    assert values.shape == (2, 1, 3)
    assert values.dtype == torch.float16
    assert lengths.tolist() == [0, 0]


def test_statistics_are_of_the_frames_that_are_there(features: CachedFeatures, store: EmbeddingStore) -> None:
    frames = torch.cat(list(valid_frames(features, np.arange(5), batch_size=2)))
    expected = np.concatenate([store[i] for i in (2, 0, 1)])
    np.testing.assert_array_equal(frames.numpy(), expected)


def test_joined_features_give_each_modality_in_turn(features: CachedFeatures, store: EmbeddingStore) -> None:
    other = CachedFeatures(store, np.array([0, 1, ABSENT, 2, 2]), CPU)
    joined = JoinedFeatures([features, other])
    assert joined.lengths.tolist() == [7 + 5, 0 + 2, 5 + 0, 0 + 7, 2 + 7]
    rows = np.array([1, 2])
    audio, audio_lengths, text, text_lengths = joined.batch(rows)
    assert audio_lengths.tolist() == [0, 5]
    assert text_lengths.tolist() == [2, 0]
    np.testing.assert_array_equal(audio[1].numpy(), store[0])
    np.testing.assert_array_equal(text[0].numpy(), store[1])


def test_a_row_that_stands_for_several_is_held_once(store: EmbeddingStore) -> None:
    """The text of a recording stands beside every view of it."""
    features = CachedFeatures(store, np.array([2, 1, 2, ABSENT, 1, 2]), CPU)
    assert features._resident is not None
    assert len(features._resident.values) == 7 + 2
    values, lengths = features.batch(np.array([5, 3, 1, 0]))
    assert lengths.tolist() == [7, 0, 2, 7]
    for place, row_ in ((0, 2), (2, 1), (3, 2)):
        np.testing.assert_array_equal(values[place, : lengths[place]].numpy(), store[row_])
