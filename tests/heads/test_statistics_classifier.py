"""The statistics head: against NumPy, and the contract that every head keeps."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from stillwave.heads.statistics_classifier import StatisticsClassifier

DIMS = {"speech": 4, "text": 6}
LAYERS = {"speech": 3}
HEADS: dict[str, dict[str, Any]] = {"mean": {"statistics": "mean"}, "mean_std": {}}


def make(name: str) -> StatisticsClassifier:
    torch.manual_seed(0)
    head = StatisticsClassifier(DIMS, 3, num_layers=LAYERS, **HEADS[name]).eval()
    for standardise in head.standardisers:
        standardise.fit([torch.randn(50, *standardise.mean.shape) * 3 + 2])
    for parameter in head.parameters():  # it starts at zero
        torch.nn.init.normal_(parameter)
    return head


def batch(speech: list[int], text: list[int], padding: float = 0.0) -> tuple[Tensor, ...]:
    """Frames with `padding` beyond each length, and the lengths."""
    generator = torch.Generator().manual_seed(1)
    found: list[Tensor] = []
    for shape, lengths in (((3, 4), speech), ((6,), text)):
        frames = torch.full((len(lengths), max(lengths), *shape), padding)
        for item, length in enumerate(lengths):
            frames[item, :length] = torch.randn(length, *shape, generator=generator)
        found += [frames, torch.tensor(lengths)]
    return tuple(found)


@pytest.mark.parametrize("name", HEADS)
def test_equals_numpy(name: str) -> None:
    head, inputs = make(name), batch([5, 9], [2, 4])
    weights = head.layer_mix["speech"].weights.detach().double().softmax(0).numpy() * 3
    widths = [3 * 4, 6] if name == "mean" else [6 * 4, 12]
    blocks = []
    for part, (standardise, width) in enumerate(zip(head.standardisers, widths, strict=True)):
        rows = []
        for frames, length in zip(*inputs[2 * part : 2 * part + 2], strict=True):
            valid = frames[:length].double().numpy()
            statistics = valid.mean(0)
            if name == "mean_std":
                statistics = np.concatenate([statistics, valid.std(0, ddof=1)], -1)
            rows.append((statistics - standardise.mean.numpy()) / standardise.std.numpy())
        block = np.stack(rows)
        if part == 0:
            block = block * weights[:, None]
        blocks.append(block.reshape(2, -1) * np.sqrt(sum(widths) / (2 * width)))
    expected = np.concatenate(blocks, 1)
    found = head.outputs(*inputs)
    np.testing.assert_allclose(found.features.detach(), expected, rtol=1e-4, atol=1e-5)
    logits = expected @ head.output.weight.detach().numpy().T + head.output.bias.detach().numpy()
    np.testing.assert_allclose(found.logits.detach(), logits, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", HEADS)
def test_summaries_give_the_same_logits_and_stay_as_they_are(name: str) -> None:
    head, inputs = make(name), batch([5, 0, 9], [2, 4, 0], float("nan"))
    summaries = head.summarise(*inputs, torch.tensor([7, 8, 9]))
    assert [tensor.shape[1] for tensor in summaries[:4:2]] == [1, 1]
    assert [lengths.tolist() for lengths in summaries[1:4:2]] == [[1, 0, 1], [1, 1, 0]]
    assert summaries[4].tolist() == [7, 8, 9]
    for again, once in zip(head.summarise(*summaries), summaries, strict=True):
        torch.testing.assert_close(again, once)
    torch.testing.assert_close(head(*summaries[:4]), head(*inputs))


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("padding", [0.0, 1e4, float("nan")])
def test_logits_do_not_depend_on_the_batch(name: str, padding: float) -> None:
    head, speech, text = make(name), [1, 5, 30, 7], [3, 0, 8, 1]
    inputs = batch(speech, text, padding)
    together = head(*inputs)
    for item in range(4):
        alone = [tensor[item : item + 1] for tensor in inputs]
        alone[0], alone[2] = alone[0][:, : speech[item]], alone[2][:, : text[item]]
        torch.testing.assert_close(together[item : item + 1], head(*alone), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", HEADS)
def test_an_absent_part_adds_nothing_and_gradients_are_finite(name: str) -> None:
    head, inputs = make(name), batch([5, 0], [0, 4], float("nan"))
    features = head.outputs(*inputs).features
    speech = features.shape[1] * 2 // 3
    assert features[1, :speech].abs().sum() == 0
    assert features[0, speech:].abs().sum() == 0
    head(*inputs).square().sum().backward()
    for key, parameter in head.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.isfinite().all(), key


def test_it_starts_at_zero_with_equal_layer_weights() -> None:
    head = StatisticsClassifier(DIMS, 3, num_layers=LAYERS).eval()
    assert head(*batch([5, 9], [2, 4])).abs().sum() == 0
    assert head.layer_mix["speech"].weights.tolist() == [0, 0, 0]
    assert head.layer_mix["text"].weights is None


def test_errors() -> None:
    with pytest.raises(ValueError, match="name at least one"):
        StatisticsClassifier({}, 3)
    with pytest.raises(ValueError, match="got 2 tensors; this head reads frames and lengths of 2 parts"):
        make("mean")(*batch([5], [2])[:2])
