"""Derived facts about a run, which are in none of its files directly."""

from typing import Any

import pandas as pd

from stillwave.analysis.report_figures import picture
from stillwave.analysis.report_runs import Shown
from stillwave.pipeline.evaluate.report import report_figures


def facts(shown: Shown, anchor: str) -> dict[str, Any]:
    """A run for the templates of report_page/: the fields of `Shown`, and values derived from them.

    anchor: the run's id on the page, with which all ids inside it start. `smallest` and `largest` count the
    numbers in a fold's model, `parts` those in each of its parts, fold by fold.
    """
    figures = report_figures(shown.predictions, shown.metrics, shown.curves)
    totals = [sum(sizes.values()) for sizes in shown.sizes]
    parts = dict.fromkeys(name for sizes in shown.sizes for name in sizes)
    return vars(shown) | {
        "anchor": anchor,
        "pictures": {name: picture(figure, f"{anchor}-{name}") for name, figure in figures.items()},
        "lacking": _lacking(shown),
        "ranked": _ranked(shown.metrics.get("open_set")),
        "trained": _trained(shown),
        "smallest": min(totals),
        "largest": max(totals),
        "each_fold": {scores["fold"]: scores for scores in shown.metrics["folds"]["each"]},
        "folds": [f"fold {fold}" for fold in shown.config["folds"]],
        "parts": {name: [sizes.get(name, 0) for sizes in shown.sizes] for name in parts},
    }


def _lacking(shown: Shown) -> dict[str, int]:
    """How many rows of known classes have no speaker or language, if others have one."""
    known = shown.predictions[shown.predictions["known"]]
    counts = {name: int(known[name].isna().sum()) for name in ("speaker", "language") if name in known}
    return {name: count for name, count in counts.items() if 0 < count < len(known)}


def _ranked(open_set: dict[str, Any] | None) -> dict[str, Any]:
    """The open-set scores: the recipe's own first, then by AUROC."""
    if open_set is None:
        return {}
    own = open_set["score"]
    return dict(sorted(open_set["scores"].items(), key=lambda item: (item[0] != own, -item[1]["auroc"])))


def _trained(shown: Shown) -> list[dict[str, Any]]:
    """How long each fold trained, and the figures of the kept epoch."""
    stopping = shown.config["recipe"]["train"]["early_stopping"]
    trained = []
    for fold in shown.config["folds"]:
        curve = shown.curves[shown.curves["fold"] == fold]
        trained.append(
            {
                "fold": fold,
                "epochs": len(curve),
                "seconds": curve["seconds"].sum(),
                "train_loss": curve["train_loss"].iloc[-1],
                "kept": curve.loc[kept_epoch(curve, stopping and stopping["metric"])].to_dict(),
            }
        )
    return trained


def kept_epoch(curve: pd.DataFrame, metric: str | None) -> Any:
    """The index, in a fold's curve, of the epoch whose weights were kept.

    metric: the one of early stopping, whose first best epoch was kept; None if all epochs were trained, and
    the last one kept. With a moving average of weights, figures are of that average.
    """
    if metric is None or curve[f"valid_{metric}"].isna().all():
        return curve.index[-1]
    values = curve[f"valid_{metric}"]
    return values.idxmin() if metric == "loss" else values.idxmax()
