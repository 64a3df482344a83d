"""The linear head on statistics: its numbers by NumPy, and the contract that every head keeps."""

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from stillwave.heads.layers import layer_weights
from stillwave.heads.statistics_classifier import StatisticsClassifier

DIMS = {"whisper": 4, "fbank": 6, "text": 3}
LAYERS = {"whisper": 5, "text": 1}  # fbank: 1, as it is not named
HEADS: dict[str, dict[str, Any]] = {
    "mean": {"dims": {"frames": 6}, "statistics": "mean"},
    "mean_std": {"dims": {"frames": 6}},
    "layers": {"dims": {"frames": 4}, "num_layers": {"frames": 5}, "statistics": "mean"},
    "parts": {"dims": DIMS, "num_layers": LAYERS},
    "parts-mean": {"dims": DIMS, "num_layers": LAYERS, "statistics": "mean"},
}
LENGTHS = [1, 2, 5, 9, 30]


def make(name: str, seed: int = 0) -> StatisticsClassifier:
    """With weights and statistics as after training."""
    generator = torch.Generator().manual_seed(seed)
    options = dict(HEADS[name])
    head = StatisticsClassifier(options.pop("dims"), 3, **options).eval()
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    for standardise in head.standardisers:
        standardise.fit([torch.randn(50, *standardise.mean.shape, generator=generator) * 3 + 2])
    return head


