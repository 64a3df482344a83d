"""Scores of the outputs alone, against loops over their definitions."""

import math

import pytest
import torch

from stillwave.heads.base import Outputs
from stillwave.heads.scores import Energy, LearnedUncertainty, MaximumLogit, MaximumProbability, one_minus

LOGITS = torch.tensor([[1.0, 2.0, 4.0], [0, 0, 0], [-3, -8, -1], [90, 0, 10]], dtype=torch.float64)


def softmax(row: list[float]) -> list[float]:
    total = sum(math.exp(v) for v in row)
    return [math.exp(v) / total for v in row]


NAIVE = {
    MaximumProbability: lambda row: sum(softmax(row)) - max(softmax(row)),
    MaximumLogit: lambda row: -max(row),
    Energy: lambda row: -math.log(sum(math.exp(v) for v in row)),
}


@pytest.mark.parametrize("kind", NAIVE)
def test_equals_a_naive_loop(kind):
    expected = [NAIVE[kind](row) for row in LOGITS.tolist()]
    scores = kind()(Outputs(LOGITS, LOGITS))
    assert scores.tolist() == pytest.approx(expected, rel=1e-12, abs=1e-15)
    assert kind()(Outputs(LOGITS.float(), LOGITS)).dtype == torch.float64


def test_higher_is_more_outlying():
    """The second item is less sure than the first by every score."""
    logits = torch.tensor([[9.0, 0.0, 0.0], [2.0, 1.0, 1.0]])
    for kind in NAIVE:
        first, second = kind()(Outputs(logits, logits)).tolist()
        assert first < second, kind


def test_sure_items_do_not_tie():
    logits = torch.tensor([[60.0, 0.0], [59.0, 0.0], [0.0, 58.0]])
    scores = MaximumProbability()(Outputs(logits, logits))
    assert scores.tolist() == pytest.approx([math.exp(-60), math.exp(-59), math.exp(-58)], abs=0)


def test_energy_does_not_overflow():
    logits = torch.tensor([[1e4, 0.0], [-1e4, -1e4]])
    assert Energy()(Outputs(logits, logits)).tolist() == pytest.approx([-1e4, 1e4 - math.log(2)])


def test_one_minus_a_choice():
    probabilities = torch.tensor([[0.5, 0.3, 0.2], [0.1, 0.1, 0.8]])
    assert one_minus(probabilities, torch.tensor([0, 1])).tolist() == pytest.approx([0.5, 0.9])


def test_uncertainty_is_the_heads():
    values = torch.tensor([0.25, 0.75, 0.5, 1.0])
    assert LearnedUncertainty()(Outputs(LOGITS, LOGITS, values)).tolist() == [0.25, 0.75, 0.5, 1.0]
    with pytest.raises(ValueError, match=r"'learned_uncertainty' needs a head.*choose another"):
        LearnedUncertainty()(Outputs(LOGITS, LOGITS))
