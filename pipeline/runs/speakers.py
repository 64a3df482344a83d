"""Numbers of speakers for personalised heads: 0 is the unknown one."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from stillwave.heads.devices import send
from stillwave.heads.personal import UNKNOWN_SPEAKER
from stillwave.pipeline.runs.data import Data, RowNumbers
from stillwave.pipeline.runs.features import Features


def training_speakers(data: Data, train: RowNumbers) -> list[str]:
    """The speakers of these rows, sorted: number i + 1 is the i-th. Raises ValueError if there are none."""
    names = data.manifest.get("speaker")
    found = sorted(set(names.iloc[train].dropna().astype(str))) if names is not None else []
    if not found:
        raise ValueError(
            "`personalise` needs the speakers of the training rows, but the manifest's column `speaker` has "
            "none; map it in the corpus config, or remove `personalise`"
        )
    return found


def numbered(data: Data, speakers: Sequence[str]) -> Features:
    """The features of `data`, with the number of each row's speaker in `speakers`."""
    numbers = {name: number for number, name in enumerate(speakers, UNKNOWN_SPEAKER + 1)}
    names = data.manifest.get("speaker", pd.Series(None, index=data.manifest.index, dtype=object))
    of_row = [numbers.get(str(name), UNKNOWN_SPEAKER) for name in names]
    every = np.full(len(data.labels), UNKNOWN_SPEAKER, dtype=np.int64)
    for number, rows in zip(of_row, data.views, strict=True):
        every[rows] = number
    return WithSpeakers(data.features, every)


class WithSpeakers:
    """Features followed by the numbers of the speakers, (batch,) int64."""

    def __init__(self, features: Features, numbers: RowNumbers) -> None:
        self.features, self.numbers = features, numbers
        self.lengths, self.device = features.lengths, features.device

    def batch(self, rows: RowNumbers) -> tuple[Tensor, ...]:
        numbers = send(torch.from_numpy(self.numbers[rows]), self.device)
        return (*self.features.batch(rows), numbers)

    def of_epoch(self, epoch: int, seed: tuple[int, ...]) -> "WithSpeakers":
        return WithSpeakers(self.features.of_epoch(epoch, seed), self.numbers)
