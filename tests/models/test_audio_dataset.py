"""The data set of word recordings: what an item is, what augmentation does, and files that cannot be read."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
from sklearn.preprocessing import LabelEncoder
from torch.utils.data import DataLoader

from stillwave.models.audio_dataset import EFFECTS, AudioDataset
from stillwave.pipeline.audio.augment import apply, draw
from stillwave.pipeline.config.base import load_config
from stillwave.pipeline.config.recipe import Recipe
from stillwave.pipeline.config.views import GaussianEffect, ViewsConfig, WaveformEffects
from tests.fakes import write_wave

RECIPES = Path(__file__).parents[2] / "configs" / "recipes"


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    """Three recordings: shorter than a second, longer, and of another rate."""
    folder = tmp_path_factory.mktemp("words")
    for name, seconds, rate in (("short", 0.4, 16_000), ("long", 1.3, 16_000), ("slow", 0.5, 8_000)):
        write_wave(folder / f"{name}.wav", seconds, 150, seed=1, sample_rate=rate)
    return pd.DataFrame(
        {
            "file_path": [str(folder / f"{name}.wav") for name in ("short", "long", "slow")],
            "word": ["yes", "no", "yes"],
            "speaker": ["ann", "bob", "ann"],
        }
    )


def encoder() -> LabelEncoder:
    return LabelEncoder().fit(["no", "yes"])


def test_an_item_is_a_second_of_audio_a_label_and_a_speaker(table: pd.DataFrame) -> None:
    dataset = AudioDataset(table, encoder())
    assert len(dataset) == 3
    items = [dataset[i] for i in range(3)]
    assert [(label, speaker) for _, label, speaker in items] == [(1, "ann"), (0, "bob"), (1, "ann")]
    assert all(audio.shape == (16000,) and audio.dtype == torch.float32 for audio, _, _ in items)
    short, _ = soundfile.read(table["file_path"][0], dtype="float32")
    np.testing.assert_array_equal(items[0][0][:6400], short)
    assert not items[0][0][6400:].any()
    long, _ = soundfile.read(table["file_path"][1], dtype="float32")
    np.testing.assert_array_equal(items[1][0], long[:16000])
    assert items[2][0][:8000].abs().max() > 0.1  # half a second at 8 kHz is half a second
    assert not items[2][0][8001:].any()


def test_other_lengths_and_rates(table: pd.DataFrame) -> None:
    dataset = AudioDataset(table, encoder(), sample_rate=8000, duration_s=0.25)
    assert [len(audio) for audio, _, _ in dataset] == [2000] * 3


def test_augmentation_is_that_of_the_views_and_follows_seed_row_and_epoch(table: pd.DataFrame) -> None:
    dataset = AudioDataset(table, encoder(), augment=True, seed=5)
    views = ViewsConfig(count=1, seed=5, **dict(EFFECTS))
    clean, _ = soundfile.read(table["file_path"][0], dtype="float32")
    changed = 0
    for epoch in range(6):
        dataset.epoch = epoch
        expected = apply(clean, 16000, draw(views, "row 0", epoch + 1))
        audio = dataset[0][0].numpy()
        np.testing.assert_array_equal(audio[: len(expected)], expected[:16000])
        changed += not np.array_equal(audio[: len(clean)], clean)
    assert 1 <= changed < 6  # each effect has a chance of 0.3
    again = AudioDataset(table, encoder(), augment=True, seed=5)
    again.epoch = 5
    assert torch.equal(again[0][0], dataset[0][0])


def test_noise_has_the_wanted_deviation(table: pd.DataFrame) -> None:
    effects = WaveformEffects(gaussian=GaussianEffect(probability=1, sigma=0.005))
    dataset = AudioDataset(table, encoder(), augment=True, effects=effects)
    clean = AudioDataset(table, encoder())
    noise = dataset[1][0] - clean[1][0]
    assert noise.std().item() == pytest.approx(0.005, rel=0.03)


def test_the_effects_are_those_of_the_recipes() -> None:
    for name in ("word_basic", "word_personalized"):
        recipe: Recipe = load_config(RECIPES / f"{name}.yaml", Recipe)
        assert recipe.finetune is not None
        assert recipe.finetune.augment == EFFECTS


def test_a_loader_makes_batches(table: pd.DataFrame) -> None:
    audio, labels, speakers = next(iter(DataLoader(AudioDataset(table, encoder()), batch_size=3)))
    assert audio.shape == (3, 16000)
    assert labels.tolist() == [1, 0, 1]
    assert list(speakers) == ["ann", "bob", "ann"]


def test_bad_files_are_named_or_left_out_and_listed(table: pd.DataFrame, tmp_path: Path) -> None:
    (tmp_path / "empty.wav").touch()
    bad = table.assign(
        file_path=[table["file_path"][0], str(tmp_path / "empty.wav"), str(tmp_path / "no.wav")]
    )
    dataset = AudioDataset(bad, encoder())
    with pytest.raises(ValueError, match=r"empty.*empty\.wav.*on_error='skip'"):
        dataset[1]
    with pytest.raises(ValueError, match=r"missing.*no\.wav"):
        dataset[2]
    kept = AudioDataset(bad, encoder(), on_error="skip")
    assert [speaker for _, _, speaker in kept] == ["ann"]
    assert [Path(path).name for path, _ in kept.skipped] == ["empty.wav", "no.wav"]
    assert kept.skipped[0][1].startswith("empty:")


def test_tables_that_cannot_be_used(table: pd.DataFrame) -> None:
    with pytest.raises(ValueError, match="no column 'speaker'; it has file_path, word"):
        AudioDataset(table.drop(columns="speaker"), encoder())
    with pytest.raises(ValueError, match="column 'word' has no value in row 1"):
        AudioDataset(table.assign(word=["yes", None, "no"]), encoder())
    with pytest.raises(ValueError, match="'word': the label encoder does not know maybe"):
        AudioDataset(table.assign(word=["yes", "maybe", "no"]), encoder())
    with pytest.raises(ValueError, match="on_error is 'ignore'"):
        AudioDataset(table, encoder(), on_error="ignore")  # type: ignore[arg-type]