def batch(name: str, lengths: list[int] = LENGTHS, padding: float = 0.0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    inputs = []
    for part, dim in HEADS[name]["dims"].items():
        layers = HEADS[name].get("num_layers", {}).get(part, 1)
        shape = (layers, dim) if layers > 1 else (dim,)
        frames = torch.randn(len(lengths), max(lengths), *shape, generator=generator)
        for item, length in enumerate(lengths):
            frames[item, length:] = padding
        inputs += [frames, torch.tensor(lengths)]
    return inputs


def test_numbers_are_numpys() -> None:
    """Mean and deviation (n - 1) per layer, standardised and limited, times the weights and the scale."""
    head, inputs = make("parts"), batch("parts")
    inputs[::2] = [20 * frames for frames in inputs[::2]]  # some of the statistics are at the limit
    found = head.outputs(*inputs)
    weights = layer_weights(head)
    assert weights.keys() == {"layer_mix.whisper"}
    total = 5 * 2 * 4 + 2 * 6 + 2 * 3
    for item, length in enumerate(LENGTHS):
        features: list[NDArray[Any]] = []
        for number, (name, dim) in enumerate(DIMS.items()):
            frames = inputs[2 * number][item, :length].numpy()
            deviation = frames.std(0, ddof=1) if length > 1 else np.zeros_like(frames[0])
            both = np.concatenate([frames.mean(0), deviation], -1)
            standardise = head.standardisers[number]
            block = ((both - standardise.mean.numpy()) / standardise.std.numpy()).clip(-3, 3)
            assert 0 < (np.abs(block) == 3).sum() < block.size
            if name == "whisper":
                learned = np.exp(head.layer_mix["whisper"].weights.detach().numpy())
                block = block * (5 * learned / learned.sum())[:, None]
            features.append(block.ravel() * np.sqrt(total / (3 * LAYERS.get(name, 1) * 2 * dim)))
        expected = np.concatenate(features)
        np.testing.assert_allclose(found.features[item].detach().numpy(), expected, rtol=1e-4, atol=1e-4)
        logits = head.output.weight.detach().numpy() @ expected + head.output.bias.detach().numpy()
        np.testing.assert_allclose(found.logits[item].detach().numpy(), logits, rtol=1e-4, atol=1e-3)
    assert found.learned_uncertainty is None


def test_a_statistic_that_hardly_varied_in_training_cannot_decide_alone() -> None:
    """Positions are encoded in frames: their mean depends on nothing but the length of the clip."""
    position = torch.arange(60.0)[:, None] / 60

    def frames(length: int, seed: int) -> Tensor:
        speech = torch.randn(8, length, 3, generator=torch.Generator().manual_seed(seed))
        return torch.cat([speech, position[:length].expand(8, -1, -1)], -1)

    head = StatisticsClassifier({"frames": 4}, 3, statistics="mean").eval()
    training = head.summarise(frames(40, 0), torch.full((8,), 40))[0][:, 0]
    training[:, 3] += 1e-6 * torch.randn(8, generator=torch.Generator().manual_seed(1))  # rounding
    head.standardisers[0].fit([training])
    values, lengths = frames(50, 2), torch.full((8,), 50)
    features = head.outputs(values, lengths).features
    expected = (values.mean(1) - head.standardisers[0].mean) / head.standardisers[0].std
    assert expected[:, 3].min() > 1e4
    assert features[:, 3].tolist() == [3.0] * 8
    torch.testing.assert_close(features[:, :3], expected[:, :3])


def test_every_part_has_the_same_share_of_standardised_features() -> None:
    """Whatever their widths and numbers of layers; together as large as without scales."""
    head = StatisticsClassifier(DIMS, 3, num_layers=LAYERS).eval()
    summaries: list[Tensor] = []
    for standardise in head.standardisers:
        summaries += [torch.ones(1, 1, *standardise.mean.shape), torch.ones(1, dtype=torch.int64)]
    features = head.outputs(*summaries).features[0]
    shares = [block.square().sum().item() for block in features.split([40, 12, 6])]
    assert shares == pytest.approx([58 / 3] * 3)


@pytest.mark.parametrize("name", HEADS)
def test_summaries_are_read_as_the_frames_are_and_stay_as_they_are(name: str) -> None:
    head, inputs = make(name), batch(name)
    summaries = head.summarise(*inputs)
    for tensor, lengths in zip(summaries[::2], summaries[1::2], strict=True):
        assert tensor.shape[:2] == (len(LENGTHS), 1)
        assert lengths.tolist() == [1] * len(LENGTHS)
    for once, twice in zip(summaries, head.summarise(*summaries), strict=True):
        assert torch.equal(once, twice)
    for ours, theirs in zip(head.outputs(*summaries)[:2], head.outputs(*inputs)[:2], strict=True):
        assert torch.equal(ours, theirs)
    speakers = torch.arange(len(LENGTHS))
    assert head.summarise(*inputs, speakers)[-1] is speakers


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("padding", [0.0, 1e4, float("nan")])
def test_logits_do_not_depend_on_the_batch(name: str, padding: float) -> None:
    head, inputs = make(name), batch(name, padding=padding)
    together = head(*inputs)
    for item, length in enumerate(LENGTHS):
        alone = [tensor[item : item + 1] for tensor in inputs]
        alone[::2] = [frames[:, :length] for frames in alone[::2]]
        torch.testing.assert_close(together[item : item + 1], head(*alone), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["parts", "parts-mean"])
def test_a_part_that_is_absent_adds_nothing_and_has_finite_gradients(name: str) -> None:
    head, inputs = make(name).train(), batch(name, padding=float("nan"))
    head.dropout.p = 0.0
    inputs[2][1] = torch.nan  # the second item lacks fbank
    inputs[3][1] = 0
    outputs = head.outputs(*inputs)
    widths = [standardise.mean.numel() for standardise in head.standardisers]
    absent = outputs.features.split(widths, 1)[1][1]
    assert torch.equal(absent, torch.zeros_like(absent))
    whole = head.outputs(*batch(name)).features
    other = [block[1] for number, block in enumerate(whole.split(widths, 1)) if number != 1]
    kept = [block[1] for number, block in enumerate(outputs.features.split(widths, 1)) if number != 1]
    torch.testing.assert_close(kept, other)
    outputs.logits.square().sum().backward()
    for key, parameter in head.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.isfinite().all(), key


@pytest.mark.parametrize("name", HEADS)
def test_no_frames_at_all_are_only_the_bias(name: str) -> None:
    """A frame axis of 0, which no store gives but a caller may."""
    head = make(name)
    inputs = [tensor[:2, :0] if tensor.ndim > 1 else 0 * tensor[:2] for tensor in batch(name)]
    assert torch.equal(head(*inputs), head.output.bias.expand(2, -1))


@pytest.mark.parametrize("name", HEADS)
def test_it_starts_at_zero_logits_equal_layers_and_one_standardiser_a_part(name: str) -> None:
    options = dict(HEADS[name])
    head = StatisticsClassifier(options.pop("dims"), 3, **options)
    assert torch.equal(head(*batch(name)), torch.zeros(len(LENGTHS), 3))
    assert len(head.standardisers) == len(HEADS[name]["dims"])
    for weights in layer_weights(head).values():
        assert weights.tolist() == pytest.approx([1 / len(weights)] * len(weights))


@pytest.mark.parametrize("name", HEADS)
def test_state_dict_round_trip_carries_the_statistics(name: str) -> None:
    first, second = make(name, seed=0), make(name, seed=1)
    inputs = batch(name)
    assert not torch.equal(first(*inputs), second(*inputs))
    second.load_state_dict(first.state_dict())
    assert torch.equal(first(*inputs), second(*inputs))


def test_half_precision_frames_are_summed_in_single() -> None:
    head = make("mean")
    frames = torch.full((1, 3000, 6), 100.0, dtype=torch.float16)  # their sum is above 65,504
    assert head.summarise(frames, torch.tensor([3000]))[0].tolist() == [[[100.0] * 6]]


def test_errors() -> None:
    with pytest.raises(ValueError, match="dims name no part"):
        StatisticsClassifier({}, 3)
    with pytest.raises(ValueError, match=r"parts \['keys', 'training'\]: .*rename the stores"):
        StatisticsClassifier({"keys": 2, "fbank": 2, "training": 2}, 3)
    with pytest.raises(ValueError, match="got 2 tensors; this head reads frames and lengths of 3 parts"):
        make("parts").outputs(*batch("mean"))
