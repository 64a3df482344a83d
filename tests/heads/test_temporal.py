"""The convolutional encoder against a loop over frames, and its indifference to padding."""

import pytest
import torch
from torch import Tensor

from stillwave.heads.temporal import TemporalConv


def naive(encoder: TemporalConv, frames: Tensor) -> Tensor:
    """One item, (frames, dim) -> (fewer frames, channels), one output frame at a time."""
    x = frames
    for stride, conv, norm in zip(encoder.strides, encoder.convs, encoder.norms, strict=True):
        width = conv.kernel_size[0]
        rows = []
        for centre in range(0, len(x), stride):
            row = conv.bias.clone()
            for k in range(width):
                t = centre + k - width // 2
                if 0 <= t < len(x):
                    row = row + conv.weight[:, :, k] @ x[t]
            rows.append(torch.nn.functional.gelu(norm(row)))
        y = torch.stack(rows)
        x = x + y if stride == 1 and x.shape == y.shape else y
    return x


@pytest.mark.parametrize("strides", [(1,), (2, 1, 1), (3, 2)])
def test_equals_a_naive_loop_whatever_the_padding(strides):
    torch.manual_seed(0)
    encoder = TemporalConv(4, 6, strides, kernel_size=3, dropout=0.5).double().eval()
    lengths = torch.tensor([13, 7, 2, 1])
    frames = torch.randn(4, 15, 4, dtype=torch.float64)
    for item, length in enumerate(lengths):
        frames[item, length:] = torch.nan
    out, out_lengths = encoder(frames, lengths)
    for item, length in enumerate(lengths):
        expected = naive(encoder, frames[item, :length])
        assert out_lengths[item] == len(expected)
        torch.testing.assert_close(out[item, : len(expected)], expected, rtol=1e-10, atol=1e-12)


def test_gradients_flow_and_state_dict_round_trips():
    encoder, other = TemporalConv(4, 6, (2, 1)).eval(), TemporalConv(4, 6, (2, 1)).eval()
    frames, lengths = torch.randn(2, 9, 4, requires_grad=True), torch.tensor([9, 3])
    out, out_lengths = encoder(frames, lengths)
    valid = torch.arange(out.shape[1]) < out_lengths[:, None]
    out[valid].square().sum().backward()
    assert frames.grad is not None
    assert frames.grad[0].abs().sum(-1).min() > 0
    assert frames.grad[1, 3:].abs().sum() == 0
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in encoder.parameters())
    other.load_state_dict(encoder.state_dict())
    assert torch.equal(other(frames, lengths)[0], out)


def test_dropout_takes_whole_channels():
    torch.manual_seed(0)
    out, _ = TemporalConv(4, 64, (1,), dropout=0.5).train()(torch.randn(2, 10, 4), torch.tensor([10, 10]))
    dropped = (out == 0).all(1)
    assert 0.2 < dropped.float().mean() < 0.8
    assert torch.equal((out == 0).any(1), dropped)


def test_errors_name_value_and_bound():
    with pytest.raises(ValueError, match="kernel_size is 4; it must be odd"):
        TemporalConv(4, 6, kernel_size=4)
    with pytest.raises(ValueError, match=r"\(4, 1\); each must be in 1\.\.3"):
        TemporalConv(4, 6, strides=(4, 1), kernel_size=3)
