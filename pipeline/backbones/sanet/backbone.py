"""SANet, an encoder of raw waveforms by convolutions and attention on fewer frames, trained from scratch."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal

from pydantic import Field
from torch import Tensor, nn

from stillwave.pipeline.backbones.config import BackboneConfig, Precision
from stillwave.pipeline.backbones.convolutions import WaveformBackbone
from stillwave.pipeline.backbones.sanet.blocks import DownsampledAttentionBlockDecoupled, ResBlock1D
from stillwave.pipeline.backbones.weights import random_weights

Width = Annotated[int, Field(ge=1)]


class SanetConfig(BackboneConfig):
    """SANet: residual convolutions on the raw waveform, with attention between them; see sanet/backbone.py.

    precision: for the forward pass. sample_rate: Hz.
    size: `base` ends with 512 channels, `tiny` is for trying things out.
    channels, num_heads: for the four residual blocks, and for the attention; null takes those of `size`.
    dropout: in training.
    clip_s: seconds that every item is cut to, from its start, or padded to with silence; null keeps the
        item's length.
    seed: for the initial weights, which only `finetune` changes.
    """

    kind: Literal["sanet"]
    precision: Precision = "fp32"
    sample_rate: int = Field(16000, ge=1000)
    size: Literal["tiny", "base"] = "base"
    channels: tuple[Width, Width, Width, Width] | None = None
    num_heads: int | None = Field(None, ge=1)
    dropout: float = Field(0.1, ge=0, lt=1)
    clip_s: float | None = Field(4.0, gt=0)
    seed: int = 0

    not_in_fingerprint = BackboneConfig.not_in_fingerprint | {"seed", "dropout"}


@dataclass(frozen=True)
class Architecture:
    """Sizes of the four residual blocks, and of the attention after the last two of them.

    reduced: attention's channels as a fraction of its block's. num_positions: for 4 s at 16 kHz.
    """

    channels: tuple[int, int, int, int]
    num_heads: int
    kernel_sizes: tuple[int, int, int, int] = (9, 7, 5, 5)
    strides: tuple[int, int, int, int] = (4, 4, 2, 2)
    attention_stride: int = 4
    reduced: float = 0.5
    num_positions: tuple[int, int] = (500, 250)


SIZES = {
    "tiny": Architecture(channels=(8, 16, 24, 32), num_heads=2),
    "base": Architecture(channels=(64, 128, 256, 512), num_heads=8),
}


class AttentionEncoder(nn.Module):
    """Residual blocks to 1/32 of the samples -> attention -> one more to 1/64 -> attention.

    64,000 samples become 2,000 frames, attended to as 500 tokens, and then 1,000, attended to as 250.
    """

    def __init__(self, architecture: Architecture = SIZES["base"], dropout: float = 0.1) -> None:
        super().__init__()
        a = architecture
        sizes = zip((1, *a.channels), a.channels, a.kernel_sizes, a.strides, strict=False)
        self.blocks = nn.ModuleList(ResBlock1D(*size, dropout=dropout) for size in sizes)
        self.attention = nn.ModuleList(
            DownsampledAttentionBlockDecoupled(
                channels, int(a.reduced * channels), a.num_heads, a.attention_stride, positions, dropout
            )
            for channels, positions in zip(a.channels[2:], a.num_positions, strict=True)
        )

    def forward(self, waveforms: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """(batch, 1, samples), lengths (batch,) or None -> (batch, channels, frames), their lengths."""
        x = waveforms
        for block in self.blocks[:3]:
            x, lengths = block(x, lengths)
        x, lengths = self.blocks[3](self.attention[0](x, lengths), lengths)
        return self.attention[1](x, lengths), lengths


class Sanet(WaveformBackbone):
    """Frames of an `AttentionEncoder`, one per 64 samples, rounded up."""

    config_type = SanetConfig
    config: SanetConfig
    first_centre = 0.0

    def __init__(self, config: SanetConfig) -> None:
        super().__init__(config)
        size = SIZES[config.size]
        self.architecture = Architecture(
            channels=config.channels or size.channels, num_heads=config.num_heads or size.num_heads
        )
        self.encoder = random_weights(
            config.seed, lambda: AttentionEncoder(self.architecture, config.dropout)
        )
        self.dim = self.architecture.channels[-1]
        self.hop_length: int = math.prod(self.architecture.strides)

    def frames_of(self, length: int) -> int:
        return -(-length // self.hop_length)

    def encode(self, x: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor | None]:
        return self.encoder(x, lengths)  # type: ignore[no-any-return]

    def stages(self) -> Sequence[Sequence[nn.Module]]:
        blocks, attention = self.encoder.blocks, self.encoder.attention
        return [[blocks[0]], [blocks[1]], [blocks[2]], [attention[0]], [blocks[3]], [attention[1]]]

    def fingerprint(self) -> dict[str, Any]:
        return super().fingerprint() | {
            "architecture": asdict(self.architecture),
            "preprocessing": {"clip_length": self.clip_length},
        }
