"""The anchor loss and its score against loops over the formula, and against values worked out by hand."""

import math

import pytest
import torch
from torch import Tensor, nn

from stillwave.heads.base import Outputs
from stillwave.heads.cac import CACHead, CACScore
from stillwave.heads.open_set import load_scorer


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def as_outputs(logits: Tensor) -> Outputs:
    return Outputs(logits, logits)


def fitted(logits: Tensor, labels: Tensor) -> CACScore:
    return CACScore().fit(as_outputs(logits), labels, nn.Linear(2, 2))


def naive_loss(logits: Tensor, labels: Tensor, alpha: float, weight: float) -> float:
    total = 0.0
    for z, y in zip(logits.tolist(), labels.tolist(), strict=True):
        d = [
            math.sqrt(sum((z[i] - (alpha if i == j else 0)) ** 2 for i in range(len(z))))
            for j in range(len(z))
        ]
        total += math.log(1 + sum(math.exp(d[y] - d[j]) for j in range(len(z)) if j != y)) + weight * d[y]
    return total / len(logits)


def naive_gamma(z: list[float], means: list[list[float]]) -> list[float]:
    d = [math.dist(z, mean) for mean in means]
    total = sum(math.exp(-x) for x in d)
    return [x * (1 - math.exp(-x) / total) for x in d]


@pytest.mark.parametrize(("alpha", "weight"), [(10.0, 0.1), (3.0, 1.0), (10.0, 0.0)])
@pytest.mark.parametrize("classes", [2, 5])
def test_loss_equals_a_naive_loop(classes, alpha, weight):
    logits = 6 * torch.randn(12, classes, generator=seeded(), dtype=torch.float64)
    labels = torch.arange(12) % classes
    loss = CACHead(classes, alpha, weight).loss(logits, labels)
    assert loss.item() == pytest.approx(naive_loss(logits, labels, alpha, weight), rel=1e-12)


def test_loss_by_hand():
    head = CACHead(3)
    # On its anchor: d = 0 to it and 10 sqrt(2) to the two others.
    at_anchor = torch.tensor([[10.0, 0, 0]])
    expected = math.log(1 + 2 * math.exp(-10 * math.sqrt(2)))
    assert head.loss(at_anchor, torch.tensor([0])).item() == pytest.approx(expected, rel=1e-9)
    # At the origin all distances are 10, so log(1 + 2) + 0.1 * 10.
    origin = torch.zeros(1, 3)
    assert head.loss(origin, torch.tensor([2])).item() == pytest.approx(math.log(3) + 1)
    # (3, 4, 0): the squares of the distances are 49 + 16, 9 + 36, 9 + 16 + 100.
    item = torch.tensor([[3.0, 4.0, 0.0]])
    d = [math.sqrt(65), math.sqrt(45), math.sqrt(125)]
    torch.testing.assert_close(head(item)[0], torch.tensor(d, dtype=torch.float64))
    expected = math.log(1 + math.exp(d[0] - d[1]) + math.exp(d[0] - d[2])) + 0.1 * d[0]
    assert head.loss(item, torch.tensor([0])).item() == pytest.approx(expected)
    assert head.predict(item).tolist() == [1]


def test_loss_is_the_mean_over_items_of_every_label():
    """Of a batch with all labels: a wrong choice of the other classes shows for some label only."""
    logits = torch.randn(4, 4, generator=seeded(2), dtype=torch.float64) * 5
    head = CACHead(4)
    alone = [head.loss(logits[i : i + 1], torch.tensor([i])).item() for i in range(4)]
    assert head.loss(logits, torch.arange(4)).item() == pytest.approx(sum(alone) / 4)
    for i in range(4):
        assert alone[i] == pytest.approx(naive_loss(logits[i : i + 1], torch.tensor([i]), 10, 0.1))


def test_gradient_is_finite_on_an_anchor_and_flows_to_half_precision():
    head = CACHead(3)
    logits = torch.tensor([[10.0, 0, 0], [0, 1, 2]], requires_grad=True)
    head.loss(logits, torch.tensor([0, 1])).backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()
    assert logits.grad[1].abs().max() > 0.1
    assert logits.grad.dtype == torch.float32
    assert head.loss(logits.half(), torch.tensor([0, 1])).dtype == torch.float64
    assert not list(head.parameters())


