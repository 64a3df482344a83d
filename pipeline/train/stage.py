"""Stage two: train a head on stored frames, one model per fold, from one cache."""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from stillwave.heads.augment import FrameAugment
from stillwave.pipeline.backbones.device import place
from stillwave.pipeline.config.recipe import Recipe
from stillwave.pipeline.runs.calibrate import calibrate
from stillwave.pipeline.runs.data import Data, Rows, load_data
from stillwave.pipeline.runs.environment import record
from stillwave.pipeline.runs.features import Features, valid_frames
from stillwave.pipeline.runs.folder import begin, write_curves
from stillwave.pipeline.runs.folds import Fold, folds_of
from stillwave.pipeline.runs.head import FORMAT, SEEN, build_head
from stillwave.pipeline.runs.speakers import numbered, training_speakers
from stillwave.pipeline.runs.tensors import save_tensors, state_of
from stillwave.pipeline.train.fit import fit
from stillwave.pipeline.train.optimizer import build_optimizer
from stillwave.pipeline.train.processes import Processes, is_launched
from stillwave.pipeline.train.start import check_start, load_start
from stillwave.version import VERSION

Progress = Callable[[int, int, dict[str, float]], None]  # fold, epoch, figures of the epoch


class Teacher(Protocol):
    """What teaches the models of a run: see pipeline/train/distill.py."""

    def logits(self, fold: Fold) -> NDArray[np.float32]:
        """(rows of the student's features, classes), NaN but for the fold's training rows."""
        ...

    def facts(self) -> dict[str, Any]:
        """Which teacher it is, JSON-ready."""
        ...


Teach = Callable[[Data, list[Fold]], Teacher]


@dataclass(frozen=True)
class Kind:
    """How the models of a run are made: heads on stored frames here, whole models in `finetune`.

    build: a model from the seed of its weights and the number of speakers.
    frames: of each modality in turn, its number and all valid frames of some rows, a batch at a time.
    rates: factors on the learning rate, by the names of parameters.
    augment: of what the features give, while training.
    """

    build: Callable[[tuple[int, ...], int], Any]
    frames: Callable[[Any, Features, Rows, int], Iterable[Tensor]]
    rates: Callable[[Any], dict[str, float]]
    augment: FrameAugment | None


def train(
    recipe: Recipe,
    manifest: pd.DataFrame,
    embeddings: str | Path,
    out: str | Path,
    *,
    manifest_path: str | Path,
    start: str | Path | None = None,
    teach: Teach | None = None,
    device: str = "auto",
    progress: Progress | None = None,
) -> Path:
    """Train one model per fold of the manifest (read from `manifest_path`) into `out`; returns `out`.

    start: a run on the same rows and folds, with whose weights each fold begins. teach: makes the
    teacher of a recipe with `losses.distill`, as `partial(Teacher, run, manifest)` of train/distill.py.

    A run that was killed goes on: folds that are done stay, the one in progress continues from its
    checkpoint. A complete run, or one of another recipe or other data, is made anew.
    """
    if recipe.finetune is not None:
        raise ValueError("the recipe's backbone trains, too (`finetune`): use `stillwave finetune`")
    if is_launched():
        raise ValueError("heads on stored frames train in one process; leave the launcher out")
    data = load_data(recipe, manifest, embeddings, device)
    kind = Kind(
        build=partial(head_of, recipe, data),
        frames=lambda head, features, rows, number: valid_frames(list(data.parts.values())[number], rows),
        rates=lambda head: {},
        augment=frame_augment(recipe, data),
    )
    where = {"manifest": str(manifest_path), "embeddings": str(embeddings), "live": False}
    return train_models(recipe, data, Path(out), kind, where, start=start, teach=teach, progress=progress)


