"""Frame augmentation: each operation against a naive loop or its definition, and its use of the generator."""

import math

import numpy as np
import pytest
import torch

from stillwave.heads.augment import FrameAugment

FULL = FrameAugment(
    stretch=0.2,
    time_masks=2,
    time_mask_frames=6,
    bands=8,
    warp=0.1,
    gain=1,
    tilt=1,
    band_masks=2,
    band_mask_width=3,
)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def make_frames(lengths: list[int], dim: int = 8) -> tuple[torch.Tensor, torch.Tensor]:
    frames = torch.randn(len(lengths), max(lengths), dim, generator=seeded(9), dtype=torch.float64)
    for item, length in enumerate(lengths):
        frames[item, length:] = torch.nan
    return frames, torch.tensor(lengths)


def test_off_by_default():
    frames, lengths = make_frames([9, 9])
    out, out_lengths = FrameAugment()(frames, lengths, seeded())
    assert torch.equal(out, frames)
    assert torch.equal(out_lengths, lengths)


def test_resampling_equals_bilinear_interpolation_by_loop():
    frames, lengths = make_frames([12, 5, 1], dim=16)
    out, out_lengths = FrameAugment(stretch=0.3, warp=0.2, bands=8)(frames, lengths, seeded())
    draws = torch.rand(3, 1, generator=(generator := seeded())), torch.rand(3, 1, generator=generator)
    for item, length in enumerate(lengths.tolist()):
        rate, factor = (math.exp(0.3 * (2 * draws[0][item] - 1)), math.exp(0.2 * (2 * draws[1][item] - 1)))
        length_out = max(1, round(length / rate))
        assert out_lengths[item] == length_out
        for t in range(length_out):
            time = min(max((t + 0.5) * length / length_out - 0.5, 0), length - 1)
            for band in range(8):
                position = min(max((band + 0.5) * factor - 0.5, 0), 7)
                for block in range(2):
                    source = frames[item, :length, block * 8 : block * 8 + 8].numpy()
                    column = [np.interp(position, range(8), row) for row in source]
                    expected = np.interp(time, range(length), column)
                    assert out[item, t, block * 8 + band].item() == pytest.approx(expected, abs=1e-5)


def test_gain_and_tilt_touch_the_first_block_only():
    frames, lengths = make_frames([6, 6], dim=16)
    out, _ = FrameAugment(bands=8, gain=2.0, tilt=1.0)(frames, lengths, seeded())
    change = (out - frames)[..., :8]
    torch.testing.assert_close(change, change[:, :1].expand_as(change))  # constant over time
    steps = change[:, 0].diff(dim=-1)
    torch.testing.assert_close(steps, steps[:, :1].expand_as(steps))  # a straight line over bands
    assert (steps.abs() <= 2 / 7).all()
    torch.testing.assert_close(out[..., 8:], frames[..., 8:])


def test_masks_are_stretches_of_the_items_own_mean():
    frames, lengths = make_frames([40, 20] * 10)
    out, _ = FrameAugment(time_masks=1, time_mask_frames=100)(frames, lengths, seeded())
    masked = 0
    for item, length in enumerate(lengths.tolist()):
        where = (out[item, :length] != frames[item, :length]).any(-1).nonzero()[:, 0]
        assert len(where) <= length / 5 + 1
        assert (where.diff() == 1).all()
        torch.testing.assert_close(out[item, where], frames[item, :length].mean(0).expand(len(where), -1))
        masked += len(where)
    assert masked > 20
    out, _ = FrameAugment(bands=8, band_masks=1, band_mask_width=4)(frames, lengths, seeded())
    widths = (out[::2] != frames[::2]).all(1).sum(-1)
    assert 1 < widths.max() <= 4
    assert widths.min() < 4


@pytest.mark.parametrize("lengths", [[1, 1], [1, 2, 40], [30, 30]])
def test_everything_together_stays_finite_and_valid(lengths):
    frames, lengths = make_frames(lengths)
    out, out_lengths = FULL(frames, lengths, seeded())
    assert out.shape == (len(lengths), int(out_lengths.max()), 8)
    assert (out_lengths >= 1).all()
    for item, length in enumerate(out_lengths):
        assert out[item, :length].isfinite().all()


def test_the_generator_alone_decides():
    frames, lengths = make_frames([30, 12])
    torch.manual_seed(1)
    first, _ = FULL(frames, lengths, seeded(5))
    torch.manual_seed(2)
    again, _ = FULL(frames, lengths, seeded(5))
    other, _ = FULL(frames, lengths, seeded(6))
    torch.testing.assert_close(first, again, rtol=0, atol=0)
    assert other.shape != first.shape or not torch.allclose(other, first)


def test_layers_are_augmented_alike():
    frames = torch.randn(2, 10, 3, 4, generator=seeded(1))
    frames[:, :, 1] = frames[:, :, 0]
    augment = FrameAugment(stretch=0.2, time_masks=1, time_mask_frames=5)
    out, lengths = augment(frames, torch.tensor([10, 8]), seeded())
    assert out.shape == (2, int(lengths.max()), 3, 4)
    torch.testing.assert_close(out[:, :, 1], out[:, :, 0])


def test_band_operations_need_bands():
    with pytest.raises(ValueError, match="need `bands`"):
        FrameAugment(warp=0.1)
    frames, lengths = make_frames([4, 4], dim=10)
    with pytest.raises(ValueError, match="10 dimensions, no multiple of bands = 8"):
        FrameAugment(bands=8, gain=1)(frames, lengths, seeded())
