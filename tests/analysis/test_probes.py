"""Probes of embeddings whose groups are known: what is found, and that nothing of a test row is seen."""

import json
import warnings
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

from stillwave.analysis import probes
from stillwave.analysis.probes import probe

Names = NDArray[Any]


def voices(
    rows: int = 120, speakers: int = 6, *, spread: float = 0.0, seed: int = 0
) -> tuple[Any, Names, Names]:
    """x (rows, 8), two labels that three dimensions tell apart, and speakers, told by three others."""
    rng = np.random.default_rng(seed)
    label, speaker = np.arange(rows) % 2, np.arange(rows) // 2 % speakers
    x = rng.standard_normal((rows, 8))
    x[:, :3] += 3 * label[:, None]
    x[:, 3:6] += spread * rng.standard_normal((speakers, 3))[speaker]
    names = np.array(["low", "high"], dtype=object)[label]
    return x.astype(np.float32), names, np.array([f"s{i}" for i in speaker], dtype=object)


def test_what_is_linear_is_found_and_what_is_not_there_is_chance() -> None:
    x, label, speaker = voices()
    found = probe(x, label, speaker)
    assert found["uar"] > 0.95
    assert found["accuracy"] > 0.95
    assert (found["folds"], found["groups"], found["classes"], found["rows"]) == (5, 6, 2, 120)
    assert found["chance"] == found["majority"] == 0.5
    assert found["notes"] == []
    assert probe(x, speaker)["uar"] == pytest.approx(1 / 6, abs=0.1)
    assert probe(voices(spread=6.0)[0], speaker)["uar"] > 0.95


def test_equals_the_same_folds_by_hand() -> None:
    x, label, speaker = voices(rows=60, spread=1.0)
    x[:, 0] -= 2.5 * (label == "low")  # harder: some rows are wrong
    label[:10], speaker[-6:] = "high", "s0"
    for target, groups in ((label, speaker), (speaker, None)):
        splitter: Any = (StratifiedKFold if groups is None else StratifiedGroupKFold)(
            3, shuffle=True, random_state=1
        )
        predicted = np.empty(60, dtype=object)
        accuracies = []
        for train, test in splitter.split(x, target, groups):
            mean, std = x[train].mean(0), x[train].std(0)
            model = LogisticRegression(C=0.1, class_weight="balanced", tol=1e-6, max_iter=1000)
            model.fit((x[train] - mean) / std, target[train])
            predicted[test] = model.predict((x[test] - mean) / std)
            accuracies.append((predicted[test] == target[test]).mean())
        recalls = [(predicted[target == name] == name).mean() for name in np.unique(target)]
        found = probe(x, target, groups, folds=3, seed=1, c=0.1)
        assert found["accuracy"] == pytest.approx((predicted == target).mean())
        assert found["uar"] == pytest.approx(np.mean(recalls))
        assert found["accuracy_std"] == pytest.approx(np.std(accuracies))
        assert found["accuracy"] < 1
        assert found["uar"] != pytest.approx(found["accuracy"])


def test_speakers_are_held_out_when_labels_are_probed() -> None:
    """The label of a speaker is their own: known speakers give it away, new ones do not."""
    rng = np.random.default_rng(0)
    speaker = np.repeat(np.arange(12), 10)
    x = 4 * rng.standard_normal((12, 16))[speaker] + 0.3 * rng.standard_normal((120, 16))
    label = rng.permutation(np.repeat(["a", "b"], 6))[speaker].astype(object)
    names = np.array([f"s{i}" for i in speaker], dtype=object)
    assert probe(x, label)["uar"] > 0.98
    assert probe(x, label, names)["uar"] < 0.8


def test_test_rows_do_not_take_part_in_the_standardisation(monkeypatch: pytest.MonkeyPatch) -> None:
    x, label, speaker = voices(rows=40, speakers=4)
    x = np.concatenate([x, np.arange(40, dtype=np.float32)[:, None]], axis=1)  # the last names the row
    seen = []

    class Recorder(probes.StandardScaler):  # type: ignore[misc]
        def fit(self, x: Any, y: Any = None, sample_weight: Any = None) -> Any:
            seen.append({speaker[int(row)] for row in x[:, -1]})
            return super().fit(x, y)

    monkeypatch.setattr(probes, "StandardScaler", Recorder)
    probe(x, label, speaker, folds=4)
    everyone = set(speaker)
    assert len(seen) == 4
    assert {frozenset(everyone - training) for training in seen} == {frozenset([name]) for name in everyone}


def test_rows_without_a_label_or_a_speaker_are_left_out_and_counted() -> None:
    x, label, speaker = voices()
    label[:7], speaker[5:10] = None, float("nan")
    found = probe(x, label, speaker)
    assert found["rows"] == 110
    assert found["notes"] == ["7 rows without the target are left out", "3 rows without a group are left out"]


