"""Stage two: train a head on stored frames, one model per fold, from one cache."""

import json
import warnings
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from cache.folders import discard
from heads.augment import FrameAugment
from pipeline.calibrate import calibrate
from pipeline.checkpoint import save_tensors
from pipeline.config.recipe import Recipe
from pipeline.data import Data, load_data
from pipeline.features import valid_frames
from pipeline.fit import fit
from pipeline.folds import Fold, folds_of
from pipeline.head import FORMAT, AnyHead, build_head
from pipeline.optimizer import build_optimizer

SEEN = "seen.json"  # what the run's rows are keyed by: an ensemble of its folds must not be given them again
PARTIAL = "config.partial"

Progress = Callable[[int, int, dict[str, float]], None]  # fold, epoch, figures of the epoch


def train(
    recipe: Recipe,
    manifest: pd.DataFrame,
    embeddings: str | Path,
    out: str | Path,
    *,
    manifest_path: str | Path,
    device: str = "auto",
    progress: Progress | None = None,
) -> Path:
    """Train one model per fold of the manifest (read from `manifest_path`) into `out`; returns `out`.

    A run that was killed goes on: folds that are done stay, the one in progress continues from its
    checkpoint. A complete run, or one of another recipe or other data, is made anew.
    """
    out = Path(out)
    data = load_data(recipe, manifest, embeddings, device)
    folds = folds_of(data, recipe)
    config = {
        "format": FORMAT,
        "recipe": recipe.model_dump(mode="json"),
        "classes": list(data.classes),
        "manifest": str(manifest_path),
        "embeddings": str(embeddings),
        "stores": data.stores(),
        "folds": [fold.number for fold in folds],
        "rows": data.digest(recipe.train.group),
        "stillwave": version("stillwave"),
    }
    _check(recipe, data, folds)  # what is refused must cost no old run
    _start(out, config)
    (out / SEEN).write_text(json.dumps(sorted(set(data.recordings()))))
    for fold in folds:
        _train_fold(out / f"fold_{fold.number}", recipe, data, fold, progress)
    (out / "complete").touch()
    return out


def _train_fold(folder: Path, recipe: Recipe, data: Data, fold: Fold, progress: Progress | None) -> None:
    checkpoint = folder / "checkpoint.safetensors"
    if (folder / "model.safetensors").exists():
        checkpoint.unlink(missing_ok=True)
        return
    folder.mkdir(parents=True, exist_ok=True)
    seed = (recipe.train.seed, fold.number)
    head = _head(recipe, data, seed).to(data.features.device)
    for standardise, part in zip(head.standardisers, data.parts.values(), strict=True):
        standardise.fit(valid_frames(part, fold.train))
    history = fit(
        head,
        data.features,
        data.labels,
        fold.train,
        fold.valid,
        recipe.train,
        losses=recipe.losses,
        augment=_augment(recipe, data),
        views=data.views if recipe.views.train == "sample" else None,
        seed=seed,
        checkpoint=checkpoint,
        log=None if progress is None else partial(progress, fold.number),
    )
    _write_curves(folder, history)
    calibrate(head, data.features, data.labels, fold.train, fold.valid, recipe).save(folder)
    save_tensors(folder / "model.safetensors", head.state_dict(), {"classes": list(data.classes)})
    checkpoint.unlink(missing_ok=True)


def _check(recipe: Recipe, data: Data, folds: list[Fold]) -> None:
    """Raise ValueError for what training, or evaluating after it, would refuse."""
    build_optimizer(_head(recipe, data, (0,)), recipe.train)
    if augment := _augment(recipe, data):
        values, lengths, *_ = data.features.batch(folds[0].train[:1])
        augment(values.float(), lengths.clamp(min=1), torch.Generator())
    if bare := [fold.number for fold in folds if not len(fold.valid)]:
        remedy = f"folds {bare} have none: set train.valid_fraction, or a `valid` split"
        if recipe.train.early_stopping:
            raise ValueError(f"train.early_stopping needs validation rows; {remedy}")
        if recipe.open_set.threshold == "tuned":
            raise ValueError(f"open_set.threshold: tuned needs validation rows; {remedy}")


def _head(recipe: Recipe, data: Data, seed: tuple[int, ...]) -> AnyHead:
    shapes = {name: part.frame_shape for name, part in data.parts.items()}
    return build_head(recipe, shapes, len(data.classes), seed)


def _augment(recipe: Recipe, data: Data) -> FrameAugment | None:
    """Of the first modality's frames; a fusion head that is given text alone has none to change."""
    if recipe.augment is None or next(iter(data.parts)) == "text":
        return None
    return FrameAugment(**recipe.augment.model_dump())


def _write_curves(folder: Path, history: list[dict[str, float]]) -> None:
    """The training curves, as history.csv and in dvclive's format, which the DVC views show."""
    table = pd.DataFrame(history).rename_axis("epoch").reset_index()
    table.to_csv(folder / "history.csv", index=False)
    from dvclive import Live
    from scmrepo.exceptions import SCMError

    try:
        with Live(dir=str(folder / "live"), report=None, save_dvc_exp=False, dvcyaml=None) as live:
            for figures in history:
                for name, value in figures.items():
                    live.log_metric(name, value)
                live.next_step()
    except SCMError as error:  # dvclive 3.49 stops at a Git repository without a commit
        warnings.warn(f"no dvclive log in {folder}: {error}; `git commit` first to have one", stacklevel=2)


def _is_run(file: Path) -> bool:
    """True for a config.json of ours: nobody else's folder is ever replaced."""
    try:
        return bool({"recipe", "rows", "stillwave"} <= json.loads(file.read_text()).keys())
    except (OSError, ValueError, AttributeError):
        return False


def _start(out: Path, config: dict[str, Any]) -> None:
    """Leave a run folder of this config: the interrupted one, or an empty one."""
    text = json.dumps(config, indent=1, sort_keys=True)
    file = out / "config.json"
    if file.exists() and file.read_text() == text and not (out / "complete").exists():
        return
    if out.exists():
        ours = {PARTIAL}  # of a run that was killed before it began
        if {path.name for path in out.iterdir()} - ours and not _is_run(file):
            raise ValueError(f"{out}: the folder is not empty and holds no run; give another --out")
        discard(out)
    out.mkdir(parents=True)
    temporary = out / PARTIAL
    temporary.write_text(text)
    temporary.replace(file)
