import math

import pytest
import torch

from stillwave.heads.distillation import SoftTargetLoss


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