def test_classes_that_cannot_be_on_both_sides_are_left_out_and_counted() -> None:
    x, label, speaker = voices()
    label[speaker == "s1"] = "only s1"
    found = probe(x, label, speaker)
    assert (found["classes"], found["rows"]) == (2, 100)
    assert found["notes"] == ["20 rows are left out, of classes of a single group: only s1"]
    speaker[:6] = [f"once {i}" for i in range(6)]
    assert probe(x, speaker)["notes"] == [
        "6 rows are left out, of classes of a single row: once 0, once 1, once 2, once 3, once 4 and 1 more"
    ]


def test_fewer_groups_or_rows_than_folds_make_fewer_folds() -> None:
    x, label, speaker = voices(speakers=3)
    found = probe(x, label, speaker)
    assert (found["folds"], found["groups"]) == (3, 3)
    assert found["notes"] == ["3 folds, not 5: there are no more groups"]
    pairs = np.array([f"p{i // 3}" for i in range(12)], dtype=object)
    assert probe(x[:12], pairs)["notes"] == ["3 folds, not 5: there are no more rows of any class"]
    pairs[:4] = "larger"  # one class has four rows; those of fewer are tested in fewer folds
    assert probe(x[:12], pairs)["folds"] == 4


def test_one_speaker_is_split_by_rows_and_that_is_said() -> None:
    x, label, speaker = voices(speakers=1)
    found = probe(x, label, speaker)
    assert found["groups"] is None
    assert found["uar"] > 0.95
    assert found["notes"][0].startswith("fewer than two groups: rows were held out at random")


def test_a_class_that_a_fold_cannot_train_counts_as_wrong_and_is_said() -> None:
    """Both groups of a class in one fold: two folds of three groups must put two of them together."""
    x, _, _ = voices(rows=60)
    groups = np.repeat(["g1", "g2", "g3"], 20).astype(object)
    label = np.array(["a"] * 20 + ["a", "b"] * 10 + ["b"] * 20, dtype=object)
    found = probe(x, label, groups, folds=2)
    assert "rows count as wrong: their fold had no row of their class to train on" in found["notes"][-1]
    assert found["uar"] < 0.9


def test_fewer_than_two_classes_give_nulls() -> None:
    x, label, _ = voices(rows=10)
    label[:] = "low"
    for target in (label, np.full(10, None), np.array([f"row {i}" for i in range(10)])):
        found = probe(x, target)
        assert found["uar"] is found["chance"] is None
        assert found["notes"][-1] == "nothing was probed: fewer than two classes are left"
        json.dumps(found, allow_nan=False)


def test_many_rows_are_trained_on_a_seeded_sample_that_has_every_class() -> None:
    x, label, speaker = voices(rows=400, speakers=4)
    label[:8] = "rare"  # two rows of each speaker
    found = probe(x, label, speaker, folds=4, max_rows=30)
    assert found["notes"] == ["each fold was trained on a sample of 30 of up to 300 rows"]
    assert found["rows"] == 400
    assert found == probe(x, label, speaker, folds=4, max_rows=30)
    assert found != probe(x, label, speaker, folds=4, max_rows=30, seed=1)
    names = np.array(["a"] * 80 + ["b"] * 18 + ["c"] * 2)
    kept = probes._sample(names, 50, np.random.default_rng(0))
    assert np.unique(names[kept], return_counts=True)[1].tolist() == [40, 9, 1]
    assert len(np.unique(kept)) == 50
    assert set(names[probes._sample(names, 3, np.random.default_rng(0))]) == {"a", "b", "c"}


def test_a_solver_that_stops_early_is_counted_not_warned_of() -> None:
    x, label, speaker = voices(spread=2.0)
    found = probe(x * [1, 2, 3, 4, 5, 6, 7, 8], label, speaker, max_iterations=1)
    assert found["not_converged"] == 5
    assert found["notes"] == ["the solver stopped at 1 iterations in 5 of 5 folds"]
    assert probe(x, label, speaker)["not_converged"] == 0


def test_other_warnings_of_the_solver_are_passed_on() -> None:
    class Loud:
        def fit(self, x: Any, y: Any) -> None:
            warnings.warn("too wide", UserWarning, stacklevel=1)
            warnings.warn("not there yet", ConvergenceWarning, stacklevel=1)

        def predict(self, x: Any) -> Any:
            return np.full(len(x), "a")

    with warnings.catch_warnings():
        warnings.simplefilter("default", UserWarning)
        with pytest.warns(UserWarning, match="too wide") as caught:
            _, converged = probes._fitted(Loud(), np.ones((2, 1)), np.array(["a", "b"]), np.ones((2, 1)))  # type: ignore[arg-type]
    assert not converged
    assert len(caught) == 1


def test_more_dimensions_than_rows() -> None:
    x, label, speaker = voices(rows=40, speakers=4)
    wide = np.concatenate([x, np.random.default_rng(2).standard_normal((40, 2000))], axis=1)
    assert probe(np.tile(x, 300), label, speaker)["uar"] > 0.9
    assert probe(wide, label, speaker)["not_converged"] == 0


def test_settings_out_of_bounds_are_errors() -> None:
    x, label, speaker = voices(rows=20)
    with pytest.raises(ValueError, match="folds and max_rows are 1 and 10000; they must be at least 2"):
        probe(x, label, speaker, folds=1)
