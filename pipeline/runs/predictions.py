"""Tables of predictions: every row is predicted by models that have not seen it."""

from typing import Any

import numpy as np
import pandas as pd

from stillwave.pipeline.backbones.device import place
from stillwave.pipeline.config.recipe import UNKNOWN_NAME, Recipe
from stillwave.pipeline.runs.calibrate import Values, mean_of
from stillwave.pipeline.runs.data import UNKNOWN, Data, RowNumbers
from stillwave.pipeline.runs.folds import folds_of
from stillwave.pipeline.runs.inference import outputs_of
from stillwave.pipeline.runs.run import Run
from stillwave.pipeline.runs.speakers import numbered
from stillwave.pipeline.scores.classification import argmax_names
from stillwave.pipeline.scores.decision import decide


def predict_folds(run: Run, data: Data) -> pd.DataFrame:
    """Out-of-fold predictions, sorted by id.

    id, fold, speaker, language, start, end; label, known (its class was trained); predicted (a known class),
    p_<class> (calibrated if there were validation rows; raw_<class> before that); score_<name>, every
    open-set score, higher is more outlying, and tuned_<name>, its threshold from validation rows; score,
    threshold, the recipe's own; decision, `unknown` above the threshold, else predicted. The last two are
    missing if there is no threshold.
    """
    recipe, parts = run.recipe, []
    for fold in folds_of(data, recipe):
        if len(fold.test):
            values = fold_values(run, fold.number, data, fold.test)
            parts.append(_table(values, data, fold.test, recipe).assign(fold=fold.number))
    return _in_order(pd.concat(parts, ignore_index=True))


def predict_ensemble(run: Run, data: Data, rows: RowNumbers) -> pd.DataFrame:
    """Like `predict_folds`, for rows that no fold was trained on: the mean over the models of all folds."""
    each = [fold_values(run, fold, data, rows) for fold in run.folds]
    return _in_order(_table(mean_of(each), data, rows, run.recipe).assign(fold=-1))


def fold_values(run: Run, fold: int, data: Data, rows: RowNumbers) -> Values:
    """One model's predictions for rows: `Calibration.values`, and `raw`, p before calibration.

    If the recipe tests on views, each value is the mean over the views of a row.
    """
    recipe, calibration = run.recipe, run.calibration(fold)
    speakers = run.facts(fold).get("speakers")
    features = numbered(data, speakers) if speakers else data.features
    model = place(run.model(fold, data.encoders()), features.device)
    views = [data.views[row] if recipe.views.test == "average" else data.views[row][:1] for row in rows]
    outputs = outputs_of(model, features, np.concatenate(views), precision=recipe.train.precision)
    starts = np.cumsum([0, *(len(part) for part in views[:-1])])
    counts = np.array([len(part) for part in views])
    values = calibration.values(outputs, recipe.open_set)
    values["raw"] = calibration.probabilities(outputs, calibrated=False)
    return {
        name: np.add.reduceat(value, starts, axis=0) / counts.reshape(-1, *(1,) * (value.ndim - 1))
        for name, value in values.items()
    }


def _table(values: Values, data: Data, rows: RowNumbers, recipe: Recipe) -> pd.DataFrame:
    part = data.manifest.iloc[rows]
    table = part[
        [name for name in ("id", "speaker", "language", "start", "end") if name in part]
    ].reset_index(drop=True)
    table["label"] = part[recipe.label].to_numpy()
    table["known"] = data.labels[rows] != UNKNOWN
    table["predicted"] = argmax_names(values["p"], data.classes)
    columns: dict[str, Any] = {}
    for prefix in ("p", "raw"):
        columns |= {f"{prefix}_{name}": values[prefix][:, i] for i, name in enumerate(data.classes)}
    columns |= {name: value for name, value in values.items() if value.ndim == 1}
    table = pd.concat([table, pd.DataFrame(columns)], axis=1)
    score, threshold = table["score"].to_numpy(), table["threshold"].to_numpy()
    table["decision"] = decide(table["predicted"].to_numpy(dtype=object), score, threshold, UNKNOWN_NAME)
    return table


def _in_order(table: pd.DataFrame) -> pd.DataFrame:
    first = ["id", "fold"]
    return table[[*first, *table.columns.drop(first)]].sort_values("id", ignore_index=True)
