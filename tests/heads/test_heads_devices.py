"""Heads and open-set scores on each device; and that a head asks a GPU for no number."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from stillwave.heads.augment import FrameAugment
from stillwave.heads.classifier import SegmentClassifier
from stillwave.heads.fusion import FusionClassifier
from stillwave.heads.objective import Objective
from stillwave.heads.open_set import SCORES
from stillwave.heads.personal import Personalised
from stillwave.heads.pooled import PooledClassifier
from stillwave.heads.pooling import SegmentAttentionPooling
from stillwave.heads.statistics_classifier import StatisticsClassifier
from tests.devices import on_a_gpu, on_each_device
from tests.heads.test_open_set import trained

DIM, CLASSES, LENGTHS = 8, 3, [1, 2, 5, 9, 30]
FUSION: dict[str, Any] = {"shared_dim": 8, "num_heads": 2, "depth": 3, "base_dim": 16, "fused_dim": 16}
HEADS: dict[str, Callable[[], nn.Module]] = {
    **{
        f"segment-{kind}": lambda kind=kind: SegmentClassifier(DIM, CLASSES, pooling_type=kind)
        for kind in ("attention", "max", "avg", "learnable")
    },
    "segment-convolutions": lambda: SegmentClassifier(
        DIM, CLASSES, channels=16, strides=(2, 1), mean_removal=0.5
    ),
    **{
        f"pooled-{kind}": lambda kind=kind: PooledClassifier(DIM, CLASSES, pooling=kind)
        for kind in ("mean", "max", "attention", "multi_scale", "attentive", "adaptive")
    },
    "fusion": lambda: FusionClassifier(
        {"audio": DIM, "text": DIM}, CLASSES, strides=(2,), channels=16, modality_dropout=0.3, **FUSION
    ),
    "statistics": lambda: StatisticsClassifier({"frames": DIM}, CLASSES),
    "statistics-parts": lambda: StatisticsClassifier({"a": DIM, "b": DIM}, CLASSES, statistics="mean"),
    "personal": lambda: Personalised(SegmentClassifier(DIM, CLASSES), 4),
}
WEIGHTS = {"cross_entropy": 1.0, "focal": 0.3, "cac": 0.2, "distill": 0.5}
OWN = {"anchor": 0.1, "uncertainty": 0.05, "prototype": 0.01}  # of the fusion head


def inputs_of(name: str, device: str, lengths: list[int] = LENGTHS) -> list[Tensor]:
    """What the head reads of items of these lengths; the third item of a head of two parts has one only."""
    generator = torch.Generator().manual_seed(0)
    frames = torch.randn(len(lengths), max(lengths), DIM, generator=generator)
    inputs = [frames, torch.tensor(lengths)]
    if name in ("fusion", "statistics-parts"):
        inputs += [frames + 1, torch.tensor([0 if i == 2 else n for i, n in enumerate(lengths)])]
    if name == "personal":
        inputs.append(torch.arange(len(lengths)) % 5)
    return [tensor.to(device) for tensor in inputs]


def made(name: str, device: str) -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return HEADS[name]().to(device)


def backward(name: str, head: Any, objective: Objective, inputs: list[Tensor]) -> Tensor:
    """A training step's loss, with its gradients made."""
    labels = torch.zeros(len(LENGTHS), dtype=torch.int64, device=inputs[0].device)
    teacher = torch.zeros(len(LENGTHS), CLASSES, device=inputs[0].device)
    losses = objective(head, head.train().outputs(*inputs), labels, teacher)
    shares = objective.shares(labels[:2], labels)
    loss = objective.total({key: shares[key] * value for key, value in losses.items()})
    loss.backward()
    return loss


def objective_of(name: str, device: str) -> Objective:
    weights = WEIGHTS | (OWN if name == "fusion" else {})
    return Objective(weights, torch.tensor([5, 3, 2]), torch.tensor([0.5, 1.0, 1.5])).to(device)


@on_each_device
@pytest.mark.parametrize("name", HEADS)
def test_outputs_are_the_cpus(name: str, device: str) -> None:
    with torch.no_grad(), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        expected = made(name, "cpu").eval().outputs(*inputs_of(name, "cpu"))
        found = made(name, device).eval().outputs(*inputs_of(name, device))
    for ours, theirs in zip(found, expected, strict=True):
        if theirs is not None:
            assert ours.device.type == device
            torch.testing.assert_close(ours.cpu(), theirs, rtol=1e-4, atol=1e-5)


@on_a_gpu
@pytest.mark.parametrize("name", HEADS)
def test_a_training_step_never_waits_for_the_gpu(name: str, device: str) -> None:
    head, objective, inputs = made(name, device), objective_of(name, device), inputs_of(name, device)
    backward(name, head, objective, inputs)  # what is made at the first call may wait
    torch.cuda.set_sync_debug_mode("error")
    try:
        backward(name, head, objective, inputs)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("name", HEADS)
def test_a_training_step_asks_for_no_number(name: str) -> None:
    """On torch's meta device, which has shapes and no numbers: a GPU's path, without a GPU."""
    head, inputs = made(name, "meta"), inputs_of(name, "meta")
    loss = backward(name, head, objective_of(name, "meta"), inputs)
    assert loss.device.type == "meta"
    augment = FrameAugment(stretch=0.2, time_masks=1, time_mask_frames=4, bands=DIM, warp=0.1, gain=1.0)
    values, lengths = augment(inputs[0], inputs[1], torch.Generator().manual_seed(0))
    assert values.device.type == lengths.device.type == "meta"
    with pytest.raises((RuntimeError, NotImplementedError), match="meta"):
        lengths.max().item()  # what the test relies on


@pytest.mark.parametrize("kind", ["attention", "max", "avg", "learnable"])
def test_segments_as_long_as_they_may_be_pool_to_the_same(kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    pooling = SegmentAttentionPooling(DIM, 4, kind).eval()
    frames, lengths = inputs_of("segment", "cpu")
    with torch.no_grad():
        expected = pooling(frames, lengths)
        monkeypatch.setattr("stillwave.heads.pooling.on_host", lambda tensor: False)
        torch.testing.assert_close(pooling(frames, lengths), expected, rtol=1e-5, atol=1e-6)


def test_stretched_frames_as_long_as_they_may_be_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    augment = FrameAugment(stretch=0.3)
    frames, lengths = inputs_of("segment", "cpu")
    expected, counts = augment(frames, lengths, torch.Generator().manual_seed(0))
    monkeypatch.setattr("stillwave.heads.augment.on_host", lambda tensor: False)
    values, same = augment(frames, lengths, torch.Generator().manual_seed(0))
    assert torch.equal(same, counts)
    assert values.shape[1] >= expected.shape[1]
    for row, count in enumerate(counts.tolist()):
        torch.testing.assert_close(values[row, :count], expected[row, :count])


@on_each_device
@pytest.mark.parametrize("name", SCORES)
def test_scores_are_the_cpus(name: str, device: str) -> None:
    """Fitted there and asked there, and fitted here and moved there."""
    network, train, labels, new = trained()
    expected = SCORES[name]().fit(train, labels, network.output)
    output = nn.Linear(network.output.in_features, network.output.out_features).to(device)
    output.load_state_dict(network.output.state_dict())
    there = [outputs.each(lambda tensor: tensor.to(device)) for outputs in (train, new)]
    fitted = SCORES[name]().fit(there[0], labels.to(device), output)
    for score in (fitted, expected.to(device)):
        found = score(there[1])
        assert found.device.type == device
        torch.testing.assert_close(found.cpu(), expected.to("cpu")(new), rtol=1e-6, atol=1e-6)
        expected.to(device)
