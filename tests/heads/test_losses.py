"""Losses against naive float64 loops, values worked by hand, and torch's own where they coincide."""

import math

import pytest
import torch
from torch import Tensor

from stillwave.heads.losses import (
    ClassBalancedFocalLoss,
    LabelSmoothingCrossEntropy,
    SoftTargetLoss,
    prior_bias,
)


def batch(rows: int = 23, classes: int = 4) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(rows, classes, generator=generator, dtype=torch.float64)
    return logits, torch.randint(classes, (rows,), generator=generator)


def softmax(row: list[float]) -> list[float]:
    total = sum(math.exp(z) for z in row)
    return [math.exp(z) / total for z in row]


def sigmoid(z: float) -> float:
    return 1 / (1 + math.exp(-z))


def balanced_weights(counts: list[int], beta: float) -> list[float]:
    raw = [(1 - beta) / (1 - beta**n) for n in counts]
    return [len(counts) * w / sum(raw) for w in raw]


def naive_focal(logits: Tensor, labels: Tensor, weights: list[float], gamma: float, kind: str) -> float:
    total = 0.0
    for row, label in zip(logits.tolist(), labels.tolist(), strict=True):
        if kind == "softmax":
            p = softmax(row)[label]
            total += weights[label] * -((1 - p) ** gamma) * math.log(p)
        else:
            for c, z in enumerate(row):
                p = sigmoid(z) if c == label else 1 - sigmoid(z)
                total += weights[label] * -((1 - p) ** gamma) * math.log(p)
    return total / len(logits)


@pytest.mark.parametrize("weight", [None, [0.5, 1.0, 2.0, 0.1]])
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.4])
def test_label_smoothing_equals_a_loop(smoothing, weight):
    logits, labels = batch()
    loss = LabelSmoothingCrossEntropy(smoothing, None if weight is None else torch.tensor(weight).double())
    weights, total, norm = weight or [1.0] * 4, 0.0, 0.0
    for row, label in zip(logits.tolist(), labels.tolist(), strict=True):
        for c, p in enumerate(softmax(row)):
            target = smoothing / 4 + (1 - smoothing) * (c == label)
            total -= weights[c] * target * math.log(p)
        norm += weights[label]
    assert loss(logits, labels).item() == pytest.approx(total / norm, rel=1e-10)


def test_label_smoothing_by_hand():
    # uniform logits: every class has 1/4, so the loss is log 4 whatever the smoothing
    zeros, labels = torch.zeros(3, 4), torch.tensor([0, 1, 3])
    assert LabelSmoothingCrossEntropy(0.3)(zeros, labels).item() == pytest.approx(math.log(4))
    # odds 3 : 1 for the label, smoothing 0.2: -(0.9 log 0.75 + 0.1 log 0.25)
    logits = torch.tensor([[math.log(3.0), 0.0]])
    expected = -(0.9 * math.log(0.75) + 0.1 * math.log(0.25))
    assert LabelSmoothingCrossEntropy(0.2)(logits, torch.tensor([0])).item() == pytest.approx(expected)


@pytest.mark.parametrize("kind", ["softmax", "sigmoid"])
@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0, 5.0])
@pytest.mark.parametrize("beta", [0.0, 0.9, 0.9999])
def test_focal_equals_a_loop(beta, gamma, kind):
    logits, labels = batch()
    counts = [500, 40, 7, 1]
    loss = ClassBalancedFocalLoss(beta, gamma, counts, kind).double()
    expected = naive_focal(logits, labels, balanced_weights(counts, beta), gamma, kind)
    assert loss(logits, labels).item() == pytest.approx(expected, rel=1e-6)  # weights are float32


def test_focal_by_hand():
    logits, label = torch.tensor([[math.log(3.0), 0.0]], dtype=torch.float64), torch.tensor([0])
    # equal counts: weights 1. softmax: p = 3/4. sigmoid: p = 3/4 for the label, 1/2 for the other class
    loss = ClassBalancedFocalLoss(counts=[5, 5], gamma=2.0)
    assert loss(logits, label).item() == pytest.approx(-(0.25**2) * math.log(0.75), rel=1e-12)
    loss = ClassBalancedFocalLoss(counts=[5, 5], gamma=2.0, kind="sigmoid")
    expected = -(0.25**2) * math.log(0.75) - 0.5**2 * math.log(0.5)
    assert loss(logits, label).item() == pytest.approx(expected, rel=1e-12)


def test_weights_by_hand_and_at_both_ends_of_beta():
    # beta = 1/2: effective numbers 2(1 - 2^-n) of 1 and 2 rows are 1 and 1.5
    weight = ClassBalancedFocalLoss(counts=[1, 2], beta=0.5).weight
    assert weight.tolist() == pytest.approx([2 * 1 / (1 + 2 / 3), 2 * (2 / 3) / (1 + 2 / 3)])
    assert ClassBalancedFocalLoss(counts=[1, 900], beta=0.0).weight.tolist() == [1, 1]
    inverse = ClassBalancedFocalLoss(
        beta=1 - 1e-12, counts=[1, 3, 4]
    ).weight  # naively 1 - beta^n is mostly rounding
    assert inverse.tolist() == pytest.approx([3 / (1 + 1 / 3 + 1 / 4) / n for n in (1, 3, 4)], rel=1e-6)


