"""The convolutional encoder: against torch's layers by hand, its clips, and what training sees of padding."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from stillwave.pipeline.backbones import build_backbone
from stillwave.pipeline.backbones.cnn1d import Cnn1d, Cnn1dConfig

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
