"""Attentive statistics against Okabe et al.'s sums, one item and one frame at a time."""

import math

import torch
from torch import Tensor

from stillwave.heads.statistics import MIN_VARIANCE, AttentiveStatsPooling


def make() -> AttentiveStatsPooling:
    torch.manual_seed(0)
    pooling = AttentiveStatsPooling(6, attention_dim=5).double()
    for parameter in pooling.parameters():
        torch.nn.init.normal_(parameter)
    return pooling


def make_frames(lengths: list[int], frames: int, padding: float = math.nan) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(len(lengths), frames, 6, dtype=torch.float64, generator=generator)
    for item, length in enumerate(lengths):
        x[item, length:] = padding
    return x, torch.tensor(lengths)


def naive(pooling: AttentiveStatsPooling, frames: Tensor) -> Tensor:
    scores = []
    for frame in frames:
        hidden = torch.tanh(pooling.hidden.weight @ frame + pooling.hidden.bias)
        scores.append((pooling.score.weight[0] @ hidden).exp())
    weights = [score / sum(scores) for score in scores]
    mean = sum(w * frame for w, frame in zip(weights, frames, strict=True))
    square = sum(w * frame * frame for w, frame in zip(weights, frames, strict=True))
    return torch.cat([mean, (square - mean * mean).clamp(min=MIN_VARIANCE).sqrt()])


def test_equals_a_naive_loop_value_and_gradient():
    pooling = make()
    frames, lengths = make_frames([9, 4, 2], 9)
    frames.requires_grad_()
    pooled = pooling(frames, lengths)
    expected = torch.stack([naive(pooling, x[:n]) for x, n in zip(frames, lengths, strict=True)])
    torch.testing.assert_close(pooled, expected, rtol=1e-10, atol=1e-12)
    wanted = [frames, *pooling.parameters()]
    for ours, theirs in zip(
        torch.autograd.grad(pooled.pow(3).sum(), wanted),
        torch.autograd.grad(expected.pow(3).sum(), wanted),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-10)
        assert ours.abs().sum() > 0


def test_padding_and_batch_change_nothing():
    pooling = make()
    frames, lengths = make_frames([7, 3, 1, 0], 12)
    pooled = pooling(frames, lengths)
    assert torch.equal(pooling(torch.nan_to_num(frames, 1e6), lengths), pooled)
    for item, length in enumerate(lengths.tolist()):
        alone = pooling(frames[item : item + 1, :length], lengths[item : item + 1])
        torch.testing.assert_close(pooled[item : item + 1], alone, rtol=1e-12, atol=1e-12)


def test_one_frame_is_its_own_mean_with_finite_gradients():
    pooling = make()
    frames, lengths = make_frames([1, 0], 3)
    frames.requires_grad_()
    pooled = pooling(frames, lengths)
    torch.testing.assert_close(pooled[0, :6], frames[0, 0])
    assert torch.equal(pooled[0, 6:], torch.full((6,), MIN_VARIANCE, dtype=torch.float64).sqrt())
    assert torch.equal(pooled[1, :6], torch.zeros(6, dtype=torch.float64))
    pooled.sum().backward()
    for tensor in (frames, *pooling.parameters()):
        assert tensor.grad is not None
        assert tensor.grad.isfinite().all()
    assert torch.equal(frames.grad[0, 0], torch.ones(6, dtype=torch.float64))
    assert frames.grad[1].abs().sum() == 0


def test_a_large_mean_costs_no_precision():
    pooling = make().float()
    frames, lengths = make_frames([40], 40)
    exact = make()
    with torch.no_grad():
        pooling.score.weight.zero_()  # plain statistics: with weights, the offset would change them
        exact.score.weight.zero_()
    far = pooling(frames.float() + 1000, lengths)
    torch.testing.assert_close(far[:, 6:].double(), exact(frames, lengths)[:, 6:], rtol=1e-3, atol=0)


def test_the_default_shapes_are_the_documented_ones():
    pooling = AttentiveStatsPooling(768)
    assert pooling(torch.randn(2, 3, 768), torch.tensor([3, 1])).shape == (2, 1536)
    assert sum(p.numel() for p in pooling.parameters()) == 768 * 128 + 128 + 128
