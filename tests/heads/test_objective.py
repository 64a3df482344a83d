from typing import Any

import pytest
import torch
from torch import Tensor

from stillwave.heads.base import Outputs
from stillwave.heads.cac import CACHead
from stillwave.heads.classifier import SegmentClassifier
from stillwave.heads.fusion import FusionClassifier
from stillwave.heads.losses import ClassBalancedFocalLoss, LabelSmoothingCrossEntropy
from stillwave.heads.objective import Objective

COUNTS, CLASS_WEIGHTS = torch.tensor([5, 9, 2]), torch.tensor([1.0, 0.5, 2.0])
WEIGHTS = {
    "cross_entropy": 1.0,
    "focal": 0.3,
    "cac": 0.2,
    "anchor": 0.1,
    "uncertainty": 0.05,
    "prototype": 0.01,
}


@pytest.fixture
def head() -> FusionClassifier:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return FusionClassifier({"audio": 4}, 3, shared_dim=8, num_heads=2, depth=2, base_dim=16).eval()


@pytest.fixture
def batch(head: FusionClassifier) -> tuple[Outputs, Tensor]:
    frames = torch.randn(6, 5, 4, generator=torch.Generator().manual_seed(1))
    return head.outputs(frames, torch.full((6,), 5)), torch.tensor([0, 1, 2, 1, 1, 0])


def test_every_component_is_its_own_loss_and_the_total_their_weighted_sum(
    head: FusionClassifier, batch: tuple[Outputs, Tensor]
) -> None:
    outputs, labels = batch
    objective = Objective(WEIGHTS, COUNTS, CLASS_WEIGHTS, label_smoothing=0.2, focal_gamma=1.5, cac_alpha=7.0)
    losses = objective(head, outputs, labels)
    expected = {
        "cross_entropy": LabelSmoothingCrossEntropy(0.2, CLASS_WEIGHTS)(outputs.logits, labels),
        "focal": ClassBalancedFocalLoss(0.9999, 1.5, COUNTS)(outputs.logits, labels),
        "cac": CACHead(3, 7.0).loss(outputs.logits, labels),
    } | head.losses(outputs, labels)
    assert losses.keys() == WEIGHTS.keys()
    for name, value in losses.items():
        torch.testing.assert_close(value, expected[name], msg=name)
    total = sum(WEIGHTS[name] * expected[name].item() for name in WEIGHTS)
    assert objective.total(losses).item() == pytest.approx(total, rel=1e-6)


def test_a_loss_of_weight_zero_is_not_computed(head: FusionClassifier, batch: tuple[Outputs, Tensor]) -> None:
    outputs, labels = batch

    class Untouchable:
        def losses(self, *_: Any) -> dict[str, Tensor]:
            raise AssertionError

    objective = Objective({"cross_entropy": 1.0, "anchor": 0.0, "focal": 0.0}, COUNTS, CLASS_WEIGHTS)
    assert objective(Untouchable(), outputs, labels).keys() == {"cross_entropy"}


def test_a_loss_that_the_head_does_not_own_is_named(batch: tuple[Outputs, Tensor]) -> None:
    outputs, labels = batch
    segment = SegmentClassifier(4, 3, num_heads=2)
    objective = Objective({"cross_entropy": 1.0, "anchor": 0.1}, COUNTS, CLASS_WEIGHTS)
    with pytest.raises(ValueError, match=r"SegmentClassifier has no losses \['anchor'\]"):
        objective(segment, outputs, labels)


def test_half_precision_outputs_give_fp32_losses_and_gradients_reach_the_head(head: FusionClassifier) -> None:
    frames, lengths = torch.randn(4, 5, 4, generator=torch.Generator().manual_seed(2)), torch.full((4,), 5)
    with torch.autocast("cpu", torch.bfloat16):
        outputs = head.outputs(frames, lengths)
    assert outputs.logits.dtype == torch.bfloat16
    objective = Objective(WEIGHTS, COUNTS, CLASS_WEIGHTS)
    losses = objective(head, outputs, torch.tensor([0, 1, 2, 1]))
    assert {value.dtype for value in losses.values()} <= {torch.float32, torch.float64}
    objective.total(losses).backward()
    assert all(p.grad is not None for p in head.classifier.parameters())
