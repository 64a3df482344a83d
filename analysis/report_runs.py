"""The runs that a report shows: where each one's evaluation is, and what its files say."""

import json
import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from stillwave.pipeline.evaluate.report import METRICS
from stillwave.pipeline.evaluate.stage import curves
from stillwave.pipeline.runs.environment import read as read_environments
from stillwave.pipeline.runs.run import CONFIG, WEIGHTS, Run
from stillwave.pipeline.runs.tensors import load_shapes


@dataclass(frozen=True)
class Shown:
    """A run and its evaluation, read.

    report: the folder of the evaluation. curves: fold, epoch (from 0), figures. sizes: of each fold, the
    numbers stored of its model, by the name of the part they are in. environments: see
    pipeline/runs/environment.py.
    """

    name: str
    run: Path
    report: Path
    config: dict[str, Any]
    metrics: dict[str, Any]
    predictions: pd.DataFrame
    curves: pd.DataFrame
    sizes: list[dict[str, int]]
    environments: list[dict[str, Any]]


def read_shown(paths: Sequence[Path], reports: Path) -> list[Shown]:
    """Every run with its evaluation.

    A path is an evaluation, which names its run, or a run, whose evaluation lies in `<reports>/<name of the
    run>` or in `report` in its folder or beside it; or it is the folder of both that `stillwave run` made.
    One by an ensemble, on rows of another corpus, is shown where it is named itself. Raises ValueError when a
    path is neither, or a run has no evaluation, or one of an older training.
    """
    runs, folders = [], []
    for path in paths:
        run, folder = _located(path, reports)
        if folder in folders:
            raise ValueError(f"{path}: the evaluation {folder} is named twice; name it once")
        runs.append(run)
        folders.append(folder)
    return [
        _read(run, folder, name)
        for run, folder, name in zip(runs, folders, _names(runs, folders), strict=True)
    ]


def _located(path: Path, reports: Path) -> tuple[Path, Path]:
    """The run and the evaluation that a path stands for."""
    if path.is_file():
        raise ValueError(f"{path} is a file; name the folder it lies in, {path.parent}")
    if not path.is_dir():
        raise ValueError(f"{path}: no such folder; name runs, or folders that `stillwave evaluate` wrote")
    if (path / METRICS).exists() and not (path / CONFIG).exists():
        run = Path(_told(path)["folder"])
        if not (run / CONFIG).exists():
            raise ValueError(
                f"{path} is an evaluation of {run}, which is not here: if the run was moved, name the run "
                f"itself, with --reports {path.parent}; if there is none any more, delete {path}"
            )
        return run, _evaluation(run, [path], ensembles=True)
    run = path / "run" if not (path / CONFIG).exists() and (path / "run" / CONFIG).exists() else path
    return run, _evaluation(run, [reports / run.name, run / "report", run.parent / "report"])


def _evaluation(run: Path, places: Sequence[Path], ensembles: bool = False) -> Path:
    """The one of `places` where the run's evaluation is, of its present training."""
    digest = Run.open(run).training_digest()
    there = [place for place in places if (place / METRICS).exists()]
    own = [place for place in there if ensembles or not _told(place)["ensemble"]]
    for place in own:
        if _told(place)["digest"] == digest:
            return place
    if own:
        raise ValueError(
            f"{run}: the evaluation in {_listed(own)} is of another training of it; run `stillwave evaluate "
            f"--run {run} --out {own[0]}`"
        )
    if there:
        raise ValueError(
            f"{run}: the evaluation in {_listed(there)} is by the ensemble of its models, on "
            f"{_told(there[0])['manifest']}; name {there[0]} itself to show that, or run `stillwave evaluate "
            f"--run {run}`"
        )
    raise ValueError(
        f"{run}: no evaluation, looked for in {', '.join(map(str, places))}; run `stillwave evaluate --run "
        f"{run}`, or name the folder of evaluations with --reports"
    )


def _listed(places: Sequence[Path]) -> str:
    return " and ".join(map(str, places))


def _told(folder: Path) -> dict[str, Any]:
    """What an evaluation says of its run: `folder`, `digest`, `ensemble`, `manifest`, `rows`."""
    told = _metrics(folder).get("run")
    if not isinstance(told, dict) or not {"folder", "digest", "ensemble", "manifest", "rows"} <= told.keys():
        raise ValueError(f"{folder}: does not say of which run it is; run `stillwave evaluate` again")
    return told


def _metrics(folder: Path) -> dict[str, Any]:
    file = folder / METRICS
    try:
        metrics: dict[str, Any] = json.loads(file.read_text())
    except ValueError as error:
        raise ValueError(f"{file}: not JSON ({error}); run `stillwave evaluate` again") from None
    return metrics


def _names(runs: list[Path], folders: list[Path]) -> list[str]:
    """The last part of each run's path, of `.../first/run` the one before.

    Whole paths where two are alike, and those of the evaluations where two are of one run.
    """
    whole = [run.resolve() for run in runs]
    names = [path.parent.name if path.name == "run" else path.name for path in whole]
    return [
        str(folder) if whole.count(path) > 1 else str(run) if names.count(name) > 1 else name
        for run, folder, path, name in zip(runs, folders, whole, names, strict=True)
    ]


def _read(run: Path, folder: Path, name: str) -> Shown:
    opened = Run.open(run)
    return Shown(
        name=name,
        run=run,
        report=folder,
        config=dict(opened.config),
        metrics=_metrics(folder),
        predictions=pd.read_parquet(folder / "predictions.parquet"),
        curves=curves(opened),
        sizes=[_sizes(opened.fold_folder(fold) / WEIGHTS) for fold in opened.folds],
        environments=read_environments(run),
    )


def _sizes(weights: Path) -> dict[str, int]:
    """How many numbers each part of a model has, most of all first."""
    parts: dict[str, int] = defaultdict(int)
    for name, shape in load_shapes(weights).items():
        parts[name.partition(".")[0]] += math.prod(shape)
    return dict(sorted(parts.items(), key=lambda part: -part[1]))
