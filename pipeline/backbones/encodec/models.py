"""The two published EnCodec models: what the weights leave open, and what both implementations share."""

from typing import Any, NamedTuple, TypeVar

import torch
from torch import nn
from torch.nn.utils import parametrize

M = TypeVar("M", bound=nn.Module)

HOP_LENGTH = 320  # samples per frame at either rate: the product of the ratios
_COMMON = {
    "upsampling_ratios": [8, 5, 4, 2], "num_residual_layers": 1, "dilation_growth_rate": 2,
    "use_conv_shortcut": True, "pad_mode": "reflect", "codebook_size": 1024,
}  # fmt: skip
# The two published models, in the terms of transformers' EncodecConfig: what the weights' shapes leave open.
MODELS: dict[str, dict[str, Any]] = {
    "24khz": _COMMON | {
        "sampling_rate": 24000, "audio_channels": 1, "norm_type": "weight_norm", "use_causal_conv": True,
        "normalize": False, "chunk_length_s": None, "overlap": None,
        "target_bandwidths": [1.5, 3.0, 6.0, 12.0, 24.0],
    },
    "48khz": _COMMON | {
        "sampling_rate": 48000, "audio_channels": 2, "norm_type": "time_group_norm", "use_causal_conv": False,
        "normalize": True, "chunk_length_s": 1.0, "overlap": 0.01,
        "target_bandwidths": [3.0, 6.0, 12.0, 24.0],
    },
}  # fmt: skip
SIZES: dict[str, dict[str, Any]] = {
    "tiny": {"num_filters": 8, "hidden_size": 32},
    "base": {"num_filters": 32, "hidden_size": 128},
}

# Spread of random codebooks: a third of that of a random encoder's frames, so that residuals shrink.
CODEBOOK_STD = {"24khz": 0.01, "48khz": 0.3}


class Codec(NamedTuple):
    """An encoder, (batch, channels, samples) -> (batch, dim, frames), and its residual quantizer.

    quantizer: `encode`, (batch, dim, frames) -> codes (codebooks, batch, frames), and `decode`, the reverse.
    """

    encoder: Any
    quantizer: Any
    dim: int


def num_codebooks(model: str, kbps: float) -> int:
    """Codebooks of ten bits per frame that fit into `kbps`."""
    sample_rate: int = MODELS[model]["sampling_rate"]
    return int(1000 * kbps) // (10 * sample_rate // HOP_LENGTH)


def draw_codebooks(module: M, model: str) -> M:
    """Both implementations leave codebooks at zero until they are trained: every frame would be zero."""
    for name, buffer in module.named_buffers():
        if name.endswith(".embed"):
            buffer.normal_(std=CODEBOOK_STD[model])
    return module


def fold_weight_norm(module: nn.Module) -> None:
    """Replace every weight-normed weight g v / |v| by its value; it stays a parameter.

    In float64, with sums in a fixed order: the result has the same sha256 on every CPU.
    """
    layers: list[Any] = list(module.modules())
    for layer in layers:
        if hasattr(layer, "weight_v"):  # torch's old weight norm, a hook, which the package uses
            gain, direction = layer.weight_g, layer.weight_v
            nn.utils.remove_weight_norm(layer)
        elif parametrize.is_parametrized(layer, "weight"):
            originals = layer.parametrizations.weight
            gain, direction = originals.original0, originals.original1
            parametrize.remove_parametrizations(layer, "weight")
        else:
            continue
        with torch.no_grad():
            squares = direction.double().square().flatten(1).cumsum(1)[:, -1]
            scale = gain.double() / squares.sqrt().view_as(gain)
            layer.weight.copy_(direction.double() * scale)
