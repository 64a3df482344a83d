"""The loaded models of a run: items in, the mean of their predictions out."""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from stillwave.cache.batches import pad
from stillwave.heads.personal import UNKNOWN_SPEAKER
from stillwave.pipeline.backbones.device import pick_device, place, to_device
from stillwave.pipeline.predict.enrolled import Enrolled
from stillwave.pipeline.predict.reading import ClipInputs
from stillwave.pipeline.runs.calibrate import Calibration, Values, mean_of
from stillwave.pipeline.runs.inference import autocast
from stillwave.pipeline.runs.model import Model, encode
from stillwave.pipeline.runs.run import Run


@dataclass(frozen=True)
class FoldModel:
    """One model, of the fold `number`. In a cached run it reads frames: the encoders are shared by all.

    speakers: the training speakers, in a personalised run.
    """

    number: int
    model: Model
    calibration: Calibration
    speakers: tuple[str, ...]


class Ensemble:
    """The models of a run's folds, or of one of them, on one device.

    classes: their names. encoders: turn an item's inputs into frames, by part. speakers: those that some
    model knows; none if the recipe is not personalised.
    """

    def __init__(
        self,
        run: str | Path | Run,
        fold: int | None = None,
        backbones: str | Path | None = None,
        device: str = "auto",
    ) -> None:
        """Load a run; backbones: a folder of YAMLs, if the run does not record how its frames were made.

        Raises ValueError, naming the file, for a run that cannot be used, or a fold that it does not have.
        """
        self.run, self.device = Run.open(run), pick_device(device)
        self.recipe, self.classes, self.live = self.run.recipe, self.run.classes, self.run.live
        if fold is not None:
            self.run.fold_folder(fold)  # raises if there is none
        self.encoders = self.run.encoders(backbones)
        folds = []
        for number in self.run.folds if fold is None else [fold]:
            # A fine-tuned run's weights go into encoders, so each model has its own.
            model = self.run.model(number, deepcopy(self.encoders) if self.live else {})
            model = place(model, self.device)
            speakers = self.run.facts(number).get("speakers") if self.recipe.personalise else None
            folds.append(FoldModel(number, model, self.run.calibration(number), tuple(speakers or ())))
        self.folds = tuple(folds)
        self.speakers = tuple(sorted({name for one in folds for name in one.speakers}))
        for encoder in () if self.live else self.encoders.values():
            encoder.to(self.device).hold_weights(encoder.config.precision)

    def enroll(self, speaker: Enrolled) -> None:
        """From now on every clip counts as this speaker's, who is the only one known."""
        for fold in self.folds:
            speaker.apply(fold.model, fold.number)
        self.folds = tuple(replace(fold, speakers=()) for fold in self.folds)
        self.speakers = (speaker.name,)

    @torch.inference_mode()
    def __call__(self, items: Sequence[ClipInputs]) -> list[Values]:
        """The predictions for items, as one batch: the mean over the models.

        An item's prediction does not depend on its batch (1e-5 in fp32). A cached run's frames are rounded to
        the stored type, as they were when the heads were trained.
        """
        inputs = self.inputs(items)
        table = mean_of([self._values(fold, inputs, items) for fold in self.folds])
        return [{name: column[row] for name, column in table.items()} for row in range(len(items))]

    def _values(self, fold: FoldModel, inputs: list[Tensor], items: Sequence[ClipInputs]) -> Values:
        if self.recipe.personalise:
            # A fold may not know every speaker that another knows.
            numbers = {name: number for number, name in enumerate(fold.speakers, UNKNOWN_SPEAKER + 1)}
            known = [numbers.get(item.speaker or "", UNKNOWN_SPEAKER) for item in items]
            inputs = [*inputs, torch.tensor(known, dtype=torch.int64, device=self.device)]
        with autocast(self.device, self.recipe.train.precision):
            outputs = fold.model.outputs(*inputs).each(lambda tensor: tensor.float().cpu())
        return fold.calibration.values(outputs, self.recipe.open_set, ["learned_uncertainty"])

    def inputs(self, items: Sequence[ClipInputs]) -> list[Tensor]:
        """The inputs of the models for a batch, without the speakers: values and lengths of each modality."""
        return [tensor for name in self.encoders for tensor in self._inputs(name, items)]

    def _inputs(self, name: str, items: Sequence[ClipInputs]) -> tuple[Tensor, Tensor]:
        """Values and lengths of one modality, in the models' form; length 0 for an item that lacks it."""
        encoder = self.encoders[name]
        arrays = pad([item.inputs[name] for item in items])
        values, lengths = map(torch.from_numpy, arrays)
        values = to_device(values, self.device)  # the encoder uses the lengths for planning: they stay here
        if self.live:
            return values, lengths
        frames = encode(encoder, values, lengths)
        stored = getattr(torch, encoder.config.storage_dtype)
        return frames.values.float().to(stored), frames.lengths
