"""Scores of a classifier, from labels and predictions.

Conventions: labels and predictions are class names; probabilities are (rows, classes) in the order of
`classes`. UAR is the unweighted mean of the recalls of the classes that occur in the labels.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

HEADLINE = ("accuracy", "uar", "weighted_f1", "macro_f1")


def scores(labels: Sequence[str], predicted: Sequence[str], classes: Sequence[str]) -> dict[str, float]:
    """The HEADLINE scores. Classes without rows are left out of the means."""
    from sklearn.metrics import f1_score  # here: its import takes a second, and training may not score

    if len(labels) == 0:
        raise ValueError("no rows to score")
    actual, guess = np.asarray(labels), np.asarray(predicted)
    present = [name for name in classes if (actual == name).any()]
    recalls = [float((guess[actual == name] == name).mean()) for name in present]
    return {
        "accuracy": float((actual == guess).mean()),
        "uar": float(np.mean(recalls)),
        "weighted_f1": float(f1_score(actual, guess, labels=present, average="weighted", zero_division=0)),
        "macro_f1": float(f1_score(actual, guess, labels=present, average="macro", zero_division=0)),
    }


def report(predictions: pd.DataFrame, classes: Sequence[str]) -> dict[str, Any]:
    """Everything in metrics.json, from a table with `label`, `predicted`, `fold`, `speaker`, `language`.

    Headline scores are over all rows pooled; `folds` has their mean and deviation over folds.
    """
    from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

    labels, guesses = predictions["label"].tolist(), predictions["predicted"].tolist()
    each = [_of(part, classes) | {"fold": int(str(fold))} for fold, part in predictions.groupby("fold")]
    precision, recall, f1, support = precision_recall_fscore_support(
        labels, guesses, labels=list(classes), zero_division=0
    )
    per_class = {
        name: {"precision": float(p), "recall": float(r), "f1": float(f), "n": int(n)}
        for name, p, r, f, n in zip(classes, precision, recall, f1, support, strict=True)
    }
    return {
        **_of(predictions, classes),
        "folds": {
            "mean": {name: float(np.mean([fold[name] for fold in each])) for name in HEADLINE},
            "std": {name: float(np.std([fold[name] for fold in each])) for name in HEADLINE},
            "each": each,
        },
        "per_class": per_class,
        "per_speaker": _by(predictions, "speaker", classes),
        "per_language": _by(predictions, "language", classes),
        "confusion": {
            "classes": list(classes),
            "matrix": confusion_matrix(labels, guesses, labels=list(classes)).tolist(),
        },
    }


def _of(part: pd.DataFrame, classes: Sequence[str]) -> dict[str, Any]:
    return scores(part["label"].tolist(), part["predicted"].tolist(), classes) | {"n": len(part)}


def _by(predictions: pd.DataFrame, column: str, classes: Sequence[str]) -> dict[str, Any]:
    if column not in predictions or predictions[column].isna().all():
        return {}
    return {str(name): _of(part, classes) for name, part in predictions.groupby(column)}


def argmax_names(probabilities: NDArray[Any], classes: Sequence[str]) -> list[str]:
    """The most probable class of each row."""
    return [classes[i] for i in probabilities.argmax(axis=1)]
