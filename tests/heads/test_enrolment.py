"""Fitting a speaker: its minimum and what is left out of it, and what it learns and keeps."""

import pytest
import torch
from torch import Tensor, nn

from stillwave.heads.classifier import SegmentClassifier
from stillwave.heads.enrolment import fit_speaker, speaker_logits, strangers
from stillwave.heads.personal import Personalised

WIDTH, CLASSES = 6, 3


def plain(seed: int = 0) -> SegmentClassifier:
    torch.manual_seed(seed)
    return SegmentClassifier(4, CLASSES, num_heads=2, hidden=WIDTH).eval().requires_grad_(False)


def personal(seed: int = 0) -> Personalised:
    head = Personalised(plain(seed), 2, dim=3, hidden=8).eval().requires_grad_(False)
    nn.init.normal_(head.up.weight)
    return head


def clips(count: int, seed: int = 1) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return 2 * torch.randn(count, WIDTH, generator=generator), torch.arange(count) % CLASSES


def objective(head, own: dict[str, Tensor], features: Tensor, labels: Tensor, penalty: float):
    """The loss of one speaker, written out."""
    start = strangers(head)
    length = features.double()
    if "vector" in start:
        length = head.moved(features, start["vector"].float().expand(len(features), -1)).double()
        vector = own["vector"].float().expand(len(features), -1)
        features = head.moved(features, vector)
    logits = features.double() @ own["weight"].T + own["bias"]
    far = (own["weight"] - start["weight"]).square().sum() * length.square().sum(1).mean()
    far = far + sum((own[name] - start[name]).square().sum() for name in start if name != "weight")
    return nn.functional.cross_entropy(logits, labels, reduction="sum") + penalty / 2 * far


@pytest.mark.parametrize("penalty", [0.1, 1.0])
def test_each_problem_is_at_its_only_minimum(penalty):
    """Convex without a vector: where the gradient is zero."""
    head, (features, labels) = plain(), clips(5)
    found = fit_speaker(features, labels, head, penalty)
    for left_out in (0, 3, 5):
        kept = [i for i in range(5) if i != left_out]
        own = {name: t[left_out].clone().requires_grad_() for name, t in found.items()}
        loss = objective(head, own, features[kept], labels[kept], penalty)
        for gradient in torch.autograd.grad(loss, list(own.values())):
            assert gradient.abs().max() < 1e-4
        start = objective(head, strangers(head), features[kept], labels[kept], penalty)
        assert loss < start


def test_a_vector_is_fitted_beside_the_output():
    head, (features, labels) = personal(), clips(6)
    found = fit_speaker(features, labels, head, 0.3)
    assert {name: tuple(t.shape) for name, t in found.items()} == {
        "weight": (7, CLASSES, WIDTH), "bias": (7, CLASSES), "vector": (7, 3),
    }  # fmt: skip
    own = {name: t[-1] for name, t in found.items()}
    loss = objective(head, own, features, labels, 0.3)
    assert loss < 0.9 * objective(head, strangers(head), features, labels, 0.3)
    for name, shared in strangers(head).items():  # each of them is worse where it was
        assert loss < objective(head, own | {name: shared}, features, labels, 0.3) - 1e-3


def test_a_clip_left_out_changes_nothing_of_its_own_problem():
    """Or the accuracy that `enroll` reports would be that of clips it was given."""
    head, (features, labels) = plain(), clips(4)
    first = fit_speaker(features, labels, head, 0.3)
    flipped = labels.clone()
    flipped[2] = (labels[2] + 1) % CLASSES
    second = fit_speaker(features, flipped, head, 0.3)
    torch.testing.assert_close(first["weight"][2], second["weight"][2], rtol=1e-4, atol=1e-5)
    assert not torch.allclose(first["weight"][0], second["weight"][0], rtol=1e-2, atol=1e-3)
    assert not torch.allclose(first["weight"][-1], second["weight"][-1], rtol=1e-2, atol=1e-3)


def test_the_scale_of_the_features_does_not_matter():
    head, (features, labels) = plain(), clips(5)
    found = speaker_logits(features, head, fit_speaker(features, labels, head, 0.3))
    large = plain()
    large.output.weight.mul_(0.01)
    scaled = speaker_logits(100 * features, large, fit_speaker(100 * features, labels, large, 0.3))
    torch.testing.assert_close(scaled, found, rtol=1e-3, atol=1e-3)


def test_a_high_penalty_keeps_the_shared_head():
    head, (features, labels) = personal(), clips(5)
    found = fit_speaker(features, labels, head, 1e6)
    for name, tensor in strangers(head).items():
        torch.testing.assert_close(found[name][-1], tensor, rtol=1e-3, atol=1e-4)


def test_logits_are_those_of_the_head_with_the_speaker_put_in():
    head, (features, labels) = personal(), clips(5)
    found = fit_speaker(features, labels, head, 0.3)
    own = {name: t[-1] for name, t in found.items()}
    moved = head.moved(features, own["vector"].float().expand(5, -1))
    expected = moved @ own["weight"].float().T + own["bias"].float()
    logits = speaker_logits(features, head, {name: t[None] for name, t in own.items()})[0]
    torch.testing.assert_close(logits.float(), expected, rtol=1e-4, atol=1e-4)


def test_the_head_is_left_as_it_was():
    head, (features, labels) = personal(), clips(5)
    before = {name: t.clone() for name, t in head.state_dict().items()}
    head.requires_grad_(True)
    fit_speaker(features, labels, head, 0.3)
    assert all(torch.equal(t, before[name]) for name, t in head.state_dict().items())
    assert all(p.grad is None for p in head.parameters())
