"""The runs that a report shows: finding and reading each one's evaluation."""

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
    """A run and its evaluation, as read from files.

    report: the folder of the evaluation. curves: fold, epoch (from 0), figures. sizes: for each fold, the
    numbers stored in its model, by the name of the part they are in. environments: see
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

    A path is an evaluation, which names its run; or a run, whose evaluation is in `<reports>/<name of the
    run>`, or in `report` in its folder or next to it; or the folder of both that `stillwave run` made. An
    evaluation by an ensemble, on another corpus, is shown only if it is named itself. Raises ValueError if a
    path is neither, or a run has no evaluation, or one of another training.
    """
    runs, folders = [], []
    for path in paths:
        run, folder = _located(path, reports)
        if folder in folders:
            raise ValueError(f"{path}: the evaluation {folder} is given twice; give it once")
        runs.append(run)
        folders.append(folder)
    return [
        _read(run, folder, name)
        for run, folder, name in zip(runs, folders, _names(runs, folders), strict=True)
    ]


def _located(path: Path, reports: Path) -> tuple[Path, Path]:
    """The run and the evaluation of a path."""
    if path.is_file():
        raise ValueError(f"{path} is a file; give its folder, {path.parent}")
    if not path.is_dir():
        raise ValueError(f"{path}: no such folder; give runs, or folders that `stillwave evaluate` wrote")
    if (path / METRICS).exists() and not (path / CONFIG).exists():
        run = Path(_told(path)["folder"])
        if not (run / CONFIG).exists():
            raise ValueError(
                f"{path} is an evaluation of {run}, which does not exist: if the run has moved, give the run "
                f"itself, with --reports {path.parent}; if it is gone, delete {path}"
            )
        return run, _evaluation(run, [path], ensembles=True)
    run = path / "run" if not (path / CONFIG).exists() and (path / "run" / CONFIG).exists() else path
    return run, _evaluation(run, [reports / run.name, run / "report", run.parent / "report"])


def _evaluation(run: Path, places: Sequence[Path], ensembles: bool = False) -> Path:
    """The one of `places` that has the evaluation of the run's current training."""
    digest = Run.open(run).training_digest()
    there = [place for place in places if (place / METRICS).exists()]
    own = [place for place in there if ensembles or not _told(place)["ensemble"]]
    for place in own:
        if _told(place)["digest"] == digest:
            return place
    if own:
        raise ValueError(
            f"{run}: the evaluation in {_listed(own)} belongs to another training of the run; run `stillwave "
            f"evaluate --run {run} --out {own[0]}`"
        )
    if there:
        raise ValueError(
            f"{run}: the evaluation in {_listed(there)} is by the ensemble of its models, on "
            f"{_told(there[0])['manifest']}; give {there[0]} itself to show that, or run `stillwave evaluate "
            f"--run {run}`"
        )
    raise ValueError(
        f"{run}: no evaluation, looked for in {', '.join(map(str, places))}; run `stillwave evaluate --run "
        f"{run}`, or give the folder of evaluations with --reports"
    )


def _listed(places: Sequence[Path]) -> str:
    return " and ".join(map(str, places))


def _told(folder: Path) -> dict[str, Any]:
    """The facts of an evaluation about its run: `folder`, `digest`, `ensemble`, `manifest`, `rows`."""
    told = _metrics(folder).get("run")
    if not isinstance(told, dict) or not {"folder", "digest", "ensemble", "manifest", "rows"} <= told.keys():
        raise ValueError(f"{folder}: does not record its run; run `stillwave evaluate` again")
    return told


def _metrics(folder: Path) -> dict[str, Any]:
    file = folder / METRICS
    try:
        metrics: dict[str, Any] = json.loads(file.read_text())
    except ValueError as error:
        raise ValueError(f"{file}: not JSON ({error}); run `stillwave evaluate` again") from None
    return metrics


def _names(runs: list[Path], folders: list[Path]) -> list[str]:
    """The last part of each run's path; for `.../first/run` the one before.

    Whole paths if two are equal, and those of the evaluations if two are of one run.
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
    """How many numbers each part of a model has, largest first."""
    parts: dict[str, int] = defaultdict(int)
    for name, shape in load_shapes(weights).items():
        parts[name.partition(".")[0]] += math.prod(shape)
    return dict(sorted(parts.items(), key=lambda part: -part[1]))
