"""Scores of a run: each row predicted by a model that has not seen it, then tables and pictures."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from stillwave.pipeline.config.base import parse_config
from stillwave.pipeline.config.recipe import Recipe
from stillwave.pipeline.corpora.manifest import ManifestError, read_manifest
from stillwave.pipeline.evaluate.report import full_report, write_report
from stillwave.pipeline.runs.calibrate import FILE as CALIBRATION
from stillwave.pipeline.runs.calibrate import Calibration
from stillwave.pipeline.runs.data import Data, Rows
from stillwave.pipeline.runs.head import SEEN, model_digests, read_run
from stillwave.pipeline.runs.live_data import check_as_trained, data_of_run
from stillwave.pipeline.runs.predictions import predict_ensemble, predict_folds


def evaluate(
    run: str | Path,
    out: str | Path | None = None,
    *,
    manifest: str | Path | None = None,
    embeddings: str | Path | None = None,
    backbones: str | Path | None = None,
    ensemble: bool = False,
    device: str = "auto",
) -> dict[str, Any]:
    """Predict every test row of a run out of fold and write the report to `out` (default: `<run>/report`).

    manifest, embeddings: where they are now, if not where the run was trained with them. backbones: a folder
    with the configs of a fine-tuned run's backbones, if they are no longer as they were then.
    ensemble: instead, the rows of another `manifest`, on none of which any fold was trained, by the mean of
        the models of all folds.

    Writes metrics.json (`run`: its folder and `training_digest`, whether an `ensemble` predicted, the
    `manifest`, and `rows_digest`), summary.json (its headline), predictions.parquet, the pictures in plots/
    (see `write_report`), and for `dvc plots` confusion.csv (actual, predicted) and curves.csv (fold, epoch,
    figures). Returns the metrics. Raises ValueError when the run's manifest or frames are no longer what it
    was trained on.
    """
    run = Path(run)
    out = report_folder(run, out, ensemble)
    config = read_run(run)
    recipe: Recipe = parse_config(config["recipe"], Recipe, source=str(run / "config.json"), trusted=True)
    table, embeddings = manifest or config["manifest"], embeddings or config["embeddings"]
    if ensemble and manifest is None:
        raise ValueError("ensemble predicts rows of another corpus; name its manifest and its embeddings")
    trained = config["classes"] if ensemble else None
    try:
        rows_of_table = read_manifest(table)
    except ManifestError as error:
        moved = "" if manifest else f"; {run} was trained with it: if it was moved, name it with --manifest"
        raise ManifestError(f"{error}{moved}") from None
    source = "recordings" if config["live"] else f"frames in {embeddings}"
    data = data_of_run(
        run, rows_of_table, embeddings=embeddings, backbones=backbones, device=device, trained=trained
    )
    if ensemble:
        if data.stores() != config["stores"]:
            raise ValueError(
                f"the {source} were made with other settings than those the run was trained on; extract this "
                "corpus with the same backbone configs"
            )
        rows = _unseen(run, data)
        predictions = predict_ensemble(run, config["folds"], recipe, data, rows)
    else:
        check_as_trained(run, data, f"the manifest {table} or the {source}")
        predictions = predict_folds(run, recipe, data)
    metrics = full_report(predictions, data.classes, recipe.open_set.score)
    metrics |= {"n_missing": len(data.missing), "missing": data.missing, "absent": data.absent()}
    metrics["calibration"]["folds"] = {str(fold): _facts(run, fold) for fold in config["folds"]}
    metrics["run"] = {
        "folder": run.as_posix(),
        "digest": training_digest(run, config),
        "ensemble": ensemble,
        "manifest": str(table),
        "rows": rows_digest(predictions, data.manifest),
    }
    write_report(out, predictions, metrics, curves(run, config["folds"]))
    return metrics


def training_digest(run: Path, config: dict[str, Any]) -> str:
    """sha256 of what a report follows from: recipe, classes, rows, frames, and what every fold has learnt.

    config: the run's. A report that names another digest is of an older training of the run.
    """
    parts = [json.dumps([config[key] for key in ("recipe", "classes", "rows", "stores")], sort_keys=True)]
    parts += model_digests(run, config["folds"]).values()
    for fold in config["folds"]:
        parts.append(hashlib.sha256((run / f"fold_{fold}" / CALIBRATION).read_bytes()).hexdigest())
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def rows_digest(predictions: pd.DataFrame, manifest: pd.DataFrame) -> str:
    """sha256 of the rows predicted: ids, contents, speakers, labels, and which labels are of known classes.

    Whatever the backbones, two evaluations with the same digest are of the same rows.
    """
    content = manifest[[name for name in ("id", "sha256", "text") if name in manifest]]
    table = predictions[[name for name in ("id", "speaker", "label", "known") if name in predictions]]
    rows = table.merge(content, on="id", validate="one_to_one").sort_values("id")
    return hashlib.sha256(rows.to_csv(index=False).encode()).hexdigest()


def report_folder(run: Path, out: str | Path | None, ensemble: bool) -> Path:
    """Where the report goes: `out`, or a folder of the run."""
    return Path(out) if out is not None else run / ("ensemble" if ensemble else "report")


def _facts(run: Path, fold: int) -> dict[str, Any]:
    """What was fitted after training: the temperature, and how OpenMax's tails went, by class."""
    calibration = Calibration.load(run / f"fold_{fold}")
    return {"temperature": calibration.temperature, "openmax": calibration.openmax_status()}


def _unseen(run: Path, data: Data) -> Rows:
    """All rows. Raises ValueError when the run was trained on the content of some of them."""
    seen = set(json.loads((run / SEEN).read_text()))
    ids = [id_ for id_, key in zip(data.manifest["id"], data.recordings(), strict=True) if key in seen]
    if ids:
        raise ValueError(
            f"{len(ids)} of {len(data.manifest)} rows are recordings that the run was trained on, the first "
            f"is {ids[0]!r}; an ensemble of all folds has seen them: leave them out of the manifest"
        )
    return np.arange(len(data.manifest))


def curves(run: Path, folds: list[int]) -> pd.DataFrame:
    """The training curves of all folds: fold, epoch, and a column per figure."""
    parts = []
    for fold in folds:
        file = run / f"fold_{fold}" / "history.csv"
        if not file.exists():
            raise ValueError(f"{file}: no such file; train the run again")
        parts.append(pd.read_csv(file).assign(fold=fold))
    return pd.concat(parts, ignore_index=True)
