"""Intervals and paired tests: SciPy's numbers, exact enumeration, and how often they cover a known truth."""

import itertools
import json
import math
import time

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from scipy.stats import bootstrap as scipy_bootstrap

from stillwave.pipeline.scores.classification import HEADLINE, scores
from stillwave.pipeline.scores.intervals import (
    bootstrap,
    interval_report,
    mcnemar,
    open_set_intervals,
    paired_auroc,
    paired_bootstrap,
    randomisation_test,
)

Names = NDArray[np.str_]
NAMES = np.array(["a", "b", "c"])
PRIOR = np.array([0.5, 0.3, 0.2])
GUESS = np.array([[0.8, 0.1, 0.1], [0.2, 0.7, 0.1], [0.3, 0.1, 0.6]])  # of the model, given the label


def rng(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def drawn(rows: int, seed: int, models: int = 1) -> tuple[Names, ...]:
    """Labels, and the predictions of as many models, each right as often as GUESS says."""
    generator = rng(seed)
    labels = generator.choice(3, size=rows, p=PRIOR)
    edges = GUESS.cumsum(1)[labels]
    guesses = [(generator.random((rows, 1)) > edges).sum(1).clip(max=2) for _ in range(models)]
    return (NAMES[labels], *(NAMES[guess] for guess in guesses))


def truth() -> dict[str, float]:
    """The HEADLINE scores of infinitely many rows."""
    joint = PRIOR[:, None] * GUESS
    f1 = 2 * joint.diagonal() / (joint.sum(0) + joint.sum(1))
    return {
        "accuracy": joint.trace(),
        "uar": GUESS.diagonal().mean(),
        "weighted_f1": (f1 * PRIOR).sum(),
        "macro_f1": f1.mean(),
    }


def by_hand(labels: Names, predicted: Names) -> dict[str, float]:
    return scores(labels.tolist(), predicted.tolist(), NAMES.tolist())


def test_one_kind_of_row_has_no_spread() -> None:
    assert bootstrap(["a"] * 5, ["a"] * 5, rng(0)) == dict.fromkeys(HEADLINE, (1.0, 1.0))
    assert bootstrap(["a"] * 5, ["b"] * 5, rng(0)) == dict.fromkeys(HEADLINE, (0.0, 0.0))


def test_resamples_are_scored_as_metrics_scores_them() -> None:
    """Two groups of two: the resamples are A+A, A+B, B+B, and the outer percentiles A+A and B+B."""
    labels, predicted = np.array(["a", "b", "a", "c"]), np.array(["a", "a", "d", "c"])
    intervals = bootstrap(labels, predicted, rng(0), groups=["g", "g", "h", "h"], level=0.9)
    first, second = by_hand(labels[:2], predicted[:2]), by_hand(labels[2:], predicted[2:])
    for name in HEADLINE:
        assert intervals[name] == pytest.approx(sorted((first[name], second[name])))


def test_equals_scipys_percentile_bootstrap() -> None:
    labels, predicted = drawn(400, seed=1)
    ours = bootstrap(labels, predicted, rng(2), resamples=20_000)
    actual, guess = (np.searchsorted(NAMES, names) for names in (labels, predicted))

    def uar(actual: NDArray[np.int64], guess: NDArray[np.int64], axis: int) -> NDArray[np.float64]:
        right = actual == guess
        recalls = [(right & (actual == c)).sum(axis) / (actual == c).sum(axis) for c in range(3)]
        return np.mean(recalls, axis=0)

    for name, statistic in (("accuracy", lambda a, g, axis: (a == g).mean(axis)), ("uar", uar)):
        reference = scipy_bootstrap(
            (actual, guess), statistic, paired=True, vectorized=True, n_resamples=20_000,
            method="percentile", rng=rng(3),
        ).confidence_interval  # fmt: skip
        assert ours[name] == pytest.approx(tuple(reference), abs=0.003)


def test_intervals_of_rows_cover_the_truth_as_often_as_they_say() -> None:
    hits, trials = dict.fromkeys(HEADLINE, 0), 400
    for seed in range(trials):
        labels, predicted = drawn(250, seed)
        for name, (low, high) in bootstrap(labels, predicted, rng(seed), resamples=1000).items():
            hits[name] += low <= truth()[name] <= high
    for name, count in hits.items():
        # percentile intervals of 250 rows cover some 94 %; three deviations of 400 trials are 3.5 %
        assert 0.905 <= count / trials <= 0.985, name


def speakers(seed: int) -> tuple[Names, Names, list[str]]:
    """40 speakers of 20 rows, of whom some are much easier than others; 70 % are right on the whole."""
    generator = rng(seed)
    easy = np.repeat(generator.beta(7 / 4, 3 / 4, size=40), 20)
    labels = generator.choice(2, size=800)
    predicted = np.where(generator.random(800) < easy, labels, 1 - labels)
    return NAMES[labels], NAMES[predicted], np.repeat(np.arange(40), 20).astype(str).tolist()


def test_intervals_of_groups_cover_what_those_of_rows_miss() -> None:
    hits = {"rows": 0, "groups": 0}
    for seed in range(200):
        labels, predicted, groups = speakers(seed)
        for unit, given in (("rows", None), ("groups", groups)):
            low, high = bootstrap(labels, predicted, rng(seed), groups=given, resamples=500)["accuracy"]
            hits[unit] += low <= 0.7 <= high
    assert 0.88 <= hits["groups"] / 200 <= 0.99
    assert hits["rows"] / 200 < 0.7


def test_paired_intervals_cover_a_difference_of_zero_and_are_shorter_than_unpaired_ones() -> None:
    hits = dict.fromkeys(HEADLINE, 0)
    for seed in range(300):
        labels, a, b = drawn(200, seed, models=2)
        for name, (low, high) in paired_bootstrap(labels, a, b, rng(seed), resamples=500).items():
            hits[name] += low <= 0 <= high
    assert all(0.9 <= count / 300 <= 0.985 for count in hits.values())
    labels, a = drawn(200, seed=0)
    b = np.where(rng(9).random(200) < 0.1, labels, a)  # A, with a tenth of its rows put right
    low, high = paired_bootstrap(labels, a, b, rng(0))["accuracy"]
    alone = bootstrap(labels, a, rng(0))["accuracy"]
    assert 0 < low < by_hand(labels, b)["accuracy"] - by_hand(labels, a)["accuracy"] < high
    assert high - low < 0.5 * (alone[1] - alone[0])


@pytest.mark.parametrize("groups", [None, list("sttuuvv")])
def test_randomisation_equals_all_swaps(groups: list[str] | None) -> None:
    labels = np.array(list("aabbcca"))
    a, b = np.array(list("abbbaca")), np.array(list("aababba"))
    units = np.arange(7) if groups is None else np.unique(groups, return_inverse=True)[1]
    found = {name: by_hand(labels, b)[name] - by_hand(labels, a)[name] for name in HEADLINE}
    extreme, total = dict.fromkeys(HEADLINE, 0), 0
    for swaps in itertools.product([False, True], repeat=int(units.max()) + 1):
        swap = np.array(swaps)[units]
        one, other = by_hand(labels, np.where(swap, b, a)), by_hand(labels, np.where(swap, a, b))
        total += 1
        for name in HEADLINE:
            extreme[name] += abs(other[name] - one[name]) >= abs(found[name]) - 1e-12
    p = randomisation_test(labels, a, b, rng(0), groups=groups, resamples=total)
    assert p == pytest.approx({name: count / total for name, count in extreme.items()}, abs=1e-12)
    assert len(set(extreme.values())) > 1


def test_drawn_swaps_agree_with_all_of_them_and_neither_falls_below_its_floor() -> None:
    labels, a = drawn(13, seed=2)
    b = np.where(rng(3).random(13) < 0.7, labels, a)
    exact = randomisation_test(labels, a, b, rng(0), resamples=2**12)
    assert exact == randomisation_test(labels, a, b, rng(1), resamples=10**6)
    assert randomisation_test(labels, a, b, rng(0), resamples=2**12 - 1) == pytest.approx(exact, abs=0.03)
    best, worst = ["a"] * 5, ["b"] * 5
    for seed in range(20):  # drawn at random, the two ways of this size would at times be too rare
        p = randomisation_test(best, worst, best, rng(seed), groups=list("stuvw"), resamples=1000)
        assert p["accuracy"] == 2 / 2**5
    eleven = 2 * list("abcdefghijk")
    p = randomisation_test(22 * ["a"], 22 * ["b"], 22 * ["a"], rng(0), groups=eleven, resamples=1000)
    assert p["accuracy"] >= 1 / 1001 > 2 / 2**11


def test_p_is_uniform_when_there_is_no_difference() -> None:
    values = []
    for seed in range(400):
        labels, a, b = drawn(150, seed, models=2)
        p = randomisation_test(labels, a, b, rng(seed), resamples=500)
        values.append([p["uar"], p["macro_f1"]])
    for level in (0.05, 0.25, 0.5, 0.75):
        slack = 3.5 * math.sqrt(level * (1 - level) / 400)
        shares = (np.array(values) <= level).mean(axis=0)
        assert shares == pytest.approx(level, abs=slack + 0.01)


def test_a_clear_difference_has_a_small_p() -> None:
    labels, a = drawn(300, seed=0)
    b = np.where(rng(1).random(300) < 0.5, labels, a)
    assert set(randomisation_test(labels, a, b, rng(0), resamples=999).values()) == {1 / 1000}
    assert mcnemar(labels, a, b) < 1e-6


def test_the_same_predictions_are_no_difference() -> None:
    labels, a = drawn(100, seed=0)
    assert set(randomisation_test(labels, a, a, rng(0)).values()) == {1.0}
    assert set(paired_bootstrap(labels, a, a, rng(0)).values()) == {(0.0, 0.0)}
    assert mcnemar(labels, a, a) == 1.0


@pytest.mark.parametrize(("only_a", "only_b"), [(0, 1), (3, 9), (9, 3), (6, 6), (40, 71), (3000, 3200)])
def test_mcnemar_is_the_binomial_test(only_a: int, only_b: int) -> None:
    labels = ["a"] * (only_a + only_b + 7)
    a = ["a"] * only_a + ["b"] * only_b + ["b"] * 3 + ["a"] * 4
    b = ["b"] * only_a + ["a"] * only_b + ["c"] * 3 + ["a"] * 4
    total = only_a + only_b
    tail = sum(math.comb(total, k) for k in range(min(only_a, only_b) + 1))  # whole numbers: exact
    assert mcnemar(labels, a, b) == pytest.approx(min(1, 2 * tail / 2**total), abs=1e-12, rel=1e-9)


def test_randomisation_of_accuracy_agrees_with_mcnemar() -> None:
    labels, a, b = drawn(200, seed=8, models=2)
    p = randomisation_test(labels, a, b, rng(0), resamples=20_000)["accuracy"]
    assert p == pytest.approx(mcnemar(labels, a, b), abs=0.015)


def delong(known: NDArray[np.bool_], a: NDArray[np.float64], b: NDArray[np.float64]) -> tuple[float, float]:
    """Difference of AUROC and its deviation, after DeLong et al. (Biometrics 1988), pair by pair."""
    sides = []
    for score in (a, b):
        above = score[~known][:, None] - score[known]
        win = np.where(above > 0, 1.0, np.where(above == 0, 0.5, 0.0))
        sides.append((win.mean(1), win.mean(0)))
    of_unknown, of_known = (sides[1][i] - sides[0][i] for i in (0, 1))
    variance = of_unknown.var(ddof=1) / len(of_unknown) + of_known.var(ddof=1) / len(of_known)
    return float(of_unknown.mean()), math.sqrt(variance)


@pytest.mark.parametrize("digits", [8, 0])  # 0: whole numbers, so many ties
@pytest.mark.parametrize("shift", [0.1, 0.5])
def test_paired_auroc_agrees_with_delong(shift: float, digits: int) -> None:
    generator = rng(5)
    known = generator.random(400) < 0.6
    common = generator.normal(size=400)
    a = np.round(2 * (common + generator.normal(size=400) - known), digits)
    b = np.round(70 * (common + generator.normal(size=400) - (1 + shift) * known) / 35, digits)
    difference, deviation = delong(known, a, b)
    (low, high), p = paired_auroc(known, a, 1000 * b + 5, rng(0), resamples=4000)  # no common scale
    assert (low + high) / 2 == pytest.approx(difference, abs=0.1 * deviation)
    assert high - low == pytest.approx(2 * 1.96 * deviation, rel=0.08)
    assert p == pytest.approx(math.erfc(abs(difference) / deviation / math.sqrt(2)), abs=0.03)


def test_paired_auroc_of_one_score_for_all_against_the_right_one() -> None:
    known = np.arange(40) < 25
    interval, p = paired_auroc(known, np.zeros(40), -1.0 * known, rng(0), resamples=999)
    assert interval == (0.5, 0.5)  # ties count one half, in every draw
    assert p == 2 / 1000


def test_paired_auroc_of_the_same_scores_and_of_groups() -> None:
    generator = rng(0)
    known = generator.random(200) < 0.5
    a = generator.normal(size=200) - known
    assert paired_auroc(known, a, 3 * a, rng(0)) == ((0.0, 0.0), 1.0)
    # 20 speakers, of whom B's score says more than of their rows: the interval by speakers is longer
    groups = np.repeat(np.arange(20), 10)
    b = a - 1.5 * known * generator.choice([-1, 1], size=20)[groups]
    rows, _ = paired_auroc(known, a, b, rng(0))
    whole, _ = paired_auroc(known, a, b, rng(0), groups=groups.astype(str).tolist())
    assert whole[1] - whole[0] > 1.3 * (rows[1] - rows[0])


def test_the_same_generator_gives_the_same_numbers() -> None:
    labels, a, b = drawn(80, seed=0, models=2)
    assert bootstrap(labels, a, rng(4)) == bootstrap(labels, a, rng(4))
    assert bootstrap(labels, a, rng(4)) != bootstrap(labels, a, rng(5))
    assert randomisation_test(labels, a, b, rng(4)) == randomisation_test(labels, a, b, rng(4))


def test_ten_thousand_rows_take_less_than_a_second() -> None:
    labels, a, b = drawn(10_000, seed=0, models=2)
    started = time.process_time()
    bootstrap(labels, a, rng(0))
    randomisation_test(labels, a, b, rng(0))
    assert time.process_time() - started < 1


def test_the_report_has_speakers_where_there_are_some() -> None:
    labels, predicted, groups = speakers(0)
    table = pd.DataFrame({"label": labels, "predicted": predicted, "speaker": groups})
    report = json.loads(json.dumps(interval_report(table, rng(0))))
    assert set(report) == {"level", "resamples", "rows", "speakers"}
    rows, whole = report["rows"]["uar"], report["speakers"]["uar"]
    assert rows[0] < by_hand(labels, predicted)["uar"] < rows[1]
    assert whole[1] - whole[0] > 1.5 * (rows[1] - rows[0])
    for without in (table.drop(columns="speaker"), table.assign(speaker=None), table.assign(speaker="s")):
        assert "speakers" not in interval_report(without, rng(0))


def test_auroc_of_the_report_has_an_interval_by_rows_and_by_speakers() -> None:
    generator = rng(5)
    known = generator.random(300) < 0.6
    score = generator.normal(size=300) - known
    table = pd.DataFrame({"known": known, "score": score, "speaker": [f"s{i % 30}" for i in range(300)]})
    report = json.loads(json.dumps(open_set_intervals(table, rng(0))))
    low, high = report["rows"]["auroc"]
    placed = (score[~known][:, None] > score[known]).mean(1), (score[~known][:, None] > score[known]).mean(0)
    deviation = math.sqrt(sum(side.var(ddof=1) / len(side) for side in placed))  # DeLong's
    assert (low + high) / 2 == pytest.approx(placed[0].mean(), abs=0.1 * deviation)
    assert high - low == pytest.approx(2 * 1.96 * deviation, rel=0.08)
    assert report["speakers"]["auroc"] != [low, high]
    table.loc[~known, "speaker"] = None
    assert set(open_set_intervals(table, rng(0))) == {"level", "resamples", "rows"}


def test_errors_name_the_remedy() -> None:
    with pytest.raises(ValueError, match="have 2, 1, 1 rows"):
        bootstrap(["a", "b"], ["a"], rng(0))
    with pytest.raises(ValueError, match="at least one"):
        bootstrap([], [], rng(0))
    with pytest.raises(ValueError, match=r"1 groups on 2 of 2 rows.*resample rows instead"):
        bootstrap(["a", "b"], ["a", "b"], rng(0), groups=["s", "s"])
    with pytest.raises(ValueError, match="resamples is 0"):
        bootstrap(["a"], ["a"], rng(0), resamples=0)
    with pytest.raises(ValueError, match="level is 95"):
        bootstrap(["a"], ["a"], rng(0), level=95)
