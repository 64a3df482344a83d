import numpy as np
import pandas as pd
import pytest

from stillwave.pipeline.scores.classification import argmax_names, report, scores

# worked by hand: a: 2 of 3, b: 1 of 2, c: 0 of 1
LABELS = ["a", "a", "a", "b", "b", "c"]
GUESSES = ["a", "a", "b", "b", "c", "a"]


def test_scores_by_hand() -> None:
    result = scores(LABELS, GUESSES, ["a", "b", "c"])
    f1 = {"a": 2 * 2 / (3 + 3), "b": 2 * 1 / (2 + 2), "c": 0.0}
    assert result["accuracy"] == pytest.approx(3 / 6)
    assert result["uar"] == pytest.approx((2 / 3 + 1 / 2 + 0) / 3)
    assert result["macro_f1"] == pytest.approx(sum(f1.values()) / 3)
    assert result["weighted_f1"] == pytest.approx((3 * f1["a"] + 2 * f1["b"] + f1["c"]) / 6)


def test_the_right_answers_score_one_and_absent_classes_do_not_count() -> None:
    assert set(scores(LABELS, LABELS, ["a", "b", "c", "d"]).values()) == {1.0}


def test_no_rows_are_an_error() -> None:
    with pytest.raises(ValueError, match="no rows"):
        scores([], [], ["a"])


def test_the_report_pools_rows_and_has_every_breakdown() -> None:
    table = pd.DataFrame(
        {
            "label": LABELS,
            "predicted": GUESSES,
            "fold": [0, 0, 0, 1, 1, 1],
            "speaker": ["s", "s", "t", "t", "t", "s"],
            "language": [None] * 6,
        }
    )
    result = report(table, ["a", "b", "c"])
    assert result["n"] == 6
    assert result["confusion"]["matrix"] == [[2, 1, 0], [0, 1, 1], [1, 0, 0]]
    assert result["per_class"]["b"] == {"precision": 0.5, "recall": 0.5, "f1": 0.5, "n": 2}
    assert {name: part["n"] for name, part in result["per_speaker"].items()} == {"s": 3, "t": 3}
    assert result["per_speaker"]["s"]["uar"] == pytest.approx((1 + 0) / 2)
    assert result["per_language"] == {}
    assert result["folds"]["mean"]["accuracy"] == pytest.approx((2 / 3 + 1 / 3) / 2)
    assert result["folds"]["std"]["accuracy"] == pytest.approx(1 / 6)


def test_argmax_names() -> None:
    assert argmax_names(np.array([[0.1, 0.9], [0.6, 0.4]]), ["x", "y"]) == ["y", "x"]
