"""The pooled head: against its parts composed by hand, and the contract that every head keeps."""

from typing import Any, get_args

import pytest
import torch
from torch import Tensor, nn

from stillwave.heads.global_pooling import GlobalPoolingType
from stillwave.heads.pooled import PooledClassifier

HEADS: dict[str, dict[str, Any]] = {
    **{pooling: {"pooling": pooling, "bins": 4} for pooling in get_args(GlobalPoolingType)},
    "layers": {"num_layers": 4, "norm": True},
    "linear": {"hidden": (), "standardise": False},
}


def make(name: str, seed: int = 0) -> PooledClassifier:
    torch.manual_seed(seed)
    head = PooledClassifier(8, 3, **({"hidden": (16, 12)} | HEADS[name])).eval()
    for standardise in head.standardisers:
        standardise.fit([torch.randn(50, *standardise.mean.shape) * 3 + 2])
    return head


def batch(name: str, lengths: list[int], padding: float = 0.0) -> tuple[Tensor, Tensor]:
    layers = HEADS[name].get("num_layers", 1)
    generator = torch.Generator().manual_seed(1)
    shape = (len(lengths), max(lengths), layers, 8) if layers > 1 else (len(lengths), max(lengths), 8)
    frames = torch.randn(shape, generator=generator)
    for item, length in enumerate(lengths):
        frames[item, length:] = padding
    return frames, torch.tensor(lengths)


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("padding", [0.0, 1e4, float("nan")])
def test_logits_do_not_depend_on_the_batch(name: str, padding: float) -> None:
    head = make(name)
    frames, lengths = batch(name, [1, 2, 5, 8, 9, 30], padding)
    together = head(frames, lengths)
    assert together.shape == (6, 3)
    for item, length in enumerate(lengths):
        alone = head(frames[item : item + 1, :length], lengths[item : item + 1])
        torch.testing.assert_close(together[item : item + 1], alone, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", HEADS)
def test_gradients_are_finite_and_padding_reaches_none(name: str) -> None:
    gradients = []
    for padding in (0.0, float("nan")):
        head = make(name)
        head(*batch(name, [1, 4, 20], padding)).square().sum().backward()
        gradients.append({key: parameter.grad for key, parameter in head.named_parameters()})
    for key, gradient in gradients[0].items():
        assert gradient is not None, key
        assert gradient.isfinite().all(), key
        torch.testing.assert_close(gradients[1][key], gradient, msg=key)


@pytest.mark.parametrize("name", HEADS)
def test_state_dict_round_trip_carries_the_statistics(name: str) -> None:
    first, second = make(name, seed=0), make(name, seed=1)
    second.load_state_dict(first.state_dict())
    frames, lengths = batch(name, [12, 3])
    assert torch.equal(first(frames, lengths), second(frames, lengths))


def test_equals_its_parts_composed_by_hand() -> None:
    torch.manual_seed(0)
    head = PooledClassifier(8, 3, num_layers=2, norm=True, hidden=(5,)).double().eval()
    head.standardise.fit([torch.randn(50, 2, 8) + 2])
    frames = torch.randn(11, 2, 8, dtype=torch.float64)
    with torch.no_grad():
        assert head.layer_mix.weights is not None
        head.layer_mix.weights.copy_(torch.tensor([0.3, -1.0]))
        assert isinstance(head.norm, nn.LayerNorm)
        head.norm.weight.normal_()
    first, second = torch.tensor([0.3, -1.0], dtype=torch.float64).softmax(0)
    standard = (frames - head.standardise.mean) / head.standardise.std
    pooled = (first * standard[:, 0] + second * standard[:, 1]).mean(0)
    normed = (pooled - pooled.mean()) / (pooled.var(unbiased=False) + 1e-5).sqrt() * head.norm.weight
    features = (head.mlp[0].weight @ normed + head.mlp[0].bias).relu()
    outputs = head.outputs(frames[None], torch.tensor([11]))
    torch.testing.assert_close(outputs.features[0], features)
    torch.testing.assert_close(outputs.logits[0], head.output.weight @ features + head.output.bias)
    assert outputs.learned_uncertainty is None
    torch.testing.assert_close(head(frames[None], torch.tensor([11])), outputs.logits)


def test_the_default_is_the_described_perceptron() -> None:
    """128 -> 256 -> 128 -> 8, with ReLU and dropout of 0.3 between."""
    head = PooledClassifier(128, 8)
    kinds = [nn.Linear, nn.ReLU, nn.Dropout, nn.Linear, nn.ReLU, nn.Dropout, nn.Linear]
    assert [type(layer) for layer in head.mlp] == kinds
    assert [layer.p for layer in head.mlp if isinstance(layer, nn.Dropout)] == [0.3, 0.3]
    assert sum(p.numel() for p in head.parameters()) == 128 * 256 + 256 + 256 * 128 + 128 + 128 * 8 + 8
    assert len(head.standardisers) == 1


def test_without_standardisation_frames_stay_as_they_are() -> None:
    head = make("linear")
    assert head.standardisers == ()
    frames, lengths = batch("linear", [7])
    torch.testing.assert_close(head.outputs(frames, lengths).features[0], frames[0].mean(0))


def test_dropout_acts_while_training_alone() -> None:
    head = make("mean").train()
    frames, lengths = batch("mean", [7])
    torch.manual_seed(0)
    first, second = head(frames, lengths), head(frames, lengths)
    assert not torch.equal(first, second)
    head.eval()
    assert torch.equal(head(frames, lengths), head(frames, lengths))
