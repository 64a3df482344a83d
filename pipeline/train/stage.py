"""Stage two: train a head on stored frames, one model per fold."""

import json
import warnings
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from stillwave.heads.augment import FrameAugment
from stillwave.pipeline.backbones.device import place
from stillwave.pipeline.config.recipe import Recipe
from stillwave.pipeline.corpora.manifest import manifest_digest
from stillwave.pipeline.corpora.spelling import doubtful
from stillwave.pipeline.runs.calibrate import calibrate
from stillwave.pipeline.runs.data import Data, load_data
from stillwave.pipeline.runs.environment import record
from stillwave.pipeline.runs.features import summarised, valid_frames
from stillwave.pipeline.runs.folder import begin, write_curves
from stillwave.pipeline.runs.folds import Fold, check_groups, folds_of
from stillwave.pipeline.runs.head import build_head
from stillwave.pipeline.runs.model import Model, at_precision
from stillwave.pipeline.runs.run import COMPLETE, FORMAT, SEEN, WEIGHTS, Run, tensors_to_save
from stillwave.pipeline.runs.seen import keys_of
from stillwave.pipeline.runs.speakers import numbered, training_speakers
from stillwave.pipeline.runs.tensors import save_tensors
from stillwave.pipeline.train.distill import Teacher
from stillwave.pipeline.train.fit import build_objective, fit
from stillwave.pipeline.train.optimizer import build_optimizer
from stillwave.pipeline.train.processes import Processes, is_launched
from stillwave.pipeline.train.start import check_start, load_start
from stillwave.version import VERSION

OnEpoch = Callable[[int, int, dict[str, float]], None]  # fold, epoch, figures of the epoch


Teach = Callable[[Data, list[Fold]], Teacher]
Build = Callable[[tuple[int, ...], int], Model]  # from its weights' seed and the number of speakers
ENCODED_AT_ONCE, READ_AT_ONCE = 16, 64  # rows, if only frames are needed
CHECK_FRAMES = 64  # frames of zeros, to try a head before an old run is replaced


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
    progress: OnEpoch | None = None,
) -> Path:
    """Train one model per fold of the manifest (read from `manifest_path`) into `out`; returns `out`.

    start: a run on the same rows and folds, from whose weights each fold starts. teach: makes the
    teacher of a recipe with `losses.distill`, as `partial(Teacher, run, manifest)` of train/distill.py.

    A run that was killed resumes: finished folds stay, and the one in progress continues from its checkpoint.
    A complete run, or one of another recipe or other data, is trained again.
    """
    if recipe.finetune is not None:
        raise ValueError("the recipe trains its backbone (`finetune`): use `stillwave finetune`")
    if is_launched():
        raise ValueError("heads on stored frames train in one process; do not use a launcher")
    data = load_data(recipe, manifest, embeddings, device)
    where = {
        "manifest": str(manifest_path),
        "manifest_sha256": manifest_digest(manifest),
        "embeddings": str(embeddings),
    }
    return train_models(recipe, data, Path(out), where, start=start, teach=teach, progress=progress)


def train_models(
    recipe: Recipe,
    data: Data,
    out: Path,
    where: dict[str, Any],
    *,
    start: str | Path | None = None,
    teach: Teach | None = None,
    progress: OnEpoch | None = None,
    processes: Processes = Processes(),  # noqa: B008 - only this one
) -> Path:
    """Train a model per fold of `data` into the run folder `out`; see `train`.

    Each starts with copies of the encoders of `data`. where: for config.json, the paths `manifest` and
    `embeddings`, and `manifest_sha256`.
    """
    if recipe.classes is None:
        for warning in doubtful(recipe.label, data.manifest[recipe.label].astype(str)):
            warnings.warn(warning, stacklevel=2)
    folds = folds_of(data, recipe)
    check_groups(data, recipe)
    config = {
        "format": FORMAT,
        "recipe": recipe.model_dump(mode="json"),
        "classes": list(data.classes),
        "stores": data.stores(),
        "backbones": data.backbones(),
        "folds": [fold.number for fold in folds],
        "rows": data.digest(recipe.train.group),
        "stillwave": VERSION,
        "live": bool(data.encoders()),
        **where,
    }
    if start is not None:
        config["start"] = check_start(Run.open(start), config)
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
    build = partial(_built, recipe, data)
    _check(recipe, data, folds, build)  # refuse before an old run is replaced
    if not data.encoders():  # whose frames change as they train
        data = replace(data, features=summarised(data.features, build((0,), 1)))
    if processes.main:
        begin(out, config)
        record(out, data.features.device)
        (out / SEEN).write_text(json.dumps(keys_of(data.manifest, data.recordings())))
    for fold in folds:
        processes.wait()
        _train_fold(
            out / f"fold_{fold.number}", recipe, data, fold, build, start, teacher, progress, processes
        )
    processes.wait()
    if processes.main:
        (out / COMPLETE).touch()
    return out


