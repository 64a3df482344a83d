"""SANet's blocks against naive loops, its shapes on 4 s, other lengths, and what training sees of padding."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from stillwave.models.squeeze_attend_net import (
    SE1D,
    AttentionEncoder,
    AttentivePool,
    DownsampledAttentionBlockDecoupled,
    ResBlock1D,
    SqueezeAttendNet,
)
from stillwave.pipeline.backbones import build_backbone
from stillwave.pipeline.backbones.sanet.backbone import SIZES, Sanet, SanetConfig


def build(**changes: Any) -> Sanet:
    backbone = build_backbone(SanetConfig(kind="sanet", **({"size": "tiny", "clip_s": None} | changes)))
    assert isinstance(backbone, Sanet)
    return backbone


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def seeded(module: nn.Module) -> Any:
    """The module in float64, noise on every parameter and statistic, in eval mode."""
    generator = torch.Generator().manual_seed(7)
    module = module.double().eval()
    for tensor in module.state_dict().values():
        if tensor.is_floating_point():
            tensor.add_(0.2 * torch.randn(tensor.shape, generator=generator))
    for name, tensor in module.named_buffers():
        if name.endswith("running_var"):
            tensor.abs_().add_(0.5)
    return module


def test_squeeze_and_excitation_by_hand() -> None:
    module = seeded(SE1D(6, reduction=2))
    x = noise(2, 6, 9)
    scaled = module(x, torch.tensor([9, 4]))
    for item, length in enumerate((9, 4)):
        mean = x[item, :, :length].mean(1)
        narrow = (module.squeeze.weight[..., 0] @ mean + module.squeeze.bias).clamp(min=0)
        scale = 1 / (1 + (-(module.excite.weight[..., 0] @ narrow + module.excite.bias)).exp())
        torch.testing.assert_close(scaled[item], x[item] * scale[:, None])
    torch.testing.assert_close(module(x[:1]), scaled[:1])


@pytest.mark.parametrize(("stride", "outputs"), [(1, 4), (2, 4), (3, 6)])
def test_residual_block_by_hand(stride: int, outputs: int) -> None:
    module = seeded(ResBlock1D(4, outputs, kernel_size=5, stride=stride))
    x = noise(1, 4, 14)

    def norm(y: Tensor, layer: nn.BatchNorm1d) -> Tensor:
        assert layer.running_mean is not None
        assert layer.running_var is not None
        scale = layer.weight / (layer.running_var + 1e-5).sqrt()
        return (y - layer.running_mean[:, None]) * scale[:, None] + layer.bias[:, None]

    y = norm(functional.conv1d(x, module.conv1.weight, stride=stride, padding=2), module.norm1).relu()
    y = module.excitation(norm(functional.conv1d(y, module.conv2.weight, padding=2), module.norm2))
    shortcut = x
    if module.shortcut is not None:
        shortcut = norm(
            torch.einsum("oi,bit->bot", module.shortcut.weight[..., 0], x[..., ::stride]),
            module.shortcut_norm,
        )
    got, lengths = module(x, torch.tensor([14]))
    torch.testing.assert_close(got, (shortcut + y).relu())
    assert lengths.tolist() == [-(-14 // stride)] == [got.shape[2]]
    assert (module.shortcut is None) == (stride == 1)


def test_attention_block_by_hand() -> None:
    """11 frames, 3 tokens: sums over frames, tokens and heads, one by one."""
    block = seeded(DownsampledAttentionBlockDecoupled(6, 4, 2, stride=4, num_positions=5))
    x = noise(1, 6, 11)
    padded = functional.pad(x[0], (3, 9))
    tokens = []
    for token in range(3):
        window = padded[:, 4 * token : 4 * token + 7]
        down = (window * block.down.weight[:, 0]).sum(1)
        tokens.append(block.reduce.weight[..., 0] @ down + block.reduce.bias + block.positions[token])
    tokens = torch.stack(tokens)
    queries, keys, values = block.query_key_value(block.norm(tokens)).split(4, dim=1)
    read = []
    for head in (slice(0, 2), slice(2, 4)):
        weights = (queries[:, head] @ keys[:, head].T / 2**0.5).softmax(1)
        read.append(weights @ values[:, head])
    tokens = tokens + block.output(torch.cat(read, 1))
    finer = torch.zeros(4, 3 * 4 + 6, dtype=torch.float64)
    for token in range(3):
        finer[:, 4 * token : 4 * token + 7] += tokens[token][:, None] * block.up.weight[:, 0]
    finer = finer[:, 3 : 3 + 11]
    expected = x[0] + block.expand.weight[..., 0] @ finer + block.expand.bias[:, None]
    torch.testing.assert_close(block(x, torch.tensor([11]))[0], expected)
    torch.testing.assert_close(block(x)[0], expected)


def test_time_is_interpolated_at_the_start() -> None:
    """A ramp comes out of both convolutions over time as it went in, but for the ends, where zeros begin."""
    block = DownsampledAttentionBlockDecoupled(1, 1, 1, stride=4).double()
    ramp = torch.arange(40, dtype=torch.float64)[None, None]
    down = block.down(ramp)
    torch.testing.assert_close(down[0, 0, 1:], ramp[0, 0, 4::4])
    torch.testing.assert_close(block.up(down)[0, 0, 4:37], ramp[0, 0, 4:37])


def test_positions_of_long_items_are_interpolated() -> None:
    block = DownsampledAttentionBlockDecoupled(4, 4, 2, stride=4, num_positions=5).double()
    positions = block._positions(torch.tensor([3, 5, 9, 1, 12]), 12)
    table = block.positions
    assert torch.equal(positions[0, :3], table[:3])
    assert torch.equal(positions[1, :5], table)
    assert torch.equal(positions[3, :1], table[:1])
    torch.testing.assert_close(positions[2, :9:2], table)
    torch.testing.assert_close(positions[2, 1:9:2], (table[:-1] + table[1:]) / 2)
    expected = functional.interpolate(table.T[None], size=12, mode="linear", align_corners=True)[0].T
    torch.testing.assert_close(positions[4], expected)


def test_four_seconds_have_the_described_shapes() -> None:
    """64,000 -> 2,000, attention at 500 -> 1,000, attention at 250 -> 1,024 -> classes."""
    torch.manual_seed(0)
    model = SqueezeAttendNet(num_classes=7).eval()
    shapes: dict[str, tuple[int, ...]] = {}

    def record(name: str) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            shapes[name] = tuple((output[0] if isinstance(output, tuple) else output).shape)

        return hook

    for name, module in model.named_modules():
        module.register_forward_hook(record(name))
    with torch.inference_mode():
        logits = model(torch.randn(1, 64_000))
    assert [shapes[f"encoder.blocks.{i}"] for i in range(4)] == [
        (1, 64, 16_000), (1, 128, 4_000), (1, 256, 2_000), (1, 512, 1_000),
    ]  # fmt: skip
    assert shapes["encoder.attention.0.reduce"] == (1, 128, 500)
    assert shapes["encoder.attention.0.query_key_value"] == (1, 500, 3 * 128)
    assert shapes["encoder.attention.0.up"] == (1, 128, 2_000)
    assert shapes["encoder.attention.0"] == (1, 256, 2_000)
    assert shapes["encoder.attention.1.query_key_value"] == (1, 250, 3 * 256)
    assert shapes["encoder.attention.1"] == (1, 512, 1_000)
    assert shapes["encoder.blocks.3.excitation.squeeze"] == (1, 64, 1)
    assert shapes["head.pooling"] == (1, 1_024)
    assert logits.shape == (1, 7)
    assert isinstance(model.head.pooling.statistics, AttentivePool)


def test_the_module_is_the_backbone_and_a_pooled_head(
    waveform: Callable[[int], Tensor], pad: Callable[..., Any]
) -> None:
    backbone = build()
    model = SqueezeAttendNet(3, architecture=SIZES["tiny"], hidden=(5,)).eval()
    model.encoder.load_state_dict(backbone.encoder.state_dict())
    batch, lengths = pad([waveform(9000), waveform(4000)])
    logits = model(batch, lengths)
    torch.testing.assert_close(logits, model.head(*backbone(batch, lengths)))
    torch.testing.assert_close(model(batch[:1, None]), logits[:1])
    torch.testing.assert_close(model.head.mlp(model.head.norm(model.embedding(batch, lengths))), logits)


def test_longer_than_the_positions(
    waveform: Callable[[int], Tensor],
    pad: Callable[..., Any],
    alone: Callable[..., Tensor],
    relative_error: Callable[..., float],
) -> None:
    backbone = build()
    items = [waveform(90_001), waveform(64_000), waveform(9_000)]  # 704, 500 and 71 tokens
    with torch.inference_mode():
        values, lengths = backbone(*pad(items))
    assert lengths.tolist() == [1407, 1000, 141]
    for row, length, item in zip(values, lengths.tolist(), items, strict=True):
        assert relative_error(row[:length], alone(backbone, item)) <= 1e-5


def test_a_clip_is_cut_or_padded_with_silence(
    waveform: Callable[[int], Tensor], pad: Callable[..., Any], relative_error: Callable[..., float]
) -> None:
    free, clipped = build(), build(clip_s=0.5)
    items = [waveform(3000), waveform(8000), waveform(20000), waveform(1)]
    with torch.inference_mode():
        values, lengths = clipped(*pad(items))
        assert lengths.tolist() == [clipped.num_frames(len(item)) for item in items] == [125] * 4
        for item, row in zip(items, values, strict=True):
            clip = torch.zeros(1, 8000)
            clip[0, : min(8000, len(item))] = item[:8000]
            assert relative_error(row, free(clip, torch.tensor([8000])).values[0]) < 1e-5
    assert clipped.num_frames(0) == 0


def test_training_does_not_see_padding(waveform: Callable[[int], Tensor], pad: Callable[..., Any]) -> None:
    """Surplus padding changes neither frames nor gradients nor running statistics."""
    batch, lengths = pad([waveform(9000), waveform(3000), waveform(1500)])
    seen = []
    for one in (batch, functional.pad(batch, (0, 7000))):
        backbone = build(dropout=0).train().requires_grad_(True)
        values, counts = backbone(one, lengths)
        frames = torch.cat([row[:count] for row, count in zip(values, counts.tolist(), strict=True)])
        frames.square().mean().backward()
        gradients = {name: parameter.grad for name, parameter in backbone.named_parameters()}
        seen.append({"frames": frames} | gradients | dict(backbone.named_buffers()))
    for name, tensor in seen[0].items():
        torch.testing.assert_close(seen[1][name], tensor, rtol=1e-3, atol=1e-5, msg=name)


def test_it_learns_to_tell_low_from_high() -> None:
    time = torch.arange(4000) / 16000
    pitches = torch.tensor([150.0, 170.0, 190.0, 600.0, 650.0, 700.0])
    generator = torch.Generator().manual_seed(0)
    audio = 0.3 * torch.sin(2 * torch.pi * pitches[:, None] * time)
    audio = audio + 0.01 * torch.randn(6, 4000, generator=generator)
    labels = torch.tensor([0, 0, 0, 1, 1, 1])
    torch.manual_seed(0)
    model = SqueezeAttendNet(2, architecture=SIZES["tiny"], dropout=0)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(12):
        loss = functional.cross_entropy(model(audio), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.2 < 0.4 < losses[0]
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d):
            module.momentum = 1.0  # so few steps have not brought the running statistics along
    with torch.no_grad():
        model(audio)
    assert (model.eval()(audio).argmax(1) == labels).all()


def test_attention_sees_the_whole_item() -> None:
    """A change of the first samples reaches the last frame, which convolutions alone do not."""
    backbone = build().double()
    batch, lengths = noise(1, 20_000), torch.tensor([20_000])
    changed = batch.clone()
    changed[:, :500] += 1
    with torch.inference_mode():
        difference = (backbone(changed, lengths).values - backbone(batch, lengths).values).abs()[0]
        convolved = [batch[:, None], changed[:, None]]
        for block in backbone.encoder.blocks:
            block.excitation = None  # a mean over time sees it all, too
            convolved = [block(x)[0] for x in convolved]
    assert float(difference[-1].max()) > 1e-6
    assert torch.equal(convolved[0][..., -1], convolved[1][..., -1])


def test_what_is_refused() -> None:
    with pytest.raises(ValueError, match="num_heads must divide reduced; 10 % 4 = 2"):
        DownsampledAttentionBlockDecoupled(20, 10, 4)
    with pytest.raises(ValueError, match="num_heads must divide reduced; 16 % 3 = 1"):
        build(num_heads=3)
    with pytest.raises(ValueError, match=r"waveforms have shape \(2, 2, 100\).* mix channels down to one"):
        SqueezeAttendNet(2, architecture=SIZES["tiny"])(torch.zeros(2, 2, 100))
    assert sum(p.numel() for p in AttentionEncoder().parameters()) == sum(
        p.numel() for p in build(size="base").parameters()
    )
