"""The filters that a first convolution starts as: which tones they let through."""

import math

import pytest
import torch

from stillwave.pipeline.backbones import build_backbone
from stillwave.pipeline.backbones.band_filters import HIGHEST, LOWEST_HZ, band_filters
from stillwave.pipeline.backbones.cnn1d import Cnn1dConfig

RATE = 16000


def spectra(filters: torch.Tensor) -> torch.Tensor:
    """The power of each filter per 1 Hz, (count, RATE / 2 + 1)."""
    return torch.fft.rfft(filters.double(), n=RATE).abs().square()


def mel(hertz: float) -> float:
    return 2595 * math.log10(1 + hertz / 700)


def test_each_filter_has_its_band_equally_far_apart_in_mel():
    torch.manual_seed(0)
    filters = band_filters(24, 400, RATE)
    assert filters.shape == (24, 400)
    torch.testing.assert_close(filters.norm(dim=1), torch.ones(24))
    low, high = mel(LOWEST_HZ), mel(HIGHEST * RATE / 2)
    peaks = spectra(filters).argmax(1).tolist()
    for number, peak in enumerate(peaks[2:], 3):  # the lowest are as wide as they are high
        wanted = low + (high - low) * number / 25
        assert mel(peak) == pytest.approx(wanted, abs=0.1 * (high - low) / 25)


def test_neighbours_overlap_and_others_do_not():
    torch.manual_seed(0)
    power = spectra(band_filters(24, 400, RATE))
    peaks = power.argmax(1)
    shares = power[:, peaks] / power.amax(1, keepdim=True)  # of each filter, at the others' centres
    # Where bands are wider than the kernel's own resolution, and below the highest, which aliases.
    for number in range(14, 22):
        assert 0.05 < shares[number, number + 1] < 0.5
        assert shares[number, number + 2] < 0.02


def test_phases_are_torchs_draws():
    torch.manual_seed(0)
    first, second = band_filters(8, 160, RATE), band_filters(8, 160, RATE)
    torch.manual_seed(0)
    assert torch.equal(band_filters(8, 160, RATE), first)
    assert not torch.allclose(first, second, atol=0.01)


def test_a_tone_comes_out_where_its_band_is():
    sizes = {"channels": (24, 4), "kernel_sizes": (400, 3), "strides": (16, 1), "pools": (1, 1)}
    backbone = build_backbone(Cnn1dConfig(kind="cnn1d", filters="mel", **sizes))
    filters = backbone.layers[0].conv.weight[:, 0]
    torch.testing.assert_close(filters.square().sum(1), torch.full((24,), 2.0))  # He's: 2 / fan in each
    time = torch.arange(RATE) / RATE
    low, high = mel(LOWEST_HZ), mel(HIGHEST * RATE / 2)
    for hertz in (500.0, 1200.0, 3000.0):
        tone = torch.sin(2 * math.pi * hertz * time)[None, None]
        loudest = int(backbone.layers[0].conv(tone).square().mean(2).argmax())
        assert abs((mel(hertz) - low) / (high - low) * 25 - (loudest + 1)) < 0.8


def test_the_seed_draws_them_and_they_are_in_the_fingerprint():
    prints = [
        build_backbone(Cnn1dConfig(kind="cnn1d", filters=filters, seed=seed)).fingerprint()
        for filters, seed in (("mel", 0), ("mel", 0), ("mel", 1), ("random", 0))
    ]
    assert prints[0] == prints[1]
    assert len({one["weights"] for one in prints}) == 3