def _train_fold(
    folder: Path,
    recipe: Recipe,
    data: Data,
    fold: Fold,
    build: Build,
    start: str | Path | None,
    teacher: Teacher | None,
    progress: OnEpoch | None,
    processes: Processes,
) -> None:
    checkpoint = folder / "checkpoint.safetensors"
    if (folder / WEIGHTS).exists():
        processes.wait()  # all have seen it, before one deletes or continues
        checkpoint.unlink(missing_ok=True)
        return
    folder.mkdir(parents=True, exist_ok=True)
    seed = (recipe.train.seed, fold.number)
    features, speakers = data.features, None
    if recipe.personalise is not None:
        speakers = training_speakers(data, fold.train)
        features = numbered(data, speakers)
    views = data.views if recipe.views.train == "sample" else None
    model = place(build(seed, len(speakers or ())), data.features.device)
    if start is not None:
        load_start(model, Run.open(start), fold.number)
    elif not checkpoint.exists():
        model.eval()
        at_once = ENCODED_AT_ONCE if model.encoders else READ_AT_ONCE
        rows = fold.train if views is None else np.sort(np.concatenate([views[row] for row in fold.train]))
        for modality, standardise in enumerate(model.standardisers):
            frames = valid_frames(features, rows, at_once, modality=modality, encode=model.summarise)
            standardise.fit(frames)
    history = fit(
        model,
        features,
        data.labels,
        fold.train,
        fold.valid,
        recipe.train,
        losses=recipe.losses,
        augment=None if model.encoders else _frame_augment(recipe, data),
        views=views,
        rates=_rates(model, recipe),
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
        save_tensors(folder / WEIGHTS, tensors_to_save(model), facts)
        checkpoint.unlink(missing_ok=True)


def _built(recipe: Recipe, data: Data, seed: tuple[int, ...], num_speakers: int) -> Model:
    """A model with the recipe's head for the frames of `data`, with weights drawn from `seed`."""
    shapes = {name: part.frame_shape for name, part in data.parts.items()}
    head = build_head(recipe, shapes, len(data.classes), seed, num_speakers)
    if not (encoders := data.encoders()):
        return Model({}, head)
    precision = recipe.train.precision
    own = {name: at_precision(deepcopy(encoder), precision) for name, encoder in encoders.items()}
    return Model(own, head, recipe.finetune, _frame_augment(recipe, data))


def _rates(model: Model, recipe: Recipe) -> dict[str, float]:
    """Factors on the learning rate of the encoders' trained parameters, by name."""
    if recipe.finetune is None:
        return {}
    top = recipe.finetune.learning_rate / recipe.train.learning_rate
    return {name: top * factor for name, factor in model.factors.items()}


def _frame_augment(recipe: Recipe, data: Data) -> FrameAugment | None:
    """The augmentation of the first modality's frames; none for a fusion head on text only."""
    if recipe.augment is None or next(iter(data.parts)) == "text":
        return None
    return FrameAugment(**recipe.augment.options())


def _check(recipe: Recipe, data: Data, folds: list[Fold], build: Build) -> None:
    """Raise ValueError for what training, or the evaluation after it, would refuse."""
    model = build((0,), 1)
    build_optimizer(model, recipe.train, _rates(model, recipe))
    _check_losses(model, recipe, data)
    if recipe.personalise is not None:
        for fold in folds:
            training_speakers(data, fold.train)
    if augment := _frame_augment(recipe, data):
        shape = next(iter(data.parts.values())).frame_shape
        augment(torch.zeros(1, 2, *shape), torch.tensor([2]), torch.Generator())
    if bare := [fold.number for fold in folds if not len(fold.valid)]:
        remedy = f"folds {bare} have none: set train.valid_fraction, or a `valid` split"
        if recipe.train.early_stopping:
            raise ValueError(f"train.early_stopping needs validation rows; {remedy}")
        if recipe.open_set.threshold == "tuned":
            raise ValueError(f"open_set.threshold: tuned needs validation rows; {remedy}")


@torch.no_grad()
def _check_losses(model: Model, recipe: Recipe, data: Data) -> None:
    """Raise ValueError if the head, tried on frames of zeros, lacks losses that the recipe uses."""
    labels = torch.arange(len(data.classes))
    lengths = torch.full_like(labels, CHECK_FRAMES)
    inputs: list[Tensor] = []
    for part in data.parts.values():
        inputs += [torch.zeros(len(labels), CHECK_FRAMES, *part.frame_shape), lengths]
    if recipe.personalise is not None:
        inputs.append(torch.zeros_like(labels))
    outputs = model.head.eval().outputs(*inputs)
    objective = build_objective(labels.numpy(), len(labels), recipe.train, recipe.losses)
    objective(model, outputs, labels, torch.zeros_like(outputs.logits))
