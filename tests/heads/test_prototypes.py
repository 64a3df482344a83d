"""Prototype distances by loop, and the reason of their scale."""

import torch

from stillwave.heads.prototypes import PrototypeMemory


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
