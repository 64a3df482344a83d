"""Every global pooling against torch on one item at a time, and what padding and single frames do."""

import math
from typing import get_args

import pytest
import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool1d

from stillwave.heads.global_pooling import GlobalPooling, GlobalPoolingType
from stillwave.heads.statistics import AttentiveStatsPooling

DIM, BINS = 6, 4
LENGTHS = [9, 1, 5, 2, 12]


def make(pooling: GlobalPoolingType) -> GlobalPooling:
    torch.manual_seed(0)
    return GlobalPooling(DIM, pooling, BINS).double()


def make_frames(padding: float = math.nan) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    frames = torch.randn(len(LENGTHS), 15, DIM, dtype=torch.float64, generator=generator) - 3
    for item, length in enumerate(LENGTHS):
        frames[item, length:] = padding
    return frames, torch.tensor(LENGTHS)


def reference(pooling: GlobalPooling, item: Tensor) -> Tensor:
    """One item, (frames, dim), by torch's own functions."""
    match pooling.pooling:
        case "mean":
            return item.mean(0)
        case "max":
            return item.max(0).values
        case "attention":
            embeddings = item.T[None]  # (1, dim, frames), as the weights are described
            weights = torch.softmax(embeddings.mean(dim=1, keepdim=True), dim=-1)
            return (embeddings * weights).sum(dim=-1)[0]
        case "multi_scale":
            deviation = item.std(0) if len(item) > 1 else torch.zeros_like(item[0])
            return torch.cat([item.mean(0), item.max(0).values, deviation])
        case "attentive":
            assert isinstance(pooling.statistics, AttentiveStatsPooling)
            pooled: Tensor = pooling.statistics(item[None], torch.tensor([len(item)]))
            return pooled[0]
        case _:
            return adaptive_avg_pool1d(item.T[None], BINS)[0].T.flatten()


@pytest.mark.parametrize("pooling", get_args(GlobalPoolingType))
@pytest.mark.parametrize("padding", [math.nan, 1e6])
def test_equals_torch_item_by_item(pooling: GlobalPoolingType, padding: float) -> None:
    module = make(pooling)
    frames, lengths = make_frames(padding)
    pooled = module(frames, lengths)
    assert pooled.shape == (len(LENGTHS), module.dim)
    for row, item, length in zip(pooled, frames, LENGTHS, strict=True):
        torch.testing.assert_close(row, reference(module, item[:length]), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("pooling", get_args(GlobalPoolingType))
def test_gradients_equal_torchs_and_spare_the_padding(pooling: GlobalPoolingType) -> None:
    module = make(pooling)
    frames, lengths = make_frames()
    frames.requires_grad_()
    (ours,) = torch.autograd.grad(module(frames, lengths).pow(3).sum(), frames)
    expected = (
        sum(reference(module, x[:n]).pow(3).sum() for x, n in zip(frames, LENGTHS, strict=True) if n > 1)
        + reference(module, frames[1, :1]).pow(3).sum()
    )
    (theirs,) = torch.autograd.grad(expected, frames)
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-10)
    for item, length in enumerate(LENGTHS):
        assert ours[item, :length].abs().sum() > 0
        assert ours[item, length:].abs().sum() == 0


def test_a_constant_item_has_a_deviation_of_0_and_a_finite_gradient() -> None:
    frames = torch.full((1, 5, DIM), 0.3, requires_grad=True)
    pooled = make("multi_scale").float()(frames, torch.tensor([5]))
    assert torch.equal(pooled[0, 2 * DIM :], torch.zeros(DIM))
    pooled.sum().backward()
    assert frames.grad is not None
    assert frames.grad.isfinite().all()


def test_only_adaptive_tells_an_item_from_its_reverse() -> None:
    frames, lengths = make_frames(0)
    for pooling in get_args(GlobalPoolingType):
        module = make(pooling)
        same = torch.allclose(module(frames[:1, :9].flip(1), lengths[:1]), module(frames[:1], lengths[:1]))
        assert same == (pooling != "adaptive")


def test_a_large_mean_costs_no_precision() -> None:
    frames, lengths = make_frames(0)
    exact = make("multi_scale")(frames, lengths)[:, 2 * DIM :]
    far = make("multi_scale").float()(frames.float() + 1000, lengths)[:, 2 * DIM :]
    torch.testing.assert_close(far.double(), exact, rtol=1e-3, atol=1e-4)


def test_what_is_refused() -> None:
    with pytest.raises(ValueError, match="pooling is 'median'; choose one of mean, max, attention"):
        GlobalPooling(DIM, "median")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="bins is 0; it must be at least 1"):
        GlobalPooling(DIM, "adaptive", 0)
