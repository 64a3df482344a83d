"""A small convolutional encoder of raw waveforms, to be trained from scratch."""

import math
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from stillwave.pipeline.backbones.config import BackboneConfig, Precision
from stillwave.pipeline.backbones.convolutions import MaskedBatchNorm, WaveformBackbone, convolved, zero_time
from stillwave.pipeline.backbones.weights import random_weights

LOWEST_HZ = 60.0
HIGHEST = 0.95  # upper end of the highest band, as a fraction of half the sample rate


Sizes = Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1)]


class Cnn1dConfig(BackboneConfig):
    """Convolutions of the raw waveform, each with batch norm, ReLU, max pooling and dropout.

    precision: for the forward pass. sample_rate: Hz.
    channels, kernel_sizes, strides, pools: one per layer. A pool of n keeps the largest of every n frames.
    dropout: drops whole channels after each layer, in training.
    clip_s: seconds that every item is cut to, from its start, or padded to with silence, so that all have the
        same number of frames; null: the number of frames follows the item's length.
    filters: initial weights of the first layer: `random`, or band-pass filters along the `mel` scale, which
        on speech saves it most of what there is to learn.
    seed: for the initial weights, which only `finetune` changes.
    """

    kind: Literal["cnn1d"]
    precision: Precision = "fp32"
    sample_rate: int = Field(16000, ge=1000)
    channels: Sizes = (64, 128, 256)
    kernel_sizes: Sizes = (160, 9, 5)
    strides: Sizes = (16, 2, 1)
    pools: Sizes = (4, 2, 2)
    dropout: float = Field(0.1, ge=0, lt=1)
    clip_s: float | None = Field(1.0, gt=0)
    filters: Literal["random", "mel"] = "random"
    seed: int = 0

    not_in_fingerprint = BackboneConfig.not_in_fingerprint | {"seed", "dropout", "filters"}

    @model_validator(mode="after")
    def _one_of_each_per_layer(self) -> "Cnn1dConfig":
        fields = {name: getattr(self, name) for name in ("channels", "kernel_sizes", "strides", "pools")}
        if len({len(sizes) for sizes in fields.values()}) > 1:
            raise ValueError(f"{fields} must be of one length, one number per layer")
        return self


class Cnn1d(WaveformBackbone):
    """Layers of convolution -> batch norm -> ReLU -> max pooling -> channel dropout, over samples.

    Weights start as in He et al. (arXiv 1502.01852), so a waveform keeps its scale through all layers,
    trained or not.
    """

    config_type = Cnn1dConfig
    config: Cnn1dConfig
    hop_length: int

    def __init__(self, config: Cnn1dConfig) -> None:
        super().__init__(config)
        self.layers = random_weights(config.seed, lambda: _layers(config))
        self.dim = config.channels[-1]
        self.hop_length, self.first_centre = 1, 0.0
        for layer in self.layers:
            assert isinstance(layer, Layer)
            hop = self.hop_length * layer.stride
            self.first_centre += self.hop_length * ((layer.kernel_size - 1) / 2 - layer.padding)
            self.first_centre += hop * (layer.pool - 1) / 2
            self.hop_length = hop * layer.pool
        if self.clip_length is not None and not self.frames_of(self.clip_length):
            raise ValueError(
                f"clip_s {config.clip_s}: {self.clip_length} samples are too few for one frame; "
                "use a longer clip, or smaller strides and pools"
            )

    def frames_of(self, length: int) -> int:
        for layer in self.layers:
            assert isinstance(layer, Layer)
            length = layer.num_frames(length)
        return length

    def encode(self, x: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor | None]:
        for layer in self.layers:
            x, lengths = layer(x, lengths)
        return x, lengths

    def stages(self) -> Sequence[Sequence[nn.Module]]:
        return [[layer] for layer in self.layers]

    def fingerprint(self) -> dict[str, Any]:
        return super().fingerprint() | {"preprocessing": {"clip_length": self.clip_length}}


class Layer(nn.Module):
    """Convolution -> batch norm -> ReLU -> max pooling -> channel dropout."""

    def __init__(
        self, inputs: int, outputs: int, kernel_size: int, stride: int, pool: int, dropout: float
    ) -> None:
        super().__init__()
        self.kernel_size, self.stride, self.pool = kernel_size, stride, pool
        self.padding = (kernel_size - 1) // 2
        self.conv = nn.Conv1d(inputs, outputs, kernel_size, stride, self.padding, bias=False)
        self.norm = MaskedBatchNorm(outputs)
        self.dropout = nn.Dropout1d(dropout)
        nn.init.kaiming_normal_(self.conv.weight, nonlinearity="relu")

    def num_frames(self, length: int) -> int:
        """Frames out for frames in; the last ones that do not fill a pool are dropped."""
        return convolved(length, self.kernel_size, self.stride, self.padding) // self.pool

    def forward(self, x: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """(batch, inputs, time), lengths (batch,) or None for all of it -> (batch, outputs, frames), its."""
        # The convolution pads a single item with zeros; do the same for items shorter than their batch.
        x = self.conv(zero_time(x, lengths))
        if lengths is not None:
            spans = lengths + 2 * self.padding - self.kernel_size
            lengths = spans.div(self.stride, rounding_mode="floor") + 1
        x = nn.functional.max_pool1d(self.norm(x, lengths).relu(), self.pool)
        if lengths is not None:
            lengths = lengths.div(self.pool, rounding_mode="floor")
        return self.dropout(x), lengths


def _layers(config: Cnn1dConfig) -> nn.ModuleList:
    sizes = zip(config.channels, config.kernel_sizes, config.strides, config.pools, strict=True)
    inputs = (1, *config.channels)
    layers = [Layer(n, *size, config.dropout) for n, size in zip(inputs, sizes, strict=False)]
    if config.filters == "mel":
        filters = band_filters(config.channels[0], config.kernel_sizes[0], config.sample_rate)
        # The same scale as in He et al.
        layers[0].conv.weight.data = math.sqrt(2) * filters[:, None]
    return nn.ModuleList(layers)


def band_filters(count: int, kernel_size: int, sample_rate: int) -> Tensor:
    """(count, kernel_size): windowed cosines, one per band, with random phase and unit energy.

    Centres are equally spaced on the mel scale (2595 log10(1 + f / 700)); a band is as wide as the distance
    to its neighbours, but no narrower than the kernel allows. The windows are Gaussian, the filters those of
    Gabor, as learnable front ends start (Zeghidour et al., "LEAF", ICLR 2021). Phases are torch's draws.
    """
    low, high = (2595 * math.log10(1 + hz / 700) for hz in (LOWEST_HZ, HIGHEST * sample_rate / 2))
    edges = 700 * (10 ** (torch.linspace(low, high, count + 2, dtype=torch.float64) / 2595) - 1)
    width = ((edges[2:] - edges[:-2]) / 2).clamp(min=sample_rate / kernel_size)
    time = (torch.arange(kernel_size, dtype=torch.float64) - (kernel_size - 1) / 2) / sample_rate
    deviation = 1.6 / (2 * math.pi * width)  # in seconds; so that neighbours overlap
    phase = 2 * math.pi * torch.rand(count, dtype=torch.float64)
    window = torch.exp(-0.5 * (time / deviation[:, None]) ** 2)
    filters: Tensor = window * torch.cos(2 * math.pi * edges[1:-1, None] * time + phase[:, None])
    filters = filters / filters.norm(dim=1, keepdim=True)
    return filters.float()