def test_training_moves_the_logits_to_their_anchors():
    logits = nn.Parameter(torch.randn(30, 3, generator=seeded()))
    labels = torch.arange(30) % 3
    head, optimizer = CACHead(3), torch.optim.Adam([logits], lr=0.3)
    for _ in range(200):
        optimizer.zero_grad()
        head.loss(logits, labels).backward()
        optimizer.step()
    assert (logits - head.anchors[labels]).norm(dim=1).max() < 0.5
    assert torch.equal(head.predict(logits), labels)


def test_score_equals_a_naive_loop():
    labels = torch.arange(60) % 4
    noise = 5 * torch.randn(60, 4, generator=seeded(), dtype=torch.float64)
    logits = 7 * nn.functional.one_hot(labels, 4) + noise
    means = []
    for j in range(4):
        rows = [z for z, y in zip(logits.tolist(), labels.tolist(), strict=True) if y == j == z.index(max(z))]
        assert 3 <= len(rows) < 15
        means.append([sum(column) / len(rows) for column in zip(*rows, strict=True)])
    score = fitted(logits, labels)
    items = 6 * torch.randn(25, 4, generator=seeded(1), dtype=torch.float64)
    gammas = [naive_gamma(z, means) for z in items.tolist()]
    torch.testing.assert_close(score.gamma(items), torch.tensor(gammas, dtype=torch.float64))
    torch.testing.assert_close(
        score(as_outputs(items)), torch.tensor([min(gamma) for gamma in gammas], dtype=torch.float64)
    )
    assert score.predict(items).tolist() == [gamma.index(min(gamma)) for gamma in gammas]


def test_score_by_hand():
    score = fitted(torch.tensor([[6.0, 0], [0, 8.0]]), torch.tensor([0, 1]))
    # The origin lies 6 and 8 from the means, softmin = 1 / (1 + e^-2) and 1 / (1 + e^2).
    expected = [6 / (1 + math.exp(2)), 8 / (1 + math.exp(-2))]
    assert score.gamma(torch.zeros(1, 2))[0].tolist() == pytest.approx(expected)
    assert score(as_outputs(torch.zeros(1, 2))).item() == pytest.approx(expected[0])
    assert score(as_outputs(torch.tensor([[6.0, 0]]))).item() == 0


def test_correct_rows_are_those_nearest_to_their_own_anchor():
    logits = 5 * torch.randn(200, 4, generator=seeded(3), dtype=torch.float64)
    assert torch.equal(CACHead(4, alpha=2).predict(logits), logits.argmax(1))


def test_a_class_without_correct_rows_is_named_and_never_the_nearest():
    logits = torch.tensor([[5.0, 0, 0], [6, 0, 1], [0, 5, 0], [4, 0, 1]])
    score = fitted(logits, torch.tensor([0, 0, 1, 2]))
    assert score.missing == (2,)
    items = 5 * torch.randn(40, 3, generator=seeded())
    assert score(as_outputs(items)).isfinite().all()
    assert set(score.predict(items).tolist()) == {0, 1}
    alone = fitted(logits, torch.tensor([0, 0, 2, 2]))
    assert alone.missing == (1, 2)
    torch.testing.assert_close(
        alone(as_outputs(items)), torch.linalg.vector_norm(items - alone.means[0], dim=1).double()
    )


def test_near_a_mean_scores_do_not_tie():
    score = fitted(torch.tensor([[60.0, 0], [0, 60.0]]), torch.tensor([0, 1]))
    near = score(as_outputs(torch.tensor([[60.0, 1], [60.0, 2]])))
    assert 0 < near[0] < near[1]


def test_an_item_does_not_depend_on_its_batch_and_state_travels():
    logits = 5 * torch.randn(50, 3, generator=seeded())
    score = fitted(logits, logits.argmax(1))
    together = score(as_outputs(logits))
    for i in range(0, 50, 7):
        torch.testing.assert_close(score(as_outputs(logits[i : i + 1]))[0], together[i], rtol=1e-13, atol=0)
    assert torch.equal(load_scorer("cac", score.state_dict())(as_outputs(logits)), together)


def test_errors():
    with pytest.raises(ValueError, match="alpha is 0"):
        CACHead(3, alpha=0)
    with pytest.raises(ValueError, match="not fitted"):
        CACScore()(as_outputs(torch.zeros(1, 2)))
    with pytest.raises(ValueError, match="got 2 training rows, none classified correctly"):
        fitted(torch.eye(2), torch.tensor([1, 0]))