def test_gamma_zero_is_weighted_cross_entropy():
    logits, labels = batch()
    counts = [500, 40, 7, 1]
    soft = ClassBalancedFocalLoss(counts=counts, gamma=0.0)
    weight = soft.weight.double()
    each = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
    torch.testing.assert_close(soft(logits, labels), (weight[labels] * each).mean())
    torch.testing.assert_close(
        soft(logits, labels) * len(labels),
        torch.nn.functional.cross_entropy(logits, labels, weight, reduction="sum"),
    )
    binary = ClassBalancedFocalLoss(counts=counts, gamma=0.0, kind="sigmoid")
    target = torch.nn.functional.one_hot(labels, 4).double()
    each = torch.nn.functional.binary_cross_entropy_with_logits(logits, target, reduction="none").sum(1)
    torch.testing.assert_close(binary(logits, labels), (weight[labels] * each).mean())


@pytest.mark.parametrize("kind", ["softmax", "sigmoid"])
@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("size", [0.0, 1e4, 1e30])
def test_gradients_are_finite_with_extreme_logits(size, gamma, kind):
    logits = torch.tensor([[size, -size, 0.0], [-size, size, size]], requires_grad=True)
    loss = ClassBalancedFocalLoss(counts=[3, 3, 3], gamma=gamma, kind=kind)(logits, torch.tensor([0, 0]))
    loss.backward()
    assert loss.isfinite()
    assert logits.grad.isfinite().all()
    if size:  # the first row is right for certain, the second one wrong, and pushed with its full weight
        assert logits.grad[0].abs().max() <= (0.5 if kind == "sigmoid" else 1e-6)
        assert logits.grad[1, 0].item() == pytest.approx(-0.5)


@pytest.mark.parametrize("kind", ["softmax", "sigmoid"])
def test_gradients_equal_finite_differences(kind):
    logits, labels = batch(5, 3)
    loss = ClassBalancedFocalLoss(counts=[9, 2, 4], kind=kind).double()
    torch.autograd.gradcheck(lambda x: loss(x, labels), logits.requires_grad_())


def test_half_precision_is_widened():
    logits, labels = batch()
    for loss in (LabelSmoothingCrossEntropy(), ClassBalancedFocalLoss(counts=[5, 6, 7, 8])):
        coarse = logits.to(torch.bfloat16)
        out = loss(coarse, labels)
        assert out.dtype == torch.float32
        torch.testing.assert_close(out, loss(coarse.float(), labels))


def test_the_prior_bias_starts_every_sigmoid_at_one_in_classes():
    bias = prior_bias(5)
    assert sigmoid(bias) == pytest.approx(1 / 5)


def test_errors_name_value_and_bound():
    with pytest.raises(ValueError, match=r"without training rows: 1, 3 \(counts \[5, 0, 2, 0\]\)"):
        ClassBalancedFocalLoss(counts=[5, 0, 2, 0])
    with pytest.raises(ValueError, match=r"beta is 1\.0; it must be at least 0 and below 1"):
        ClassBalancedFocalLoss(counts=[5, 5], beta=1.0)
    with pytest.raises(ValueError, match="gamma is -1"):
        ClassBalancedFocalLoss(counts=[5, 5], gamma=-1)
    with pytest.raises(ValueError, match="kind is 'hinge'; choose one of softmax, sigmoid"):
        ClassBalancedFocalLoss(counts=[5, 5], kind="hinge")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="for each of 2 classes or more"):
        ClassBalancedFocalLoss(counts=[5])
    with pytest.raises(ValueError, match=r"smoothing is 1\.0"):
        LabelSmoothingCrossEntropy(1.0)


def test_the_loss_is_the_divergence_at_the_temperature_times_its_square() -> None:
    """Two classes and T = 2: log-odds of 2 log 3 are 3 : 1 there, of 0 they are 1 : 1."""
    teacher, student = torch.tensor([[2 * math.log(3), 0.0]]), torch.tensor([[5.0, 5.0]])
    divergence = 0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5)
    assert SoftTargetLoss(2.0)(student, teacher).item() == pytest.approx(4 * divergence, rel=1e-6)


def test_it_is_zero_where_both_agree_and_sees_no_constant_of_a_row() -> None:
    logits = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    loss = SoftTargetLoss(3.0)
    assert abs(loss(logits, logits + torch.arange(5.0)[:, None]).item()) < 1e-6
    assert loss(logits, logits.flip(0)).item() > 0.1


def test_the_gradient_does_not_shrink_with_the_temperature() -> None:
    """In the limit it is (z - v) / classes of centred logits z and v, by Hinton et al., equation 4."""
    generator = torch.Generator().manual_seed(1)
    student, teacher = (torch.randn(1, 4, generator=generator, dtype=torch.float64) for _ in range(2))
    student, teacher = student - student.mean(), teacher - teacher.mean()
    student.requires_grad_()
    SoftTargetLoss(1e4)(student, teacher).backward()
    torch.testing.assert_close(student.grad, (student.detach() - teacher) / 4, rtol=1e-3, atol=1e-5)


def test_a_temperature_of_zero_is_refused() -> None:
    with pytest.raises(ValueError, match="temperature is 0; it must be above 0"):
        SoftTargetLoss(0)
