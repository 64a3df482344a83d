"""The temperature against SciPy's minimiser, scikit-learn's calibrator and known truth."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar
from sklearn.calibration import CalibratedClassifierCV
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from stillwave.heads.calibration import HIGHEST, LOWEST, fit_temperature


def drawn(rows: int, factor: float, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Logits `factor` times too large for labels drawn from their softmax."""
    rng = np.random.default_rng(seed)
    logits = 2 * rng.normal(size=(rows, 5))
    odds = np.exp(logits)
    labels = [rng.choice(5, p=row) for row in odds / odds.sum(1, keepdims=True)]
    return torch.from_numpy(factor * logits), torch.tensor(labels)


def nll(logits: Tensor, labels: Tensor, temperature: float) -> float:
    return torch.nn.functional.cross_entropy(logits.double() / temperature, labels).item()


@pytest.mark.parametrize("factor", [0.3, 1.0, 2.5, 8.0])
def test_recovers_the_truth_and_equals_scipys_minimum(factor):
    logits, labels = drawn(3000, factor)
    temperature = fit_temperature(logits, labels)
    assert temperature == pytest.approx(factor, rel=0.06)  # 3,000 rows know it that well
    found = minimize_scalar(
        lambda t: nll(logits, labels, np.exp(t)), bounds=(-3, 3), method="bounded", options={"xatol": 1e-9}
    )
    assert temperature == pytest.approx(np.exp(found.x), rel=1e-6)


def test_equals_scikit_learns_temperature():
    rng = np.random.default_rng(1)
    labels = rng.integers(3, size=400)
    x = rng.normal(size=(400, 6)) + labels[:, None] * [1, 0, 0, 0, 0, 0.5]
    model = LogisticRegression(C=1e4).fit(x[:60], labels[:60])  # few rows: overconfident
    reference = CalibratedClassifierCV(FrozenEstimator(model), method="temperature").fit(x[60:], labels[60:])
    expected = 1 / reference.calibrated_classifiers_[0].calibrators[0].beta_
    logits = torch.from_numpy(model.decision_function(x[60:]))
    assert fit_temperature(logits, torch.from_numpy(labels[60:])) == pytest.approx(expected, rel=1e-3)
    assert expected > 1.1


@pytest.mark.parametrize("seed", range(20))
def test_is_never_worse_than_no_temperature(seed):
    logits, labels = drawn(4 + seed, factor=10 ** (seed / 10 - 1), seed=seed)
    temperature = fit_temperature(logits, labels)
    assert LOWEST <= temperature <= HIGHEST
    assert nll(logits, labels, temperature) <= nll(logits, labels, 1.0) + 1e-12


def test_predictions_stay_as_they_are():
    logits, labels = drawn(200, 4.0)
    assert torch.equal((logits / fit_temperature(logits, labels)).argmax(1), logits.argmax(1))


@pytest.mark.parametrize(
    ("logits", "labels", "expected"),
    [
        ([[2.0, 0.0], [0.0, 3.0]], [0, 1], 1.0),  # all right: nothing says how sure to be
        ([[0.1, 0.0, -1.0]], [0], 1.0),
        ([[1e-4, 0.0]] * 9 + [[0.0, 1e-4]], [0] * 10, LOWEST),  # surer than this would be right
        ([[0.1, 0.0, -1.0]], [1], None),  # wrong, but better than the third class: an inner minimum
        ([[0.1, 0.0, -1.0]], [2], HIGHEST),
        ([[0.0, 0.0], [5.0, 5.0]], [0, 1], 1.0),  # no temperature changes anything
        ([[1e4, 0.0]], [0], 1.0),  # as certain as float64 can say
        ([[1e4, 0.0]], [1], HIGHEST),
        ([[-1e30, 1e30]], [0], HIGHEST),
    ],
)
def test_degenerate_rows_end_at_the_bounds(logits, labels, expected):
    temperature = fit_temperature(torch.tensor(logits), torch.tensor(labels))
    if expected is None:
        assert LOWEST < temperature < HIGHEST
    else:
        assert temperature == expected


def test_works_on_half_precision_and_inside_inference_mode():
    logits, labels = drawn(300, 2.0)
    with torch.inference_mode():
        assert fit_temperature(logits.half(), labels) == pytest.approx(
            fit_temperature(logits, labels), rel=1e-2
        )


def test_errors_name_what_is_wrong():
    with pytest.raises(ValueError, match=r"labels \(0,\).*at least one validation row"):
        fit_temperature(torch.empty(0, 3), torch.empty(0, dtype=torch.long))
    with pytest.raises(ValueError, match=r"logits \(3,\) and labels \(3,\)"):
        fit_temperature(torch.zeros(3), torch.zeros(3, dtype=torch.long))
    with pytest.raises(ValueError, match="1 of 2 rows have logits that are not finite"):
        fit_temperature(torch.tensor([[0.0, 1.0], [torch.inf, 0.0]]), torch.tensor([0, 1]))
