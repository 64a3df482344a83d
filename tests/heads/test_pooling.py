"""Segment pooling against naive float64 loops, on every length from one frame up."""

import math

import pytest
import torch
from torch import Tensor

from stillwave.heads.pooling import PROFILE_KNOTS, SegmentAttentionPooling, segment_bounds

TYPES = ["attention", "max", "avg", "learnable"]


def make(pooling_type: str, seed: int = 0, **kwargs) -> SegmentAttentionPooling:
    torch.manual_seed(seed)
    pooling = SegmentAttentionPooling(8, 4, pooling_type, num_heads=2, **kwargs).double().eval()
    for parameter in pooling.parameters():  # zeros, as at the start of training, would hide mistakes
        torch.nn.init.normal_(parameter, std=0.5)
    return pooling


def naive(pooling: SegmentAttentionPooling, frames: Tensor) -> Tensor:
    """One item, (frames, dim) -> (num_segments, dim), one segment and one head at a time."""
    n = len(frames)
    segments = []
    for s in range(pooling.num_segments):
        start, end = math.floor(s * n / pooling.num_segments), math.ceil((s + 1) * n / pooling.num_segments)
        part = frames[start:end]
        if pooling.pooling_type == "max":
            out = part.max(0).values
        elif pooling.pooling_type == "avg":
            out = part.mean(0)
        elif pooling.pooling_type == "learnable":
            scores = []
            for t in range(end - start):
                knot = (t + 0.5) / (end - start) * (PROFILE_KNOTS - 1)
                k = min(int(knot), PROFILE_KNOTS - 2)
                scores.append((1 - (knot - k)) * pooling.profile[k] + (knot - k) * pooling.profile[k + 1])
            out = torch.stack(scores).softmax(0) @ part
        else:
            heads = []
            for h, chunk in enumerate(pooling.value(part).chunk(pooling.num_heads, dim=-1)):
                weights = (part @ pooling.score.weight[h] + pooling.score.bias[h]).softmax(0)
                heads.append(weights @ chunk)
            out = pooling.output(torch.cat(heads))
        if pooling.temporal_encoding is not None:
            out = out + pooling.temporal_encoding[s]
        segments.append(out)
    return torch.stack(segments)


