"""Calibration figures by hand, and against torchmetrics and scikit-learn."""

import json

import numpy as np
import pytest
from sklearn.metrics import brier_score_loss, log_loss

from stillwave.pipeline.scores.calibration import brier, calibration_report, ece, nll, reliability

# confidences 0.9 (right), 0.8 (wrong), 0.6 (right), 0.5 (right: the first of a tie)
PROBABILITIES = np.array([[0.9, 0.1], [0.8, 0.2], [0.4, 0.6], [0.5, 0.5]])
LABELS = np.array([0, 1, 1, 0])


def drawn(rows: int = 2000, classes: int = 5) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.dirichlet(np.full(classes, 0.5), size=rows), rng.integers(classes, size=rows)


def test_reliability_and_ece_by_hand() -> None:
    low, high = reliability(PROBABILITIES, LABELS, bins=2)
    assert low == {"low": 0.0, "high": 0.5, "n": 1, "confidence": 0.5, "accuracy": 1.0}  # (low, high]
    assert high["n"] == 3
    assert high["confidence"] == pytest.approx((0.9 + 0.8 + 0.6) / 3)
    assert high["accuracy"] == pytest.approx(2 / 3)
    expected = 1 / 4 * abs(1 - 0.5) + 3 / 4 * abs(2 / 3 - 2.3 / 3)
    assert ece(PROBABILITIES, LABELS, bins=2) == pytest.approx(expected)


def test_confidences_on_an_edge_belong_to_the_bin_below() -> None:
    for bins in (10, 15, 20):
        for number in range(bins // 2 + 1, bins + 1):
            edge = number / bins
            table = reliability(np.array([[edge, 1 - edge]]), np.array([0]), bins)
            assert [part["n"] for part in table].index(1) == number - 1


def test_nll_and_brier_by_hand() -> None:
    assert nll(PROBABILITIES, LABELS) == pytest.approx(-np.log([0.9, 0.2, 0.6, 0.5]).mean())
    expected = np.mean([2 * 0.1**2, 2 * 0.8**2, 2 * 0.4**2, 2 * 0.5**2])
    assert brier(PROBABILITIES, LABELS) == pytest.approx(expected)


def test_the_ends_of_each_figure() -> None:
    sure = np.eye(3)
    right, wrong = np.arange(3), np.array([1, 2, 0])
    assert (ece(sure, right), nll(sure, right), brier(sure, right)) == (0, 0, 0)
    assert (ece(sure, wrong), brier(sure, wrong)) == (1, 2)
    assert nll(sure, wrong) == pytest.approx(36.04, abs=0.01)  # large, but finite
    uniform = np.full((3, 3), 1 / 3)
    assert ece(uniform, right) == pytest.approx(0)  # a third is right: the first class of each tie
    assert nll(uniform, right) == pytest.approx(np.log(3))


def test_equal_scikit_learn() -> None:
    probabilities, labels = drawn()
    assert nll(probabilities, labels) == pytest.approx(log_loss(labels, probabilities, labels=range(5)))
    reference = brier_score_loss(labels, probabilities, labels=range(5), scale_by_half=False)
    assert brier(probabilities, labels) == pytest.approx(reference)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
@pytest.mark.parametrize("bins", [1, 7, 15])
def test_ece_equals_torchmetrics(bins: int) -> None:
    torch = pytest.importorskip("torch")
    classification = pytest.importorskip("torchmetrics.functional.classification")
    probabilities, labels = drawn()
    reference = classification.multiclass_calibration_error(
        torch.from_numpy(probabilities), torch.from_numpy(labels), num_classes=5, n_bins=bins, norm="l1"
    )
    assert ece(probabilities, labels, bins) == pytest.approx(float(reference), abs=1e-6)


def test_the_report_is_json_and_its_table_has_every_row() -> None:
    probabilities, labels = drawn(100)
    report = json.loads(json.dumps(calibration_report(probabilities, labels)))
    assert len(report["reliability"]) == 15
    assert sum(part["n"] for part in report["reliability"]) == report["n"] == 100
    assert report["reliability"][0]["accuracy"] is None  # of 5 classes the largest is above 1/15
    gaps = [
        part["n"] * abs(part["accuracy"] - part["confidence"]) for part in report["reliability"] if part["n"]
    ]
    assert report["ece"] == pytest.approx(sum(gaps) / 100)


def test_single_precision_is_good_enough() -> None:
    probabilities, labels = drawn()
    assert ece(probabilities.astype(np.float32), labels) == pytest.approx(
        ece(probabilities, labels), abs=1e-5
    )


def test_errors_name_what_is_wrong() -> None:
    with pytest.raises(ValueError, match=r"with sum 3; give softmax's output"):
        nll(np.array([[1.0, 0.0], [1.0, 2.0]]), np.array([0, 1]))
    with pytest.raises(ValueError, match="1 rows are not probabilities, the first is row 0"):
        brier(np.array([[np.nan, 1.0]]), np.array([0]))
    with pytest.raises(ValueError, match=r"labels span 0\.\.2; they must be in 0\.\.1"):
        ece(PROBABILITIES, np.array([0, 1, 2, 0]))
    with pytest.raises(ValueError, match="at least one row"):
        brier(np.empty((0, 2)), np.empty(0, dtype=int))
    with pytest.raises(ValueError, match="bins is 0"):
        ece(PROBABILITIES, LABELS, bins=0)
