"""The contents of a report: figures from a table of predictions, and the files they are written to."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from sklearn.metrics import confusion_matrix

from stillwave.pipeline.audio.files import write_if_changed
from stillwave.pipeline.config.recipe import PROBABILITY_SCORES, UNKNOWN_NAME
from stillwave.pipeline.evaluate.fonts import lettered
from stillwave.pipeline.evaluate.plots import (
    confusion_figure,
    curves_figure,
    layer_weights_figure,
    losses_figure,
    open_set_figure,
    reliability_figure,
    scores_figure,
)
from stillwave.pipeline.runs.calibrate import DEFAULT_THRESHOLD
from stillwave.pipeline.scores.calibration import calibration_report
from stillwave.pipeline.scores.classification import HEADLINE, report, scores
from stillwave.pipeline.scores.intervals import interval_report, open_set_intervals
from stillwave.pipeline.scores.open_set import accepted, auroc, open_set_report

METRICS = "metrics.json"  # its presence makes a folder a report


def full_report(predictions: pd.DataFrame, classes: Sequence[str], score: str) -> dict[str, Any]:
    """Everything in metrics.json, from the table that `predict_folds` makes.

    Headline scores, intervals and calibration use the rows of known classes; `open_set` is there if the
    table has rows of unknown ones, with intervals of its AUROC.
    """
    known = predictions[predictions["known"]]
    if known.empty:
        raise ValueError("no test rows of known classes; there is nothing to score")
    metrics = report(known, classes)
    metrics["intervals"] = interval_report(known, np.random.default_rng(0))
    metrics["calibration"] = _calibration(known, classes)
    for name, part in known.groupby("language") if "language" in known else ():
        metrics["per_language"][str(name)]["ece"] = _calibration(part, classes)["after"]["ece"]
    if not predictions["known"].all():
        metrics["open_set"] = _open_set(predictions, classes, score)
    return metrics


def _calibration(known: pd.DataFrame, classes: Sequence[str]) -> dict[str, Any]:
    """Before and after temperature scaling; the same twice if no temperature was fitted."""
    labels = known["label"].map({name: i for i, name in enumerate(classes)}).to_numpy()
    before, after = (
        calibration_report(known[[f"{prefix}_{name}" for name in classes]].to_numpy(), labels)
        for prefix in ("raw", "p")
    )
    return {"before": before, "after": after}


def _open_set(predictions: pd.DataFrame, classes: Sequence[str], score: str) -> dict[str, Any]:
    known = predictions["known"].to_numpy()
    correct = (predictions["predicted"] == predictions["label"]).to_numpy()
    names = [name.removeprefix("score_") for name in predictions.columns if name.startswith("score_")]
    each = {}
    for name in names:
        values = predictions[f"score_{name}"].to_numpy()
        each[name] = open_set_report(values, known, correct)
        folds = [_auroc(part, f"score_{name}") for part in _two_sided(predictions, "fold")]
        each[name]["auroc_mean_of_folds"] = float(np.mean(folds)) if folds else None
        thresholds = {}
        if name in PROBABILITY_SCORES:
            thresholds["default"] = np.full(len(predictions), DEFAULT_THRESHOLD)
        if f"tuned_{name}" in predictions:
            thresholds["tuned"] = predictions[f"tuned_{name}"].to_numpy()
        each[name]["thresholds"] = {
            kind: {
                "mean": float(threshold.mean()),
                "known_rejected": float((values > threshold)[known].mean()),
                "unknown_rejected": float((values > threshold)[~known].mean()),
            }
            for kind, threshold in thresholds.items()
        }
    result: dict[str, Any] = {
        "score": score,
        "unknown": sorted(predictions["label"][~known].unique()),
        "scores": each,
        "intervals": open_set_intervals(predictions, np.random.default_rng(0)),
        "per_language": {
            str(part["language"].iloc[0]): _auroc(part, "score")
            for part in _two_sided(predictions, "language")
        },
    }
    if predictions["decision"].notna().all():
        actual = predictions["label"].where(predictions["known"], UNKNOWN_NAME).tolist()
        decided, names = predictions["decision"].tolist(), [*classes, UNKNOWN_NAME]
        matrix = confusion_matrix(actual, decided, labels=names).tolist()
        result["decision"] = scores(actual, decided, names) | {
            "confusion": {"classes": names, "matrix": matrix}
        }
    return result


def _auroc(predictions: pd.DataFrame, score: str) -> float:
    return auroc(predictions[score].to_numpy(), predictions["known"].to_numpy())


def _two_sided(predictions: pd.DataFrame, column: str) -> list[pd.DataFrame]:
    """The groups with rows of both known and unknown classes."""
    if column not in predictions:
        return []
    return [part for _, part in predictions.groupby(column) if part["known"].nunique() == 2]


def write_report(out: Path, predictions: pd.DataFrame, metrics: dict[str, Any], curves: pd.DataFrame) -> None:
    """The files of a report; see `evaluate`. plots/ holds `report_figures`, and nothing else.

    metrics.json is written last: an interrupted report has none.
    """
    plots = out / "plots"
    plots.mkdir(parents=True, exist_ok=True)
    (out / METRICS).unlink(missing_ok=True)
    (out / "summary.json").write_text(json.dumps(summary(metrics), indent=2) + "\n")
    predictions.to_parquet(out / "predictions.parquet", index=False)
    pairs = predictions[predictions["known"]][["label", "predicted"]].rename(columns={"label": "actual"})
    pairs.to_csv(out / "confusion.csv", index=False)
    curves.to_csv(out / "curves.csv", index=False)
    for old in plots.glob("*.png"):
        old.unlink()  # earlier rows may have had unknown classes, or speakers
    with lettered():
        for name, figure in report_figures(predictions, metrics, curves).items():
            figure.savefig(plots / f"{name}.png")
    write_if_changed(out / METRICS, (json.dumps(metrics, indent=2) + "\n").encode())


def report_figures(
    predictions: pd.DataFrame, metrics: dict[str, Any], curves: pd.DataFrame
) -> dict[str, Figure]:
    """The pictures of a report, by name.

    confusion, reliability, curves; losses if several are added up; layer_weights if the head weights the
    layers of a store; per_speaker if rows have speakers; if rows of unknown classes are tested, open_set, and
    decisions if there is a threshold.
    """
    before, after = metrics["calibration"]["before"], metrics["calibration"]["after"]
    shown = {"as trained": before} if before == after else {"before": before, "after": after}
    figures = {
        "confusion": confusion_figure(metrics["confusion"]),
        "reliability": reliability_figure(shown),
        "curves": curves_figure(curves),
    }
    if any(str(name).startswith("loss_") for name in curves):
        figures["losses"] = losses_figure(curves)
    if "layer_weights" in metrics:
        figures["layer_weights"] = layer_weights_figure(metrics["layer_weights"])
    if metrics["per_speaker"]:
        figures["per_speaker"] = scores_figure(metrics["per_speaker"], metrics["uar"])
    if "open_set" in metrics:
        known = predictions["known"].to_numpy()
        shares = {}
        for name in metrics["open_set"]["scores"]:
            curve = accepted(predictions[f"score_{name}"].to_numpy(), known)
            shares[name] = (curve.known, curve.unknown)
        figures["open_set"] = open_set_figure(shares)
        if "decision" in metrics["open_set"]:
            figures["decisions"] = confusion_figure(metrics["open_set"]["decision"]["confusion"])
    return figures


def summary(metrics: dict[str, Any]) -> dict[str, float]:
    """The figures that `dvc metrics` compares."""
    found = {name: metrics[name] for name in (*HEADLINE, "n")}
    found |= {"ece": metrics["calibration"]["after"]["ece"], "nll": metrics["calibration"]["after"]["nll"]}
    if "open_set" in metrics:
        found["auroc"] = metrics["open_set"]["scores"][metrics["open_set"]["score"]]["auroc"]
    return found
