"""Batch norm that does not see padding, against torch's on the valid frames side by side."""

import pytest
import torch
from torch import Tensor, nn

from stillwave.pipeline.backbones.convolutions import MaskedBatchNorm, convolved, fit_clip, zero_time

LENGTHS = torch.tensor([7, 1, 12])


def make() -> tuple[MaskedBatchNorm, nn.BatchNorm1d]:
    """Ours and torch's, of the same weights and running statistics."""
    generator = torch.Generator().manual_seed(0)
    ours, theirs = MaskedBatchNorm(4), nn.BatchNorm1d(4)
    for tensor in (ours.weight.data, ours.bias.data, ours.running_mean):
        assert tensor is not None
        tensor.normal_(generator=generator)
    theirs.load_state_dict(ours.state_dict())
    return ours, theirs


def batch(padding: float) -> Tensor:
    x = torch.randn(3, 4, 12, generator=torch.Generator().manual_seed(1)) * 3 + 1
    for item, length in enumerate(LENGTHS.tolist()):
        x[item, :, length:] = padding
    return x


def valid(x: Tensor) -> Tensor:
    """The valid frames of all items side by side, (1, channels, frames)."""
    return torch.cat([item[:, :length] for item, length in zip(x, LENGTHS.tolist(), strict=True)], 1)[None]


@pytest.mark.parametrize("padding", [0.0, 1e4, float("nan")])
def test_training_statistics_are_those_of_valid_frames(padding: float) -> None:
    ours, theirs = make()
    x, dense = batch(padding).requires_grad_(), valid(batch(padding)).requires_grad_()
    for _ in range(2):
        got, expected = valid(ours(x, LENGTHS)), theirs(dense)
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)
    for name, tensor in theirs.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], tensor, msg=name)
    got.pow(3).sum().backward()
    expected.pow(3).sum().backward()
    assert x.grad is not None
    assert dense.grad is not None
    torch.testing.assert_close(valid(x.grad), dense.grad, rtol=1e-4, atol=1e-4)
    assert float(zero_time(x.grad, LENGTHS).sub(x.grad).abs().max()) == 0
    torch.testing.assert_close(ours.weight.grad, theirs.weight.grad, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(ours.bias.grad, theirs.bias.grad, rtol=1e-4, atol=1e-4)


def test_running_statistics_serve_in_eval_mode() -> None:
    ours, theirs = make()
    ours(batch(0.0), LENGTHS)
    theirs(valid(batch(0.0)))
    torch.testing.assert_close(valid(ours.eval()(batch(0.0), LENGTHS)), theirs.eval()(valid(batch(0.0))))


def test_without_lengths_it_is_torchs() -> None:
    ours, theirs = make()
    x = batch(5.0)
    assert torch.equal(ours(x), theirs(x))
    assert all(torch.equal(ours.state_dict()[name], tensor) for name, tensor in theirs.state_dict().items())


def test_a_single_frame_keeps_the_statistics_finite() -> None:
    ours, _ = make()
    ours(torch.randn(1, 4, 3), torch.tensor([1]))
    assert all(tensor.isfinite().all() for tensor in ours.state_dict().values())


def test_clips_are_cut_or_padded_with_silence() -> None:
    x = torch.arange(1.0, 7).view(2, 3)
    assert fit_clip(x, 2).tolist() == [[1, 2], [4, 5]]
    assert fit_clip(x, 5).tolist() == [[1, 2, 3, 0, 0], [4, 5, 6, 0, 0]]


def test_convolved_is_what_convolutions_make() -> None:
    for length in range(1, 30):
        for kernel_size, stride, padding in [(5, 2, 2), (4, 3, 1), (7, 1, 0)]:
            fits = length + 2 * padding >= kernel_size
            made = nn.functional.conv1d(
                torch.zeros(1, 1, length if fits else kernel_size),
                torch.zeros(1, 1, kernel_size),
                stride=stride,
                padding=padding,
            )
            assert convolved(length, kernel_size, stride, padding) == (made.shape[2] if fits else 0)
