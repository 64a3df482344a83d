from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from stillwave.heads.base import Outputs
from stillwave.heads.classifier import SegmentClassifier
from stillwave.pipeline.config.recipe import PROBABILITY_SCORES, OpenSet, Recipe
from stillwave.pipeline.runs.calibrate import (
    DEFAULT_THRESHOLD,
    Calibration,
    build_scorers,
    calibrate,
    threshold_of,
)
from stillwave.pipeline.runs.inference import outputs_of
from stillwave.pipeline.train.fit import fit
from tests.pipeline.train.test_fit import NONE, ToyFeatures, head, settings

TRAIN, VALID, TEST = np.arange(100), np.arange(100, 170), np.arange(170, 240)


def recipe(**open_set: Any) -> Recipe:
    fields = {"backbones": ["toy"], "head": {"kind": "segment"}, "losses": {"cac": 0.1}, "open_set": open_set}
    return Recipe.model_validate(fields)


@pytest.fixture(scope="module")
def features() -> ToyFeatures:
    """Rows that a head cannot tell without mistakes."""
    toy = ToyFeatures(count=240)
    away = torch.eye(6) * 1.7
    toy.rows = [row - away[label] for row, label in zip(toy.rows, toy.labels, strict=True)]
    return toy


@pytest.fixture(scope="module")
def trained(features: ToyFeatures) -> SegmentClassifier:
    model = head()
    fit(model, features, features.labels, TRAIN, NONE, settings(epochs=25))
    return model


@pytest.fixture(scope="module")
def calibration(features: ToyFeatures, trained: SegmentClassifier) -> Calibration:
    return calibrate(trained, features, features.labels, TRAIN, VALID, recipe())


def test_the_temperature_is_the_best_for_the_validation_rows(
    features: ToyFeatures, trained: SegmentClassifier, calibration: Calibration
) -> None:
    outputs, labels = outputs_of(trained, features, VALID), torch.from_numpy(features.labels[VALID])
    losses = {
        t: float(torch.nn.functional.cross_entropy(outputs.logits.double() / t, labels))
        for t in np.geomspace(0.05, 20, 600)
    }
    best = min(losses, key=losses.__getitem__)
    assert 1.05 < best < 19  # overconfident on what it was not trained on
    assert calibration.temperature == pytest.approx(best, rel=0.01)
    expected = (outputs.logits.double() / calibration.temperature).softmax(1)
    np.testing.assert_allclose(calibration.probabilities(outputs), expected)
    np.testing.assert_allclose(
        calibration.probabilities(outputs, calibrated=False), outputs.logits.double().softmax(1)
    )


def test_thresholds_keep_the_share_asked_for_of_the_validation_rows(
    features: ToyFeatures, trained: SegmentClassifier, calibration: Calibration
) -> None:
    scores = calibration.scores(outputs_of(trained, features, VALID))
    assert scores.keys() == {"msp", "mls", "energy", "openmax", "knn", "vim", "cac"}
    for name, values in scores.items():
        assert (values <= calibration.thresholds[name]).mean() >= 0.95
        assert (values < calibration.thresholds[name]).mean() < 0.95
    looser = calibrate(trained, features, features.labels, TRAIN, VALID, recipe(keep=0.5))
    for name, values in scores.items():
        assert (values <= looser.thresholds[name]).mean() == 0.5


def test_without_validation_rows_nothing_is_tuned(features: ToyFeatures, trained: SegmentClassifier) -> None:
    plain = calibrate(trained, features, features.labels, TRAIN, NONE, recipe())
    assert plain.temperature is None
    assert plain.thresholds == {}
    outputs = outputs_of(trained, features, TEST)
    np.testing.assert_allclose(plain.probabilities(outputs), outputs.logits.double().softmax(1))
    assert np.isnan(threshold_of(OpenSet(), "knn", plain))
    for name in PROBABILITY_SCORES:
        assert threshold_of(OpenSet(), name, plain) == DEFAULT_THRESHOLD == 0.3
    assert threshold_of(OpenSet(threshold=0.7), "knn", plain) == 0.7
    with pytest.raises(ValueError, match=r"open_set.threshold: tuned needs validation rows"):
        threshold_of(OpenSet(threshold="tuned"), "knn", plain)