@pytest.mark.parametrize("use_temporal_encoding", [True, False])
@pytest.mark.parametrize("pooling_type", TYPES)
def test_equals_a_naive_loop_at_every_length(pooling_type, use_temporal_encoding):
    pooling = make(pooling_type, use_temporal_encoding=use_temporal_encoding)
    lengths = torch.arange(1, 14)  # shorter than, equal to and longer than num_segments
    frames = torch.randn(len(lengths), 13, 8, dtype=torch.float64)
    pooled = pooling(frames, lengths)
    for item, length in enumerate(lengths):
        expected = naive(pooling, frames[item, :length])
        torch.testing.assert_close(pooled[item], expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("pooling_type", TYPES)
def test_padding_is_never_read(pooling_type):
    pooling = make(pooling_type)
    frames = torch.randn(3, 9, 8, dtype=torch.float64)
    lengths = torch.tensor([9, 3, 1])
    padded = torch.cat([frames, torch.zeros(3, 5, 8)], 1)
    for item, length in enumerate(lengths):
        padded[item, length:] = torch.nan
    torch.testing.assert_close(pooling(padded, lengths), pooling(frames, lengths), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("pooling_type", TYPES)
def test_gradients_are_those_of_the_naive_loop(pooling_type):
    pooling = make(pooling_type)
    lengths = [1, 3, 4, 13]
    frames = torch.randn(4, 13, 8, dtype=torch.float64, requires_grad=True)
    direction = torch.randn(4, 4, 8, dtype=torch.float64)
    wanted = [frames, *pooling.parameters()]
    found = torch.autograd.grad((pooling(frames, torch.tensor(lengths)) * direction).sum(), wanted)
    items = [naive(pooling, frames[item, :length]) for item, length in enumerate(lengths)]
    expected = torch.autograd.grad((torch.stack(items) * direction).sum(), wanted)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-11)


def test_the_bias_of_values_is_dropped_out_with_their_weights():
    class Twice(torch.nn.Module):  # what dropout of 0.5 does when it happens to keep everything
        def forward(self, weights: Tensor) -> Tensor:
            return 2 * weights

    pooling = make("attention", use_temporal_encoding=False)
    frames, lengths = torch.randn(2, 9, 8, dtype=torch.float64), torch.tensor([9, 3])
    once = pooling(frames, lengths) - pooling.output.bias
    pooling.dropout = Twice()
    torch.testing.assert_close(pooling(frames, lengths) - pooling.output.bias, 2 * once)


@pytest.mark.parametrize("num_segments", [1, 3, 8])
def test_avg_and_max_are_torchs_adaptive_pooling(num_segments):
    frames = torch.randn(2, 21, 4, dtype=torch.float64)
    lengths = torch.tensor([21, 21])
    for pooling_type, reference in [
        ("avg", torch.nn.functional.adaptive_avg_pool1d),
        ("max", torch.nn.functional.adaptive_max_pool1d),
    ]:
        pooling = SegmentAttentionPooling(4, num_segments, pooling_type, use_temporal_encoding=False).double()
        expected = reference(frames.transpose(1, 2), num_segments).transpose(1, 2)
        torch.testing.assert_close(pooling(frames, lengths), expected)


def test_without_lengths_all_frames_are_valid():
    frames = torch.randn(2, 20, 16)
    pooling = SegmentAttentionPooling(16).eval()
    assert torch.equal(pooling(frames), pooling(frames, torch.tensor([20, 20])))
    assert pooling(frames).shape == (2, 8, 16)


def test_segments_cover_every_frame_and_none_is_empty():
    lengths = torch.arange(1, 40)
    for num_segments in (1, 2, 8):
        starts, ends = segment_bounds(lengths, num_segments)
        assert (ends > starts).all()
        assert (starts[:, 0] == 0).all()
        assert (ends[:, -1] == lengths).all()
        assert (starts[:, 1:] <= ends[:, :-1]).all()


@pytest.mark.parametrize("pooling_type", TYPES)
def test_gradients_reach_parameters_and_valid_frames_only(pooling_type):
    pooling = make(pooling_type).train()
    frames = torch.randn(2, 7, 8, dtype=torch.float64, requires_grad=True)
    (pooling(frames, torch.tensor([7, 2])) * torch.randn(2, 4, 8)).sum().backward()
    assert frames.grad is not None
    assert frames.grad[0].abs().sum(-1).gt(0).any()
    assert frames.grad[1, 2:].abs().sum() == 0
    assert all(p.grad is not None and p.grad.isfinite().all() for p in pooling.parameters())


@pytest.mark.parametrize("pooling_type", TYPES)
def test_state_dict_round_trip(pooling_type):
    first, second = make(pooling_type, seed=0), make(pooling_type, seed=1)
    second.load_state_dict(first.state_dict())
    frames, lengths = torch.randn(2, 6, 8, dtype=torch.float64), torch.tensor([6, 1])
    assert torch.equal(first(frames, lengths), second(frames, lengths))


def test_dropout_acts_in_training_only():
    pooling = make("attention", dropout=0.5)
    frames, lengths = torch.randn(2, 30, 8, dtype=torch.float64), torch.tensor([30, 12])
    assert torch.equal(pooling(frames, lengths), pooling(frames, lengths))
    pooling.train()
    assert not torch.equal(pooling(frames, lengths), pooling(frames, lengths))


def test_errors_name_value_and_bound():
    with pytest.raises(ValueError, match="10 % 4 = 2"):
        SegmentAttentionPooling(10, num_heads=4)
    with pytest.raises(ValueError, match="'mean'; choose one of attention, max"):
        SegmentAttentionPooling(8, pooling_type="mean")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="at least 1"):
        SegmentAttentionPooling(8, num_segments=0)
    with pytest.raises(ValueError, match=r"span 0\.\.5.*be in 1\.\.4"):
        SegmentAttentionPooling(8)(torch.randn(2, 4, 8), torch.tensor([0, 5]))
