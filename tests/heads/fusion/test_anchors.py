"""Learnable anchors: cosines and cross-entropy by loop, and where the anchors start and go."""

import math

import pytest
import torch

from stillwave.heads.fusion.anchors import TEMPERATURE, ClassAnchorClustering, PrototypeMemory


def make() -> ClassAnchorClustering:
    torch.manual_seed(0)
    module = ClassAnchorClustering(6, 3, 5).double()
    torch.nn.init.normal_(module.anchors)
    torch.nn.init.normal_(module.projection.bias)
    return module


def test_similarities_and_loss_equal_a_loop():
    module = make()
    with torch.no_grad():
        module.log_temperature.fill_(math.log(0.3))
    features, labels = torch.randn(4, 6, dtype=torch.float64), torch.tensor([2, 0, 1, 2])
    similarities, losses = module(features), []
    for item, label in enumerate(labels):
        point = module.projection.weight @ features[item] + module.projection.bias
        row = []
        for anchor in module.anchors:
            cosine = (point @ anchor) / (point.square().sum().sqrt() * anchor.square().sum().sqrt())
            row.append(cosine / 0.3)
        torch.testing.assert_close(similarities[item], torch.stack(row))
        losses.append(sum(s.exp() for s in row).log() - row[label])
    torch.testing.assert_close(module.loss(features, labels), sum(losses) / 4)


def test_similarities_ignore_the_scale_of_projection_and_anchors():
    module, features = make(), torch.randn(2, 6, dtype=torch.float64)
    before = module(features)
    with torch.no_grad():
        module.anchors.mul_(7)
        module.projection.weight.mul_(3)
        module.projection.bias.mul_(3)
    torch.testing.assert_close(module(features), before)


@pytest.mark.parametrize(("wanted", "held"), [(1e-9, 0.01), (1e9, 1.0), (0.5, 0.5)])
def test_the_temperature_is_held_within_its_bounds(wanted, held):
    module = make()
    with torch.no_grad():
        module.log_temperature.fill_(math.log(wanted))
    assert module.temperature.item() == pytest.approx(held)
    assert module(torch.randn(9, 6).double()).abs().max() <= 1 / held * (1 + 1e-9)


def test_anchors_start_orthogonal_and_every_parameter_gets_a_gradient():
    module = ClassAnchorClustering()
    assert module.anchors.shape == (4, 128)
    torch.testing.assert_close(module.anchors @ module.anchors.T, torch.eye(4))
    assert module.temperature.item() == pytest.approx(TEMPERATURE)
    module.loss(torch.rand(8, 256), torch.arange(8) % 4).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in module.parameters())
    assert sum(p.numel() for p in module.parameters()) == 256 * 128 + 128 + 4 * 128 + 1


def test_a_step_pulls_to_the_own_anchor_and_pushes_from_the_others():
    module = make()
    features = torch.randn(1, 6, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(module.loss(features, torch.tensor([1])), features)
    before, after = module(features)[0], module(features - 0.01 * gradient)[0]
    assert after[1] > before[1]
    others = torch.tensor([0, 2])
    assert after[others].logsumexp(0) < before[others].logsumexp(0)


@pytest.mark.parametrize("beyond", [-9.0, 3.0])
def test_a_temperature_beyond_a_bound_comes_back_in_training(beyond):
    module = make().train()
    with torch.no_grad():
        module.log_temperature.fill_(beyond)
    features, labels = (
        torch.randn(9, 6, generator=torch.Generator().manual_seed(0)).double(),
        torch.arange(9) % 3,
    )
    module.loss(features, labels).backward()
    slope = module.log_temperature.grad.item()
    with torch.no_grad():
        module.log_temperature.fill_(math.log(0.01) if beyond < 0 else 0.0)
        module.log_temperature.grad = None
    module.loss(features, labels).backward()
    assert slope == pytest.approx(module.log_temperature.grad.item())  # as at the bound
    assert slope != 0


def test_distances_and_loss_equal_a_loop():
    torch.manual_seed(0)
    memory = PrototypeMemory(9, 3).double()
    features, labels = torch.randn(4, 9, dtype=torch.float64), torch.tensor([0, 2, 1, 1])
    distances, losses = memory(features), []
    for item, label in enumerate(labels):
        row = [
            -sum((f - p) ** 2 for f, p in zip(features[item], q, strict=True)) / 3 for q in memory.prototypes
        ]
        torch.testing.assert_close(distances[item], torch.stack(row))
        losses.append(sum(s.exp() for s in row).log() - row[label])
    torch.testing.assert_close(memory.prototype_loss(features, labels), sum(losses) / 4)


def test_the_softmax_is_as_decided_at_256_dimensions_as_at_16():
    generator = torch.Generator().manual_seed(0)
    spreads = []
    for dim in (16, 256):
        memory = PrototypeMemory(dim, 50)
        with torch.no_grad():  # all as long as each other, so that only the direction makes a difference
            memory.prototypes.normal_(generator=generator)
            memory.prototypes *= dim**0.5 / memory.prototypes.norm(dim=1, keepdim=True)
        spreads.append(memory(torch.randn(200, dim, generator=generator)).std(1).mean().item())
    assert all(1.6 < spread < 2.4 for spread in spreads)  # 2 f.p / sqrt(dim) has the deviation 2


def test_learning_brings_prototypes_to_their_classes():
    torch.manual_seed(0)
    memory = PrototypeMemory(16, 3)
    centres = 2 * torch.eye(3, 16)
    labels = torch.arange(30) % 3
    features = centres[labels] + 0.1 * torch.randn(30, 16)
    optimizer = torch.optim.Adam(memory.parameters(), 0.05)
    for _ in range(100):
        optimizer.zero_grad()
        memory.prototype_loss(features, labels).backward()
        optimizer.step()
    assert torch.equal(memory(features).argmax(1), labels)
    assert memory.prototype_loss(features, labels) < 0.2


def test_features_and_prototypes_get_gradients():
    memory = PrototypeMemory(256, 4)
    features = torch.rand(6, 256, requires_grad=True)
    memory.prototype_loss(features, torch.arange(6) % 4).backward()
    assert memory.prototypes.shape == (4, 256)
    assert features.grad.abs().sum(1).gt(0).all()
    assert memory.prototypes.grad.abs().sum(1).gt(0).all()
