"""Open-set figures by hand, on ties, and against naive loops."""

import json

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import roc_curve

from stillwave.pipeline.scores.open_set import accepted, aupr, auroc, fpr_at_tpr, open_set_report, oscr

K, U = True, False
# known 1 2 3 4, unknown 3 5: of 8 pairs unknown wins 2 + 4, and ties 1
SCORES = np.array([1.0, 2.0, 3.0, 4.0, 3.0, 5.0])
KNOWN = np.array([K, K, K, K, U, U])
CORRECT = np.array([K, U, K, K, U, U])  # the second known row is classified wrong


def drawn(seed: int, values: int | None = None) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Overlapping scores; of few distinct `values`, where given, hence with many ties."""
    rng = np.random.default_rng(seed)
    known = rng.random(300) < rng.uniform(0.2, 0.8)
    scores = rng.normal(size=300) - known
    return (scores if values is None else np.round(scores * values / 4)), known


def naive_oscr(scores: NDArray[np.float64], known: NDArray[np.bool_], correct: NDArray[np.bool_]) -> float:
    """Every correctly classified known row against every unknown one."""
    wins = 0.0
    for good in scores[known & correct]:
        for unknown in scores[~known]:
            wins += 1.0 if good < unknown else 0.5 if good == unknown else 0.0
    return wins / (known.sum() * (~known).sum())


def naive_auroc(scores: NDArray[np.float64], known: NDArray[np.bool_]) -> float:
    """Every known row against every unknown one."""
    return naive_oscr(scores, known, known)


def naive_aupr(scores: NDArray[np.float64], known: NDArray[np.bool_]) -> float:
    """At every distinct score from the top: the step in recall times the precision."""
    total, recall = 0.0, 0.0
    for threshold in sorted(set(scores.tolist()), reverse=True):
        rejected = scores >= threshold
        found = (rejected & ~known).sum()
        total += (found / (~known).sum() - recall) * found / rejected.sum()
        recall = found / (~known).sum()
    return float(total)


def test_by_hand() -> None:
    assert auroc(SCORES, KNOWN) == pytest.approx((2 + 0.5 + 4) / 8)
    # 4 of 4 known are accepted up to 4, and with them the unknown row at 3
    assert fpr_at_tpr(SCORES, KNOWN) == 1 / 2
    # half of the known are accepted up to 2; no unknown is
    assert fpr_at_tpr(SCORES, KNOWN, 0.5) == 0
    assert fpr_at_tpr(SCORES, KNOWN, 0.75) == 1 / 2  # the tie at 3 comes in as one
    # from the top: 5 (unknown) precision 1; 4 none; 3 is one unknown of 4 rows so far, two of them unknown
    assert aupr(SCORES, KNOWN) == pytest.approx(1 / 2 * 1 + 1 / 2 * (2 / 4))
    # correct known 1 3 4: below unknown 3 one and a tie, below unknown 5 three; of 4 known
    assert oscr(SCORES, KNOWN, CORRECT) == pytest.approx((1.5 + 3) / 8)


def test_the_ends() -> None:
    known = np.array([K, K, U, U])
    for scores, value in (([1, 2, 3, 4], 1.0), ([3, 4, 1, 2], 0.0), ([1, 1, 1, 1], 0.5)):
        assert auroc(np.array(scores), known) == value
        assert fpr_at_tpr(np.array(scores), known) == (0 if value == 1 else 1)
    assert aupr(np.array([1, 2, 3, 4]), known) == 1
    assert aupr(np.ones(4), known) == 1 / 2  # chance: the share of unknown rows
    nothing_right = np.zeros(4, dtype=bool)
    assert oscr(np.array([1, 2, 3, 4]), known, nothing_right) == 0


@pytest.mark.parametrize("values", [None, 3, 10])
@pytest.mark.parametrize("seed", range(5))
def test_equal_loops_with_and_without_ties(seed: int, values: int | None) -> None:
    scores, known = drawn(seed, values)
    assert auroc(scores, known) == pytest.approx(naive_auroc(scores, known), abs=1e-12)
    assert aupr(scores, known) == pytest.approx(naive_aupr(scores, known), abs=1e-12)
    # known as the positive class, so the score is turned round
    fpr, tpr, _ = roc_curve(known, -scores, drop_intermediate=False)
    for level in (0.5, 0.8, 0.95, 1.0):
        assert fpr_at_tpr(scores, known, level) == pytest.approx(fpr[np.argmax(tpr >= level)], abs=1e-12)


@pytest.mark.parametrize("values", [None, 3])
@pytest.mark.parametrize("seed", range(5))
def test_oscr_equals_a_loop_and_stays_below_auroc(seed: int, values: int | None) -> None:
    scores, known = drawn(seed, values)
    correct = np.random.default_rng(100 + seed).random(300) < 0.7
    value = oscr(scores, known, correct)
    assert value == pytest.approx(naive_oscr(scores, known, correct), abs=1e-12)
    assert value < auroc(scores, known)
    assert oscr(scores, known, np.ones(300, dtype=bool)) == pytest.approx(auroc(scores, known), abs=1e-12)
    assert accepted(scores, known, correct).correct[-1] == pytest.approx(correct[known].mean())


def test_fpr_counts_the_known_rows_exactly() -> None:
    # 0.95 of 20 rows are 19, although 0.95 is not exactly 19 / 20
    scores = np.append(np.arange(20.0), [18.5, 0.5])
    known = np.arange(22) < 20
    assert fpr_at_tpr(scores, known) == 1 / 2


@pytest.mark.parametrize("scale", [lambda s: 1e6 * s - 3, np.exp, lambda s: s**3])
def test_only_the_order_matters(scale: np.ufunc) -> None:
    scores, known = drawn(7)
    assert auroc(scale(scores), known) == auroc(scores, known)
    assert aupr(scale(scores), known) == aupr(scores, known)


def test_infinite_scores_have_an_order() -> None:
    scores, known = np.array([-np.inf, 0, np.inf, np.inf]), np.array([K, K, K, U])
    assert auroc(scores, known) == pytest.approx((1 + 1 + 0.5) / 3)


def test_the_report() -> None:
    report = open_set_report(SCORES, KNOWN, CORRECT, threshold=3.0)
    assert json.loads(json.dumps(report)) == {
        "auroc": auroc(SCORES, KNOWN),
        "fpr_at_95_tpr": 1 / 2,
        "aupr": aupr(SCORES, KNOWN),
        "oscr": oscr(SCORES, KNOWN, CORRECT),
        "n_known": 4,
        "n_unknown": 2,
        "threshold": 3.0,
        "known_rejected": 1 / 4,  # 4 alone is above 3
        "unknown_rejected": 1 / 2,
    }
    assert "threshold" not in open_set_report(SCORES, KNOWN, CORRECT)


def test_errors_name_the_remedy() -> None:
    with pytest.raises(ValueError, match=r"no rows of unknown classes among 3.*list as unknown"):
        auroc(np.arange(3), np.ones(3, dtype=bool))
    with pytest.raises(ValueError, match="no rows of known classes among 3"):
        oscr(np.arange(3), np.zeros(3, dtype=bool), np.ones(3, dtype=bool))
    with pytest.raises(ValueError, match="no rows of unknown classes"):
        open_set_report(np.arange(3), np.ones(3, dtype=bool), np.ones(3, dtype=bool))
    with pytest.raises(ValueError, match="1 of 2 scores are NaN"):
        aupr(np.array([0.0, np.nan]), np.array([K, U]))
    with pytest.raises(ValueError, match=r"scores \(3,\), known \(2,\)"):
        auroc(np.arange(3), np.array([K, U]))
    with pytest.raises(ValueError, match="tpr is 95"):
        fpr_at_tpr(SCORES, KNOWN, 95)