def train_models(
    recipe: Recipe,
    data: Data,
    out: Path,
    kind: Kind,
    where: dict[str, Any],
    *,
    start: str | Path | None = None,
    teach: Teach | None = None,
    progress: Progress | None = None,
    processes: Processes = Processes(),  # noqa: B008 - this one alone
) -> Path:
    """Train a model of `kind` per fold of `data` into the run folder `out`; see `train`.

    where: what else config.json says of the run: manifest, embeddings, live.
    """
    folds = folds_of(data, recipe)
    config = {
        "format": FORMAT,
        "recipe": recipe.model_dump(mode="json"),
        "classes": list(data.classes),
        "stores": data.stores(),
        "backbones": data.backbones(),
        "folds": [fold.number for fold in folds],
        "rows": data.digest(recipe.train.group),
        "stillwave": VERSION,
        **where,
    }
    if start is not None:
        config["start"] = check_start(Path(start), config)
    teacher = None if teach is None else teach(data, folds)
    if (teacher is not None) != (recipe.losses.distill > 0):
        raise ValueError(
            f"losses.distill is {recipe.losses.distill}, with {'a' if teacher else 'no'} teacher: a weight "
            "above 0 needs one, `stillwave train --teacher RUN`, and a teacher needs a weight"
        )
    if teacher is not None:
        config["teacher"] = teacher.facts()
    for role in ("start", "teacher"):
        if role in config and Path(config[role]["run"]).resolve() == out.resolve():
            raise ValueError(f"{out}: the {role} of this run, which would replace it; give another --out")
    _check(recipe, data, folds, kind)  # what is refused must cost no old run
    if processes.main:
        begin(out, config)
        record(out, data.features.device)
        (out / SEEN).write_text(json.dumps(sorted(set(data.recordings()))))
    for fold in folds:
        processes.wait()
        _train_fold(
            out / f"fold_{fold.number}", recipe, data, fold, kind, start, teacher, progress, processes
        )
    processes.wait()
    if processes.main:
        (out / "complete").touch()
    return out


def _train_fold(
    folder: Path,
    recipe: Recipe,
    data: Data,
    fold: Fold,
    kind: Kind,
    start: str | Path | None,
    teacher: Teacher | None,
    progress: Progress | None,
    processes: Processes,
) -> None:
    checkpoint = folder / "checkpoint.safetensors"
    if (folder / "model.safetensors").exists():
        processes.wait()  # all have seen it, before one deletes or goes on
        checkpoint.unlink(missing_ok=True)
        return
    folder.mkdir(parents=True, exist_ok=True)
    seed = (recipe.train.seed, fold.number)
    features, speakers = data.features, None
    if recipe.personalise is not None:
        speakers = training_speakers(data, fold.train)
        features = numbered(data, speakers)
    model = place(kind.build(seed, len(speakers or ())), data.features.device)
    if start is not None:
        load_start(model, Path(start), fold.number)
    elif not checkpoint.exists():
        for number, standardise in enumerate(model.standardisers):
            standardise.fit(kind.frames(model, features, fold.train, number))
    history = fit(
        model,
        features,
        data.labels,
        fold.train,
        fold.valid,
        recipe.train,
        losses=recipe.losses,
        augment=kind.augment,
        views=data.views if recipe.views.train == "sample" else None,
        rates=kind.rates(model),
        teacher=None if teacher is None else teacher.logits(fold),
        seed=seed,
        checkpoint=checkpoint,
        log=partial(progress, fold.number) if progress is not None and processes.main else None,
        processes=processes,
    )
    if processes.main:
        write_curves(folder, history)
        calibrate(model, features, data.labels, fold.train, fold.valid, recipe).save(folder)
        facts = {"classes": list(data.classes), "speakers": speakers}
        save_tensors(folder / "model.safetensors", state_of(model), facts)
        checkpoint.unlink(missing_ok=True)


def head_of(recipe: Recipe, data: Data, seed: tuple[int, ...], num_speakers: int) -> Any:
    """The recipe's head for the frames of `data`."""
    shapes = {name: part.frame_shape for name, part in data.parts.items()}
    return build_head(recipe, shapes, len(data.classes), seed, num_speakers)


def frame_augment(recipe: Recipe, data: Data) -> FrameAugment | None:
    """Of the first modality's frames; a fusion head that is given text alone has none to change."""
    if recipe.augment is None or next(iter(data.parts)) == "text":
        return None
    return FrameAugment(**recipe.augment.model_dump())


def _check(recipe: Recipe, data: Data, folds: list[Fold], kind: Kind) -> None:
    """Raise ValueError for what training, or evaluating after it, would refuse."""
    model = kind.build((0,), 1)
    build_optimizer(model, recipe.train, kind.rates(model))
    if recipe.personalise is not None:
        for fold in folds:
            training_speakers(data, fold.train)
    if augment := frame_augment(recipe, data):
        shape = next(iter(data.parts.values())).frame_shape
        augment(torch.zeros(1, 2, *shape), torch.tensor([2]), torch.Generator())
    if bare := [fold.number for fold in folds if not len(fold.valid)]:
        remedy = f"folds {bare} have none: set train.valid_fraction, or a `valid` split"
        if recipe.train.early_stopping:
            raise ValueError(f"train.early_stopping needs validation rows; {remedy}")
        if recipe.open_set.threshold == "tuned":
            raise ValueError(f"open_set.threshold: tuned needs validation rows; {remedy}")
