"""The uncertainty head: its layers by hand, its two losses by loop, and what each of them teaches."""

import math

import pytest
import torch

from stillwave.heads.fusion.uncertainty import UncertaintyHead

LOGITS = torch.tensor([[2.0, 1.0], [0.0, 3.0], [1.0, 0.0]])
LABELS = torch.tensor([0, 0, 0])  # the second is wrong
UNCERTAINTY = torch.tensor([0.2, 0.9, 0.4])


def test_equals_its_layers_by_hand():
    torch.manual_seed(0)
    head = UncertaintyHead(5, 4).double()
    for parameter in head.parameters():
        torch.nn.init.normal_(parameter)
    features = torch.randn(3, 5, dtype=torch.float64)
    out = head(features)
    first, _, second, _ = head.layers
    for item in range(3):
        hidden = (first.weight @ features[item] + first.bias).clamp(min=0)
        score = (second.weight @ hidden + second.bias).item()
        assert out[item].item() == pytest.approx(1 / (1 + math.exp(-score)))
    assert out.shape == (3, 1)
    assert sum(p.numel() for p in UncertaintyHead().parameters()) == 256 * 64 + 64 + 64 + 1


def test_losses_equal_their_formulas():
    correct = UncertaintyHead(target="correct").loss(UNCERTAINTY, LOGITS, LABELS)
    assert correct.item() == pytest.approx((0.2 + 0.4) / 3)
    error = UncertaintyHead(target="error").loss(UNCERTAINTY, LOGITS, LABELS)
    assert error.item() == pytest.approx(-(math.log(0.8) + math.log(0.9) + math.log(0.6)) / 3)
    reference = torch.nn.functional.binary_cross_entropy(UNCERTAINTY, torch.tensor([0.0, 1.0, 0.0]))
    torch.testing.assert_close(error, reference)


def test_error_loss_is_finite_at_certainty():
    head = UncertaintyHead(target="error")
    loss = head.loss(torch.tensor([1.0, 0.0, 1.0]), LOGITS, LABELS)
    assert loss.isfinite()
    assert loss > 50


@pytest.mark.parametrize("target", ["correct", "error"])
def test_only_the_seeds_loss_reaches_the_features(target):
    torch.manual_seed(0)
    head = UncertaintyHead(5, 64, target=target)
    features = torch.randn(3, 5, requires_grad=True)
    head.loss(head(features).squeeze(-1), LOGITS, LABELS).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in head.parameters())
    assert (features.grad is not None) == (target == "correct")


@pytest.mark.parametrize("target", ["correct", "error"])
def test_what_is_learned(target):
    """Items with a positive first feature are predicted wrongly: three quarters of them, and no other."""
    torch.manual_seed(0)
    head, features = UncertaintyHead(3, 16, target=target), torch.randn(400, 3)
    logits, labels = torch.tensor([[1.0, 0.0]]).expand(400, 2), torch.zeros(400, dtype=torch.int64)
    labels[(features[:, 0] > 0) & (torch.rand(400) < 0.75)] = 1
    optimizer = torch.optim.Adam(head.parameters(), 0.02)
    for _ in range(200):
        optimizer.zero_grad()
        head.loss(head(features).squeeze(-1), logits, labels).backward()
        optimizer.step()
    uncertainty = head(features)[:, 0]
    clearly = features[:, 0].abs() > 0.3
    wrong = uncertainty[clearly & (features[:, 0] > 0)].mean().item()
    right = uncertainty[clearly & (features[:, 0] < 0)].mean().item()
    assert right < 0.05
    if target == "error":
        assert wrong == pytest.approx(0.75, abs=0.1)
    else:
        assert wrong < 0.2  # certain of its mistakes, too


def test_an_unknown_target_is_refused():
    with pytest.raises(ValueError, match="'wrong'; choose one of correct, error"):
        UncertaintyHead(target="wrong")  # type: ignore[arg-type]
