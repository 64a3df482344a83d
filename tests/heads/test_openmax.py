"""OpenMax against SciPy's Weibull and a naive loop, and what it does where a tail cannot be fitted."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import weibull_min
from torch import Tensor, nn

from stillwave.heads.base import Outputs
from stillwave.heads.open_set import load_scorer
from stillwave.heads.openmax import OpenMax, OpenMaxScore, fit_weibull


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def make_rows(
    classes: int = 4, per_class: int = 60, offset: float = 0.0, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """Logits around 8 * e_j, some of them misclassified, and their labels."""
    labels = torch.arange(classes).repeat_interleave(per_class)
    noise = 1.5 * torch.randn(len(labels), classes, generator=seeded(seed), dtype=torch.float64)
    logits = offset + 8 * nn.functional.one_hot(labels, classes) + noise
    logits[::per_class] = logits[::per_class].roll(1, 1)  # the first row of each class, to another class
    return logits, labels


def naive_distance(name: str, a: np.ndarray, b: np.ndarray) -> float:
    euclidean = math.sqrt(sum((x - y) ** 2 for x, y in zip(a, b, strict=True)))
    cosine = 1 - float(a @ b) / (np.linalg.norm(a) * np.linalg.norm(b))
    return {"euclidean": euclidean, "cosine": cosine, "eucos": euclidean / 200 + cosine}[name]


def naive_weights(logits: Tensor, labels: Tensor, items: Tensor, tail_size: int, distance: str) -> np.ndarray:
    """w of every item and class, by SciPy."""
    rows, weights = logits.numpy(), np.zeros(items.shape)
    for j in range(rows.shape[1]):
        mine = [row for row, label in zip(rows, labels, strict=True) if label == j and row.argmax() == j]
        mean = np.mean(mine, axis=0)
        tail = np.array(sorted(naive_distance(distance, row, mean) for row in mine)[-tail_size:])
        c, loc, scale = weibull_min.fit(tail - tail.min() + 1, floc=0)
        for i, item in enumerate(items.numpy()):
            x = naive_distance(distance, item, mean) - tail.min() + 1
            weights[i, j] = weibull_min.cdf(x, c, loc, scale)
    return weights


def naive_revision(item: list[float], w: list[float], alpha: int) -> list[float]:
    alpha = min(alpha, len(item))
    order = sorted(range(len(item)), key=lambda j: -item[j])
    omega = [0.0] * len(item)
    for i in range(1, alpha + 1):
        omega[order[i - 1]] = (alpha + 1 - i) / alpha
    revised, unknown = [], 0.0
    for j, v in enumerate(item):
        hat = v * (1 - w[j] * omega[j]) if v > 0 else v
        revised.append(hat)
        unknown += v - hat
    return [*revised, unknown]


@pytest.mark.parametrize("spread", [0.01, 0.5, 4.0, 300.0])
@pytest.mark.parametrize("count", [3, 20, 200])
def test_weibull_equals_scipys(spread, count):
    tail = spread * torch.rand(count, generator=seeded(count), dtype=torch.float64)
    values = tail - tail.min() + 1
    shape, scale = fit_weibull(values)
    c, _, s = weibull_min.fit(values.numpy(), floc=0)
    assert shape == pytest.approx(c, rel=1e-4)
    assert scale == pytest.approx(s, rel=1e-4)
    # SciPy stops its search early: ours may not be less likely than its answer.
    ours = weibull_min.logpdf(values.numpy(), shape, 0, scale).sum()
    assert ours >= weibull_min.logpdf(values.numpy(), c, 0, s).sum() - 1e-9


def test_weibull_finds_the_shape_that_drew_the_values():
    values = torch.from_numpy(weibull_min.rvs(2.5, scale=1.8, size=20_000, random_state=0))
    shape, scale = fit_weibull(values)
    assert shape == pytest.approx(2.5, rel=0.02)
    assert scale == pytest.approx(1.8, rel=0.01)


@pytest.mark.parametrize("distance", ["euclidean", "cosine", "eucos"])
def test_weights_equal_scipys_cdf_on_the_shifted_tail(distance):
    logits, labels = make_rows()
    openmax = OpenMax(4, tail_size=15, distance=distance).fit(logits, labels)
    items = torch.cat([logits[::17], 6 * torch.randn(20, 4, generator=seeded(5), dtype=torch.float64)])
    weights = openmax.weights(items)
    np.testing.assert_allclose(weights, naive_weights(logits, labels, items, 15, distance), atol=2e-4)
    assert openmax.status == ("fitted",) * 4
    assert weights.min() < 0.01  # both ends occur, or the comparison would say little
    assert weights.max() > 0.9


def test_the_tail_alone_is_fitted_and_begins_at_one():
    """All distances as the tail, or another shift, is another model: the traps of this method."""
    logits, labels = make_rows(per_class=500)
    tail = OpenMax(4, tail_size=20).fit(logits, labels)
    whole = OpenMax(4, tail_size=10_000).fit(logits, labels)
    rows = logits[(labels == 0) & (logits.argmax(1) == 0)]
    distances = (rows - rows.mean(0)).norm(dim=1).sort().values
    inside = rows[(rows - rows.mean(0)).norm(dim=1).argsort()[-25:-20]]  # just below the tail
    assert (distances[-20] - tail.shift[0]).abs() < 1e-12
    assert whole.status == ("short",) * 4
    at_tail = 1 - math.exp(-(float(tail.scale[0]) ** -float(tail.shape[0])))  # where x = 1
    assert (tail.weights(inside)[:, 0] < at_tail).all()
    assert at_tail < 0.2
    assert (whole.weights(inside)[:, 0] > 0.9).all()
    shifted, _ = fit_weibull(distances[-20:] - distances[-20] + 10_000)
    assert shifted > 1000 > 10 > tail.shape[0]


@pytest.mark.parametrize("offset", [20.0, 0.0, -20.0])
@pytest.mark.parametrize("alpha", [1, 3, 4, 10])
def test_revision_equals_a_naive_loop(alpha, offset):
    logits, labels = make_rows(offset=offset)
    openmax = OpenMax(4, alpha=alpha).fit(logits, labels)
    items = offset + 8 * torch.randn(30, 4, generator=seeded(3), dtype=torch.float64)
    revised, weights = openmax.revise(items), openmax.weights(items)
    for i in range(len(items)):
        expected = naive_revision(items[i].tolist(), weights[i].tolist(), alpha)
        assert revised[i].tolist() == pytest.approx(expected, rel=1e-12, abs=1e-12)
    torch.testing.assert_close(openmax(items), revised.softmax(1))
    torch.testing.assert_close(revised.sum(1), items.sum(1))  # evidence is moved, not made


def test_by_hand():
    openmax = OpenMax(2, alpha=2)
    # Class means (4, 0), (0, 4); both Weibulls with shape 1, scale 2 and a tail that begins at 3.
    openmax.means.copy_(torch.tensor([[4.0, 0.0], [0.0, 4.0]]))
    openmax.shift.fill_(3)
    openmax.scale.fill_(2)
    openmax.codes.fill_(1)
    item = torch.tensor([[4.0, 3.0]])  # distances 3 and sqrt(17)
    w = 1 - math.exp(-1 / 2), 1 - math.exp(-(math.sqrt(17) - 2) / 2)
    moved = 4 * w[0], 3 * w[1] / 2  # rank weights 1 and 1/2
    expected = [4 - moved[0], 3 - moved[1], sum(moved)]
    assert openmax.revise(item)[0].tolist() == pytest.approx(expected)


@pytest.mark.parametrize(
    ("distance", "expected"),
    [
        ("euclidean", (3, math.sqrt(17))),
        ("cosine", (0.2, 0.4)),
        ("eucos", (0.215, math.sqrt(17) / 200 + 0.4)),
    ],
)
def test_distances_by_hand(distance, expected):
    openmax = OpenMax(2, distance=distance)
    openmax.means.copy_(torch.tensor([[4.0, 0.0], [0.0, 4.0]]))
    openmax.scale.fill_(2)
    openmax.codes.fill_(1)
    weights = openmax.weights(torch.tensor([[4.0, 3.0]]))
    assert weights[0].tolist() == pytest.approx([1 - math.exp(-(d + 1) / 2) for d in expected])


def test_negative_logits_are_never_raised_nor_taken_from_the_unknown():
    logits, labels = make_rows(offset=-4)
    openmax = OpenMax(4).fit(logits, labels)
    nothing = torch.tensor([[-9.0, -2.0, -5.0, -3.0]])
    assert openmax.revise(nothing)[0].tolist() == [-9, -2, -5, -3, 0]
    assert openmax(nothing)[0].argmax() == 4
    items = 10 * torch.randn(200, 4, generator=seeded(4))
    revised = openmax.revise(items)
    assert (revised[:, :4] <= items).all()
    assert (revised[:, 4] >= 0).all()


def test_an_outlier_is_unknown_and_a_typical_item_is_not():
    logits, labels = make_rows()
    probabilities = OpenMax(4).fit(logits, labels)(
        torch.tensor([[8.0, 0, 0, 0], [6.0, 6, 6, 6], [40.0, 0, 0, 0]])
    )
    assert probabilities.argmax(1).tolist() == [0, 4, 4]


def test_an_item_does_not_depend_on_its_batch():
    logits, labels = make_rows()
    openmax = OpenMax(4).fit(logits, labels)
    together = openmax(logits)
    for i in range(0, len(logits), 13):
        assert torch.equal(openmax(logits[i : i + 1])[0], together[i])


def test_only_correctly_classified_rows_are_read():
    logits, labels = make_rows()
    first = OpenMax(4).fit(logits, labels)
    wrong = logits.argmax(1) != labels
    assert wrong.sum() >= 4
    second = OpenMax(4).fit(logits[~wrong], labels[~wrong])
    for key, value in second.state_dict().items():
        assert torch.equal(first.state_dict()[key], value), key


def degenerate() -> tuple[Tensor, Tensor]:
    """Class 0 has 40 rows, 1 has 10, 2 has 2, 3 has 30 equal ones, 4 only misclassified ones, 5 none."""
    labels = torch.tensor([0] * 40 + [1] * 10 + [2] * 2 + [3] * 30 + [4] * 5)
    logits = 10.0 * nn.functional.one_hot(labels, 6) + torch.randn(len(labels), 6, generator=seeded(1))
    logits[labels == 3] = torch.tensor([0.0, 0, 0, 9, 0, 0])
    # Equal distances but for rounding: pairs on either side of their mean.
    logits[labels == 3, 0] += torch.tensor([3.0, -3.0, 3.0000005, -3.0000005, 3.0, -3.0] * 5)
    logits[labels == 4] = torch.tensor([9.0, 0, 0, 0, 1, 0])
    return logits, labels


@pytest.mark.parametrize("distance", ["euclidean", "cosine", "eucos"])
def test_tails_that_cannot_be_fitted_are_named_and_not_revised(distance):
    openmax = OpenMax(6, distance=distance).fit(*degenerate())
    assert openmax.status == ("fitted", "short", "few", "equal", "no correct rows", "no correct rows")
    items = torch.cat(
        [torch.zeros(1, 6), 30 * torch.randn(50, 6, generator=seeded(2)), torch.full((1, 6), 1e30)]
    )
    weights = openmax.weights(items)
    assert (weights[:, 2:] == 0).all()
    assert (weights[:, :2].amax(0) > 0.9).all()
    assert openmax(items).isfinite().all()
    torch.testing.assert_close(openmax(items).sum(1), torch.ones(52, dtype=torch.float64))
    torch.testing.assert_close(openmax.revise(items)[:, 2:6], items[:, 2:].double())


def test_without_any_fit_it_is_softmax_with_an_unknown_at_zero():
    logits, labels = degenerate()
    openmax = OpenMax(6).fit(logits, (labels + 1) % 6)
    assert openmax.status == ("no correct rows",) * 6
    zero = torch.zeros(len(logits), 1)
    torch.testing.assert_close(openmax(logits), torch.cat([logits, zero], 1).double().softmax(1))


def test_no_spread_down_to_the_threshold_gives_a_finite_fit():
    rows = torch.eye(2, dtype=torch.float64).repeat(30, 1) * 9
    rows[:, 0] += torch.linspace(0, 1e-4, 60, dtype=torch.float64)
    openmax = OpenMax(2).fit(rows, torch.tensor([0, 1] * 30))
    assert openmax.status == ("fitted", "fitted")
    assert openmax.shape.isfinite().all()
    assert openmax(rows).isfinite().all()


def test_everything_is_in_the_state_dict():
    logits, labels = degenerate()
    fitted = OpenMax(6, tail_size=12, alpha=3, distance="eucos").fit(logits, labels)
    loaded = OpenMax(6)
    loaded.load_state_dict(fitted.state_dict())
    assert (loaded.tail_size, loaded.alpha, loaded.distance) == (12, 3, "eucos")
    assert loaded.status == fitted.status
    assert torch.equal(loaded(logits), fitted(logits))
    assert not list(fitted.parameters())


def test_score_is_what_no_known_class_has():
    logits, labels = make_rows()
    outputs = Outputs(logits, logits)
    score = OpenMaxScore(tail_size=10, alpha=2).fit(outputs, labels, nn.Linear(4, 4))
    expected = 1 - OpenMax(4, 10, 2).fit(logits, labels)(logits)[:, :4].amax(1)
    torch.testing.assert_close(score(outputs), expected)
    sure = torch.tensor([[60.0, 0, 0, 0], [50.0, 0, 0, 0]])
    score.openmax.scale.fill_(torch.inf)  # softmax: nothing beyond any class
    assert 0 < score(Outputs(sure, sure))[0] < score(Outputs(sure, sure))[1] < 1e-20
    loaded = load_scorer("openmax", score.state_dict())
    assert torch.equal(loaded(outputs), score(outputs))


def test_errors():
    with pytest.raises(ValueError, match="tail_size is 2; a Weibull needs at least 3"):
        OpenMax(3, tail_size=2)
    with pytest.raises(ValueError, match="alpha is 0"):
        OpenMax(3, alpha=0)
    with pytest.raises(ValueError, match="distance is 'manhattan'; choose one of euclidean, eucos, cosine"):
        OpenMax(3, distance="manhattan")
    with pytest.raises(ValueError, match="not fitted"):
        OpenMax(3)(torch.zeros(1, 3))
    with pytest.raises(ValueError, match="not fitted"):
        OpenMaxScore()(Outputs(torch.zeros(1, 3), torch.zeros(1, 3)))
    assert OpenMax(3).status == ("not fitted",) * 3
    with pytest.raises(ValueError, match=r"expected logits \(rows, 3\), got \(5, 4\)"):
        OpenMax(3).fit(torch.zeros(5, 4), torch.zeros(5))
    with pytest.raises(ValueError, match="the logits of 1 training rows are not finite, first of row 2"):
        OpenMax(2).fit(torch.tensor([[1.0, 0], [0, 1], [torch.nan, 0]]), torch.tensor([0, 1, 0]))


def test_distances_that_differ_by_rounding_only_are_equal():
    """Collinear logits have cosines of 1 to their mean, but for the last digits."""
    generator = torch.Generator().manual_seed(0)
    size = 1 + torch.rand(60, 1, generator=generator, dtype=torch.float64)
    logits = torch.cat([size * torch.tensor([3.0, 1.0]), size * torch.tensor([1.0, 2.0])])
    labels = torch.arange(2).repeat_interleave(60)
    openmax = OpenMax(2, distance="cosine").fit(logits, labels)
    assert openmax.status == ("equal", "equal")
    assert openmax(logits)[:, -1].max() < 0.2  # nothing is moved: the unknown keeps its logit of 0
