"""A PyTorch data set over a table of word recordings, for your own training loops.

Stillwave's stages do not use it: `finetune` reads a manifest. The numbers are the same.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.utils.data import Dataset

from stillwave.pipeline.audio.augment import apply, draw
from stillwave.pipeline.audio.decode import BadAudio, Waveform
from stillwave.pipeline.audio.segments import load_waveform
from stillwave.pipeline.config.views import (
    GaussianEffect,
    PitchEffect,
    SpeedEffect,
    ViewsConfig,
    WaveformEffects,
)

COLUMNS = ("file_path", "word", "speaker")
EFFECTS = WaveformEffects(
    speed=SpeedEffect(probability=0.3, low=0.9, high=1.1),
    pitch=PitchEffect(probability=0.3, semitones=2),
    gaussian=GaussianEffect(probability=0.3, sigma=0.005),
)


class LabelEncoder(Protocol):
    """Maps words to numbers, like scikit-learn's LabelEncoder. classes_: the words."""

    classes_: Any

    def transform(self, words: Sequence[str]) -> Any:
        """The number of each word."""
        ...


class AudioDataset(Dataset[tuple[Tensor, int, str]]):
    """Recordings as (waveform (samples,) float32, number of the word, speaker), all of the same length.

    dataframe: with columns file_path, word, speaker. label_encoder: fitted to the words.
    augment: whether to change waveforms by `effects`. An item's effects are determined by (seed, epoch, its
        row), not by the reading order or the worker process: set `epoch` before each epoch, so that they
        differ.
    sample_rate, duration_s: every recording is converted to these.
    on_error: `raise` an error that names the file when it is read; or `skip`: read all files at once, leave
        out the unusable ones, and list them with the reason in `skipped`.

    Raises ValueError for missing columns, empty cells and words unknown to the encoder.
    """

    def __init__(
        self,
        dataframe: pd.DataFrame,
        label_encoder: LabelEncoder,
        augment: bool = False,
        *,
        effects: WaveformEffects = EFFECTS,
        seed: int = 0,
        sample_rate: int = 16000,
        duration_s: float = 1.0,
        on_error: Literal["raise", "skip"] = "raise",
    ) -> None:
        if missing := [name for name in COLUMNS if name not in dataframe.columns]:
            there = ", ".join(map(str, dataframe.columns))
            raise ValueError(f"the table has no column {', '.join(map(repr, missing))}; it has {there}")
        for name in COLUMNS:
            if (empty := dataframe[name].isna()).any():
                row = dataframe.index[empty][0]
                raise ValueError(f"column {name!r} has no value in row {row}; fill it in")
        if on_error not in ("raise", "skip"):
            raise ValueError(f"on_error is {on_error!r}; choose 'raise' or 'skip'")
        self.sample_rate, self.num_samples = sample_rate, round(duration_s * sample_rate)
        self.augment, self.epoch = augment, 0
        self._views = ViewsConfig(count=1, seed=seed, **dict(effects))
        words = [str(word) for word in dataframe["word"]]
        # scikit-learn's encoder truncates a word to the length of its longest known word.
        if strangers := sorted(set(words) - {str(word) for word in label_encoder.classes_}):
            raise ValueError(f"column 'word': the label encoder does not know {', '.join(strangers)}")
        labels = [int(number) for number in label_encoder.transform(words)]
        paths, speakers = map(str, dataframe["file_path"]), map(str, dataframe["speaker"])
        self.rows = list(zip(paths, labels, speakers, strict=True))
        self.skipped: list[tuple[str, str]] = []  # paths, and reasons
        if on_error == "skip":
            self.rows = [row for row in self.rows if self._usable(row[0])]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[Tensor, int, str]:
        """One recording. Raises ValueError naming a file that cannot be used."""
        path, label, speaker = self.rows[index]
        audio = self._load(path)
        if self.augment:
            audio = self.apply_augmentation(audio, index)
        return torch.from_numpy(self.normalize_length(audio)), label, speaker

    def normalize_length(self, audio: Waveform) -> Waveform:
        """The first `num_samples` of (samples,); shorter audio is padded with silence at the end."""
        padded = np.pad(audio, (0, max(0, self.num_samples - len(audio))))
        return np.ascontiguousarray(padded[: self.num_samples])

    def apply_augmentation(self, audio: Waveform, index: int = 0) -> Waveform:
        """The effects for item `index` in this epoch: speed, pitch, noise, each with its probability."""
        return apply(audio, self.sample_rate, draw(self._views, f"row {index}", self.epoch + 1))

    def _load(self, path: str) -> Waveform:
        try:
            return load_waveform(Path(path), self.sample_rate)
        except BadAudio as error:
            detail = str(error) if path in str(error) else f"{path}: {error}"
            raise ValueError(f"{detail}; fix it, or leave it out with on_error='skip'") from None

    def _usable(self, path: str) -> bool:
        try:
            load_waveform(Path(path), self.sample_rate)
        except BadAudio as error:
            self.skipped.append((path, str(error)))
            return False
        return True
