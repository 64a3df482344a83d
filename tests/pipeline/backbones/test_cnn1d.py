"""The convolutional encoder: against torch's layers by hand, its clips, its training, and how it starts."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from stillwave.pipeline.backbones import build_backbone
from stillwave.pipeline.backbones.cnn1d import HIGHEST, LOWEST_HZ, Cnn1d, Cnn1dConfig, band_filters

RATE = 16000
SMALL: dict[str, Any] = {
    "channels": (8, 12, 16), "kernel_sizes": (80, 5, 3), "strides": (16, 2, 1), "pools": (4, 2, 1),
}  # fmt: skip


def build(**changes: Any) -> Cnn1d:
    backbone = build_backbone(Cnn1dConfig(kind="cnn1d", **(SMALL | changes)))
    assert isinstance(backbone, Cnn1d)
    generator = torch.Generator().manual_seed(0)
    for layer in backbone.layers:
        for tensor in (layer.norm.weight, layer.norm.bias, layer.norm.running_mean):
            tensor.data.add_(0.1 * torch.randn(tensor.shape, generator=generator))
    return backbone


def by_hand(backbone: Cnn1d, x: Tensor) -> Tensor:
    """(1, 1, samples) -> (frames, dim)."""
    for layer in backbone.layers:
        x = functional.conv1d(x, layer.conv.weight, stride=layer.stride, padding=layer.padding)
        norm = layer.norm
        x = (x - norm.running_mean[:, None]) / (norm.running_var[:, None] + 1e-5).sqrt()
        x = (x * norm.weight[:, None] + norm.bias[:, None]).relu()
        x = torch.stack(
            [x[..., i * layer.pool : (i + 1) * layer.pool].amax(-1) for i in range(x.shape[2] // layer.pool)],
            -1,
        )
    return x[0].T


def test_equals_its_layers_by_hand(waveform: Callable[[int], Tensor], alone: Callable[..., Tensor]) -> None:
    backbone = build(clip_s=None)
    for length in (3000, 7001):
        item = waveform(length)
        torch.testing.assert_close(alone(backbone, item), by_hand(backbone, item[None, None]))


def test_a_clip_is_cut_or_padded_with_silence(
    waveform: Callable[[int], Tensor],
    pad: Callable[..., Any],
    relative_error: Callable[..., float],
) -> None:
    backbone = build(clip_s=0.5)
    items = [waveform(3000), waveform(8000), waveform(20000), waveform(1)]
    with torch.inference_mode():
        values, lengths = backbone(*pad(items))
    assert lengths.tolist() == [backbone.num_frames(len(item)) for item in items] == [31] * 4
    assert values.shape == (4, 31, 16)
    for item, row in zip(items, values, strict=True):
        clip = torch.zeros(8000)
        clip[: min(8000, len(item))] = item[:8000]
        assert relative_error(row, by_hand(backbone, clip[None, None])) < 1e-5
    assert backbone.num_frames(0) == 0


def test_dropout_is_of_whole_channels_and_only_while_training(waveform: Callable[[int], Tensor]) -> None:
    backbone = build(dropout=0.5, clip_s=None)
    batch, lengths = waveform(9000)[None], torch.tensor([9000])
    torch.manual_seed(0)
    still = backbone(batch, lengths).values
    assert torch.equal(backbone(batch, lengths).values, still)
    moving = backbone.train()(batch, lengths).values
    dropped = (moving == 0).all(1)[0]
    assert 0 < int(dropped.sum()) < 16
    assert not (still == 0).all(1)[0][dropped].all()


def test_training_does_not_see_padding(waveform: Callable[[int], Tensor], pad: Callable[..., Any]) -> None:
    """Surplus padding changes neither frames nor gradients nor running statistics."""
    items = [waveform(9000), waveform(3000), waveform(1500)]
    batch, lengths = pad(items)
    longer = functional.pad(batch, (0, 7000))
    seen = []
    for one in (batch, longer):
        backbone = build(clip_s=None, dropout=0).train().requires_grad_(True)
        values, counts = backbone(one, lengths)
        frames = torch.cat([row[:count] for row, count in zip(values, counts.tolist(), strict=True)])
        frames.square().sum().backward()
        gradients = {name: parameter.grad for name, parameter in backbone.named_parameters()}
        seen.append({"frames": frames} | gradients | dict(backbone.named_buffers()))
    for name, tensor in seen[0].items():
        torch.testing.assert_close(seen[1][name], tensor, rtol=1e-4, atol=1e-4, msg=name)


def test_random_weights_keep_the_scale_of_a_waveform() -> None:
    backbone = build_backbone(Cnn1dConfig(kind="cnn1d"))
    noise = 0.1 * torch.randn(4, 16000, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        values = backbone(noise, torch.full((4,), 16000)).values
    assert 0.02 < float(values.square().mean().sqrt()) < 1


def test_the_default_is_the_documented_one() -> None:
    backbone = build_backbone(Cnn1dConfig(kind="cnn1d"))
    assert [type(layer.conv) for layer in backbone.layers] == [nn.Conv1d] * 3
    assert backbone.num_frames(16000) == backbone(torch.zeros(1, 16000), torch.tensor([16000])).lengths[0]
    assert len(backbone.stages()) == 3


def test_errors_name_value_and_bound() -> None:
    with pytest.raises(ValueError, match=r"'pools': \(4, 2\).* must be of one length, one number per layer"):
        Cnn1dConfig(kind="cnn1d", **(SMALL | {"pools": (4, 2)}))
    with pytest.raises(ValueError, match=r"clip_s 0\.01: 160 samples are too few for one frame"):
        build(clip_s=0.01)
    with pytest.raises(ValueError, match="an item of 20 samples is too short for one frame"):
        build(clip_s=None)(torch.zeros(1, 20), torch.tensor([20]))


def spectra(filters: Tensor) -> Tensor:
    """The power of each filter per 1 Hz, (count, RATE / 2 + 1)."""
    return torch.fft.rfft(filters.double(), n=RATE).abs().square()


def mel(hertz: float) -> float:
    return 2595 * math.log10(1 + hertz / 700)


def test_each_filter_has_its_band_equally_far_apart_in_mel() -> None:
    torch.manual_seed(0)
    filters = band_filters(24, 400, RATE)
    assert filters.shape == (24, 400)
    torch.testing.assert_close(filters.norm(dim=1), torch.ones(24))
    low, high = mel(LOWEST_HZ), mel(HIGHEST * RATE / 2)
    peaks = spectra(filters).argmax(1).tolist()
    for number, peak in enumerate(peaks[2:], 3):  # the lowest are as wide as they are high
        wanted = low + (high - low) * number / 25
        assert mel(peak) == pytest.approx(wanted, abs=0.1 * (high - low) / 25)


def test_neighbours_overlap_and_others_do_not() -> None:
    torch.manual_seed(0)
    power = spectra(band_filters(24, 400, RATE))
    peaks = power.argmax(1)
    shares = power[:, peaks] / power.amax(1, keepdim=True)  # of each filter, at the others' centres
    # Where bands are wider than the kernel's own resolution, and below the highest, which aliases.
    for number in range(14, 22):
        assert 0.05 < shares[number, number + 1] < 0.5
        assert shares[number, number + 2] < 0.02


def test_phases_are_torchs_draws() -> None:
    torch.manual_seed(0)
    first, second = band_filters(8, 160, RATE), band_filters(8, 160, RATE)
    torch.manual_seed(0)
    assert torch.equal(band_filters(8, 160, RATE), first)
    assert not torch.allclose(first, second, atol=0.01)


def test_a_tone_comes_out_where_its_band_is() -> None:
    sizes: dict[str, Any] = {
        "channels": (24, 4),
        "kernel_sizes": (400, 3),
        "strides": (16, 1),
        "pools": (1, 1),
    }
    backbone = build_backbone(Cnn1dConfig(kind="cnn1d", filters="mel", **sizes))
    filters = backbone.layers[0].conv.weight[:, 0]
    torch.testing.assert_close(filters.square().sum(1), torch.full((24,), 2.0))  # He's: 2 / fan in each
    time = torch.arange(RATE) / RATE
    low, high = mel(LOWEST_HZ), mel(HIGHEST * RATE / 2)
    for hertz in (500.0, 1200.0, 3000.0):
        tone = torch.sin(2 * math.pi * hertz * time)[None, None]
        loudest = int(backbone.layers[0].conv(tone).square().mean(2).argmax())
        assert abs((mel(hertz) - low) / (high - low) * 25 - (loudest + 1)) < 0.8


def test_the_seed_draws_them_and_they_are_in_the_fingerprint() -> None:
    prints = [
        build_backbone(Cnn1dConfig(kind="cnn1d", filters=filters, seed=seed)).fingerprint()
        for filters, seed in (("mel", 0), ("mel", 0), ("mel", 1), ("random", 0))
    ]
    assert prints[0] == prints[1]
    assert len({one["weights"] for one in prints}) == 3
