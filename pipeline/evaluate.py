"""Scores of a run: each row predicted by the model that has not seen it, then tables and pictures."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import nn

from pipeline.config.base import parse_config
from pipeline.config.recipe import Recipe
from pipeline.data import Data, Rows, folds_of, load_data
from pipeline.fit import predict
from pipeline.manifest import read_manifest
from pipeline.metrics import HEADLINE, argmax_names, report
from pipeline.plots import confusion_figure, scores_figure
from pipeline.train import load_head, read_run


def evaluate(
    run: str | Path,
    out: str | Path | None = None,
    *,
    manifest: str | Path | None = None,
    embeddings: str | Path | None = None,
    device: str = "auto",
) -> dict[str, Any]:
    """Predict every test row of a run out of fold and write the report to `out` (default: `<run>/report`).

    manifest, embeddings: where they are now, if not where the run was trained with them.

    Writes metrics.json, summary.json (its headline), predictions.parquet, confusion.png, per_speaker.png,
    and for `dvc plots` confusion.csv (actual, predicted) and curves.csv (fold, epoch, figures). Returns the
    metrics. Raises ValueError when the run's manifest or frames are no longer what it was trained on.
    """
    run = Path(run)
    out = Path(out) if out is not None else run / "report"
    config = read_run(run)
    recipe: Recipe = parse_config(config["recipe"], Recipe, source=str(run / "config.json"))
    manifest, embeddings = manifest or config["manifest"], embeddings or config["embeddings"]
    data = load_data(recipe, read_manifest(manifest), embeddings, device)
    if data.digest() != config["rows"] or data.features.store.fingerprint != config["frames"]:
        raise ValueError(
            f"{run}: the manifest {manifest} or the frames in {embeddings} have changed since it was "
            "trained; train it again"
        )
    predictions = predict_folds(run, recipe, data)
    metrics = report(predictions, data.classes) | {"n_missing": len(data.missing), "missing": data.missing}
    write_report(out, predictions, metrics)
    curves(run, config["folds"]).to_csv(out / "curves.csv", index=False)
    return metrics


def predict_folds(run: Path, recipe: Recipe, data: Data) -> pd.DataFrame:
    """Out-of-fold predictions: id, fold, speaker, language, label, predicted, p_<class>..."""
    parts = []
    for fold in folds_of(data, recipe):
        if not len(fold.test):
            continue
        head, _ = load_head(run, fold.number)
        head.to(data.features.device)
        probabilities = _probabilities(head, data, fold.test, recipe)
        rows = data.manifest.iloc[fold.test]
        part = rows[[name for name in ("id", "speaker", "language") if name in rows]].copy()
        part.insert(1, "fold", fold.number)
        part["label"] = [data.classes[i] for i in data.labels[fold.test]]
        part["predicted"] = argmax_names(probabilities, data.classes)
        for number, name in enumerate(data.classes):
            part[f"p_{name}"] = probabilities[:, number].astype(np.float64)
        parts.append(part)
    return pd.concat(parts, ignore_index=True).sort_values("id", ignore_index=True)


def _probabilities(head: nn.Module, data: Data, rows: Rows, recipe: Recipe) -> NDArray[np.float32]:
    """(rows, classes): softmax of the clean row's logits, or its mean over all views of the row."""
    views = [data.views[row] if recipe.views.test == "average" else data.views[row][:1] for row in rows]
    logits = predict(head, data.features, np.concatenate(views), precision=recipe.train.precision)
    probabilities = torch.from_numpy(logits).softmax(dim=1).numpy()
    starts = np.cumsum([len(part) for part in views])[:-1]
    return np.stack([part.mean(axis=0) for part in np.split(probabilities, starts)])


def curves(run: Path, folds: list[int]) -> pd.DataFrame:
    """The training curves of all folds: fold, epoch, and a column per figure."""
    parts = [pd.read_csv(run / f"fold_{fold}" / "history.csv").assign(fold=fold) for fold in folds]
    return pd.concat(parts, ignore_index=True)


def write_report(out: Path, predictions: pd.DataFrame, metrics: dict[str, Any]) -> None:
    """The files of a report; see `evaluate`."""
    out.mkdir(parents=True, exist_ok=True)
    (out / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n")
    summary = {name: metrics[name] for name in (*HEADLINE, "n")}
    (out / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
    predictions.to_parquet(out / "predictions.parquet", index=False)
    pairs = predictions[["label", "predicted"]].rename(columns={"label": "actual"})
    pairs.to_csv(out / "confusion.csv", index=False)
    confusion_figure(metrics["confusion"]).savefig(out / "confusion.png")
    if metrics["per_speaker"]:
        scores_figure(metrics["per_speaker"], metrics["uar"]).savefig(out / "per_speaker.png")