def test_tuned_thresholds_are_taken_where_there_are_some(calibration: Calibration) -> None:
    assert threshold_of(OpenSet(), "knn", calibration) == calibration.thresholds["knn"]
    assert threshold_of(OpenSet(threshold="tuned"), "msp", calibration) == calibration.thresholds["msp"]
    assert threshold_of(OpenSet(), "msp", calibration) == 0.3


def test_no_score_is_computed_that_nobody_asks_for(
    features: ToyFeatures, trained: SegmentClassifier, calibration: Calibration
) -> None:
    outputs, config = outputs_of(trained, features, TEST), OpenSet(score="energy", threshold=-1.5)
    whole = calibration.values(outputs, config)
    names = [f"{kind}_{name}" for kind in ("score", "tuned") for name in calibration.scorers]
    assert list(whole) == ["p", *names, "threshold", "score"]
    np.testing.assert_array_equal(whole["p"], calibration.probabilities(outputs))
    for name, values in calibration.scores(outputs).items():
        np.testing.assert_array_equal(whole[f"score_{name}"], values)
        assert set(whole[f"tuned_{name}"]) == {calibration.thresholds[name]}
    np.testing.assert_array_equal(whole["score"], whole["score_energy"])
    assert set(whole["threshold"]) == {-1.5}

    def refuse(*_: object) -> None:
        raise AssertionError

    asked = ("energy", "msp")
    others = {name: scorer if name in asked else refuse for name, scorer in calibration.scorers.items()}
    few = replace(calibration, scorers=others).values(outputs, config, ["msp", "learned_uncertainty"])
    assert few.keys() == {"p", "score", "threshold", *(f"{k}_{n}" for k in ("score", "tuned") for n in asked)}
    for name, values in few.items():
        np.testing.assert_array_equal(values, whole[name])


def test_what_is_saved_scores_the_same_to_the_bit(
    features: ToyFeatures, trained: SegmentClassifier, calibration: Calibration, tmp_path: Path
) -> None:
    calibration.save(tmp_path)
    loaded = Calibration.load(tmp_path)
    assert (loaded.temperature, loaded.thresholds) == (calibration.temperature, calibration.thresholds)
    assert loaded.openmax_status() == calibration.openmax_status() == ["fitted"] * 3
    outputs = outputs_of(trained, features, TEST)
    ours = calibration.scores(outputs)
    for name, values in loaded.scores(outputs).items():
        np.testing.assert_array_equal(values, ours[name], err_msg=name)


def test_settings_reach_the_scores(features: ToyFeatures, trained: SegmentClassifier) -> None:
    changed = recipe(neighbours=3, tail_size=8, alpha=2, distance="cosine")
    other = calibrate(trained, features, features.labels, TRAIN, NONE, changed)
    assert int(other.scorers["knn"].k) == 3
    openmax = other.scorers["openmax"].openmax
    assert (openmax.tail_size, openmax.alpha, openmax.distance) == (8, 2, "cosine")


def test_an_uncertainty_that_was_never_taught_is_no_score() -> None:
    head = {"kind": "fusion_openmax"}
    outputs = Outputs(torch.zeros(4, 2), torch.zeros(4, 3), torch.zeros(4))
    for weight, there in ((0.0, False), (0.05, True)):
        losses = {"uncertainty": weight}
        chosen = Recipe.model_validate(
            {"backbones": ["a"], "modalities": ["audio"], "head": head, "losses": losses}
        )
        assert ("learned_uncertainty" in build_scorers(chosen, outputs)) == there
