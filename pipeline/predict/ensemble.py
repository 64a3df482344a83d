"""The models of a run, warm: items in, the mean of what they say out."""

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
    """One model, of the fold `number`. Of a cached run it reads frames: the encoders are common to all.

    speakers: those that it was trained on, in a personalised run.
    """

    number: int
    model: Model
    calibration: Calibration
    speakers: tuple[str, ...]


class Ensemble:
    """The models of a run's folds, or of one of them, on one device.

    classes: their names. encoders: what turns an item's inputs into frames, by modality. speakers: those that
    some model knows; none where the recipe is not personalised.
    """

    def __init__(
        self,
        run: str | Path | Run,
        fold: int | None = None,
        backbones: str | Path | None = None,
        device: str = "auto",
    ) -> None:
        """Load a run; backbones: a folder of YAMLs, where the run does not say what made its frames.

        Raises ValueError, naming the file, for a run that cannot be used, or a fold that it does not have.
        """
        self.run, self.device = Run.open(run), pick_device(device)
        self.recipe, self.classes, self.live = self.run.recipe, self.run.classes, self.run.live
        if fold is not None:
            self.run.fold_folder(fold)  # which there is, or the error says so
        self.encoders = self.run.encoders(backbones)
        folds = []
        for number in self.run.folds if fold is None else [fold]:
            # A fine-tuned run's weights are put into encoders: each model has its own.
            model = self.run.model(number, deepcopy(self.encoders) if self.live else {})
            model = place(model, self.device)
            speakers = self.run.facts(number).get("speakers") if self.recipe.personalise else None
            folds.append(FoldModel(number, model, self.run.calibration(number), tuple(speakers or ())))
        self.folds = tuple(folds)
        self.speakers = tuple(sorted({name for one in folds for name in one.speakers}))
        for encoder in () if self.live else self.encoders.values():
            encoder.to(self.device).hold_weights(encoder.config.precision)

    def enroll(self, speaker: Enrolled) -> None:
        """From here on every clip is taken for one of this speaker, who is the only one that is known."""
        for fold in self.folds:
            speaker.apply(fold.model, fold.number)
        self.folds = tuple(replace(fold, speakers=()) for fold in self.folds)
        self.speakers = (speaker.name,)

    @torch.inference_mode()
    def __call__(self, items: Sequence[ClipInputs]) -> list[Values]:
        """What the models say of each item, all of them one batch: the mean over the models.

        An item's answer does not depend on its batch (1e-5 in fp32). A frame of a cached run passes the
        stored type, as it did when the heads were trained.
        """
        inputs = self.inputs(items)
        table = mean_of([self._values(fold, inputs, items) for fold in self.folds])
        return [{name: column[row] for name, column in table.items()} for row in range(len(items))]

    def _values(self, fold: FoldModel, inputs: list[Tensor], items: Sequence[ClipInputs]) -> Values:
        if self.recipe.personalise:
            # A fold need not have been trained on every speaker that another knows.
            numbers = {name: number for number, name in enumerate(fold.speakers, UNKNOWN_SPEAKER + 1)}
            known = [numbers.get(item.speaker or "", UNKNOWN_SPEAKER) for item in items]
            inputs = [*inputs, torch.tensor(known, dtype=torch.int64, device=self.device)]
        with autocast(self.device, self.recipe.train.precision):
            outputs = fold.model.outputs(*inputs).each(lambda tensor: tensor.float().cpu())
        return fold.calibration.values(outputs, self.recipe.open_set, ["learned_uncertainty"])

    def inputs(self, items: Sequence[ClipInputs]) -> list[Tensor]:
        """What the models read of a batch, but for the speakers: values and lengths of each modality."""
        return [tensor for name in self.encoders for tensor in self._inputs(name, items)]

    def _inputs(self, name: str, items: Sequence[ClipInputs]) -> tuple[Tensor, Tensor]:
        """Values and lengths of one modality, as the models take them; a length of 0 where it lacks."""
        encoder = self.encoders[name]
        arrays = pad([item.inputs[name] for item in items])
        values, lengths = map(torch.from_numpy, arrays)
        values = to_device(values, self.device)  # the encoder plans by the lengths: they stay here
        if self.live:
            return values, lengths
        frames = encode(encoder, values, lengths)
        stored = getattr(torch, encoder.config.storage_dtype)
        return frames.values.float().to(stored), frames.lengths
