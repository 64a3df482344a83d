"""A trained run as the teacher of another: its models' predictions for the rows that they were trained on."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from stillwave.pipeline.runs.data import Data, check_as_trained, data_of_run
from stillwave.pipeline.runs.features import RowNumbers
from stillwave.pipeline.runs.folds import Fold, folds_of
from stillwave.pipeline.runs.predictions import fold_values
from stillwave.pipeline.runs.run import Run


class Teacher:
    """A run whose models teach those of a new run, fold by fold.

    The model of a fold teaches the fold's training rows only. It need not read the same backbones or
    modalities, but must not have been trained on rows that validate or test the student:
    what it learned from them would reach the student, and the scores would be too good.
    """

    def __init__(
        self,
        run: str | Path | Run,
        manifest: pd.DataFrame,
        data: Data,
        folds: list[Fold],
        device: str = "auto",
    ) -> None:
        """data, folds: the student's, of `manifest`; `train` supplies these, and the caller the earlier
        arguments.

        Raises ValueError if the run cannot teach them.
        """
        self.run = Run.open(run)
        if self.run.classes != data.classes:
            raise ValueError(
                f"{run}: it was trained on the classes {', '.join(self.run.classes)}, so it cannot teach "
                f"{', '.join(data.classes)}: train one of the two again"
            )
        own = data_of_run(self.run, manifest, device=device)
        check_as_trained(self.run, own)
        self.data, self.student = own, data
        numbers = {id_: row for row, id_ in enumerate(own.manifest["id"])}
        self.row_of = np.array([numbers.get(id_, -1) for id_ in data.manifest["id"]], dtype=np.int64)
        self._check_folds(folds)

    def _check_folds(self, folds: list[Fold]) -> None:
        theirs = {fold.number: fold for fold in folds_of(self.data, self.run.recipe)}
        for fold in folds:
            other = theirs.get(fold.number)
            if other is None or (self.row_of[fold.train] < 0).any():
                raise ValueError(
                    f"{self.run}: it has no model or no frames for training rows of fold {fold.number}; a "
                    "teacher must be trained on the same rows and folds"
                )
            self.run.facts(fold.number)  # refuse a missing model before an old run is replaced
            tested = np.isin(self.row_of[fold.test], [*other.train, *other.valid])
            if tested.any() or np.isin(self.row_of[fold.valid], other.train).any():
                raise ValueError(
                    f"{self.run}: its model of fold {fold.number} was trained on rows that the student is "
                    "validated or tested on, and would leak them; train both with the same manifest, "
                    "train.valid_fraction, train.group and train.seed"
                )

    def logits(self, fold: Fold) -> NDArray[np.float32]:
        """(rows of the student's features, classes), up to a constant per row, for the fold's training rows.

        Views get those of their recording; all other rows are NaN, so that none is taught by mistake.
        """
        logits = np.full((len(self.student.labels), len(self.student.classes)), np.nan, dtype=np.float32)
        said = self._said(fold.number, self.row_of[fold.train])
        for row, values in zip(fold.train.tolist(), said, strict=True):
            logits[self.student.views[row]] = values
        return logits

    def _said(self, fold: int, rows: RowNumbers) -> NDArray[np.float64]:
        probabilities = fold_values(self.run, fold, self.data, rows)["raw"]
        return np.log(np.maximum(probabilities, np.finfo(np.float32).tiny))

    def facts(self) -> dict[str, Any]:
        """The identity of the run, JSON-ready: another teacher makes another run."""
        return {"run": str(self.run), "sha256": self.run.digests()}
