"""wav2vec 2.0 frames (arXiv 2006.11477) that do not depend on the batch they were computed in."""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from stillwave.heads.devices import widest
from stillwave.heads.masks import on_host, valid_mask
from stillwave.pipeline.backbones.base import Frames
from stillwave.pipeline.backbones.config import PretrainedConfig
from stillwave.pipeline.backbones.numerics import compute_in, hold_weights, item_moments
from stillwave.pipeline.backbones.transformer import TransformerBackbone, load_transformer, select_layers
from stillwave.pipeline.backbones.weights import read_json

WAVEFORM_EPSILON = 1e-7  # as in transformers' Wav2Vec2FeatureExtractor

# The real kernels and strides, so 20 ms frames at every size. 'large' is the layer-norm model, like XLS-R.
SIZES: dict[str, dict[str, Any]] = {
    "tiny": {
        "conv_dim": (32, 32, 32, 32, 64, 64, 64), "hidden_size": 96, "num_hidden_layers": 3,
        "num_attention_heads": 4, "intermediate_size": 192, "num_conv_pos_embeddings": 32,
        "num_conv_pos_embedding_groups": 8,
    },
    "base": {},
    "large": {
        "hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096,
        "feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True,
    },
}  # fmt: skip


class Wav2Vec2Config(PretrainedConfig):
    """wav2vec 2.0, with group norm (base) or layer norm (XLS-R and its kin) in the convolutions."""

    kind: Literal["wav2vec2"]
    weights: str = Field("facebook/wav2vec2-base", min_length=1)
    size: Literal["tiny", "base", "large"] = "base"


class Wav2Vec2(TransformerBackbone):
    """Hidden states of a wav2vec 2.0 encoder, one frame per 320 samples at 16 kHz.

    The convolutions and the encoder are transformers' modules, called by our own loop, because theirs lets
    the first layer's group norm average over padding (relative error 0.4 on the base model). Dropout acts in
    train mode as published; layer drop and SpecAugment are not implemented.
    """

    config_type = Wav2Vec2Config
    config: Wav2Vec2Config
    modality = "audio"
    version = 2  # 2: the first convolution and its group norm in one step
    architecture_fields = (
        "feat_extract_norm", "feat_extract_activation", "conv_kernel", "conv_stride", "do_stable_layer_norm",
        "num_attention_heads", "hidden_act", "layer_norm_eps", "num_conv_pos_embedding_groups",
    )  # fmt: skip

    def __init__(self, config: Wav2Vec2Config) -> None:
        import transformers

        unused = ("masked_spec_embed", "adapter.")
        model, folder = load_transformer(config, transformers.Wav2Vec2Model, SIZES, unused)
        super().__init__(config, model.config)
        preprocessor = read_json(folder / "preprocessor_config.json") if folder else {}
        self.do_normalize = bool(preprocessor.get("do_normalize", True))
        self.sample_rate = int(preprocessor.get("sampling_rate", 16000))
        # Parts, not the whole: heads, adapter and mask embedding are in neither the hash nor the optimiser.
        self.feature_extractor = model.feature_extractor
        self.feature_projection = model.feature_projection
        self.encoder = model.encoder
        self.strides = list(zip(model.config.conv_kernel, model.config.conv_stride, strict=True))
        self.hop_length, self.first_centre = _geometry(self.strides)

    def num_frames(self, length: int) -> int:
        for kernel, stride in self.strides:
            length = (length - kernel) // stride + 1
        return max(0, length)

    def forward(self, batch: Tensor, lengths: Tensor) -> Frames:
        lengths = self.checked(lengths, batch.device)
        with compute_in(self.config.precision, batch.device):
            if self.do_normalize:
                mean, variance = item_moments(batch, lengths)
                batch = (batch - mean) * torch.rsqrt(variance + WAVEFORM_EPSILON)
            hidden, lengths = self._convolve(batch, lengths)
            hidden, _ = self.feature_projection(hidden)
            states = self._encode(hidden, valid_mask(lengths, hidden.shape[1]))
        return Frames(select_layers(states, self.layers), lengths)

    def _convolve(self, batch: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """(batch, samples) -> (batch, frames, channels) and valid frames per item.

        A valid output frame sees valid inputs only, so only the group norm needs lengths.
        """
        hidden = batch[:, None]
        for layer, (kernel, stride) in zip(self.feature_extractor.conv_layers, self.strides, strict=True):
            lengths = (lengths - kernel).div(stride, rounding_mode="floor") + 1
            norm = getattr(layer, "layer_norm", None)
            if isinstance(norm, nn.GroupNorm):
                hidden = layer.activation(_normed_convolution(layer.conv, norm, hidden[:, 0], lengths))
            elif self.config.precision != "fp32" and frozen_on_a_gpu(hidden):
                hidden = _channels_last(layer, hidden)
            else:
                hidden = layer(hidden)
        return hidden.transpose(1, 2), lengths

    def _encode(self, hidden: Tensor, mask: Tensor) -> list[Tensor]:
        """(batch, frames, dim) -> the states 0.. up to the last one wanted, each of the same shape."""
        encoder = self.encoder
        stable = self.architecture.do_stable_layer_norm
        hidden = hidden.masked_fill(~mask[..., None], 0)  # the positional convolution sees beyond the end
        embed = encoder.pos_conv_embed
        hidden = hidden + (_as_matmul(embed, hidden) if frozen_on_a_gpu(hidden) else embed(hidden))
        if not stable:
            hidden = encoder.layer_norm(hidden)
        states = [encoder.dropout(hidden)]
        for layer in encoder.layers[: max(self.layers)]:
            states.append(layer(states[-1], attention_mask=mask[:, None, None, :]))
        if stable and len(states) > len(encoder.layers):
            states[-1] = encoder.layer_norm(states[-1])  # so that the last of `all` is `last`
        return states

    def stages(self) -> Sequence[Sequence[nn.Module]]:
        encoder, used = self.encoder, max(self.layers)
        before = [self.feature_projection, encoder.pos_conv_embed]
        layers = [[layer] for layer in encoder.layers[:used]]
        if not self.architecture.do_stable_layer_norm:
            before.append(encoder.layer_norm)
        elif used == len(encoder.layers):
            layers[-1].append(encoder.layer_norm)
        return [[self.feature_extractor], before, *layers]

    def hold_weights(self, precision: str) -> None:
        """As in the base class; but weights that a weight norm still scales are rounded after it."""
        first = self.feature_extractor.conv_layers[0]
        normed = isinstance(getattr(first, "layer_norm", None), nn.GroupNorm)
        hold_weights(self, precision, keep=[first.conv] if normed else [])

    def preprocessing(self) -> dict[str, Any]:
        return {"do_normalize": self.do_normalize, "sample_rate": self.sample_rate}


def _normed_convolution(conv: nn.Conv1d, norm: nn.GroupNorm, waveforms: Tensor, lengths: Tensor) -> Tensor:
    """The first layer: norm(conv(waveforms)), each channel normalised over each item's own frames.

    waveforms: (batch, samples). lengths: (batch,) valid frames. Returns (batch, channels, frames).
    A channel is a weighted sum of a window's samples, so its mean and variance over time follow from the mean
    and covariance of the windows, 10 and 10 x 10 numbers per item (in fp64: a filter may cancel nearly all
    of the power). They go into per-item weights, and the largest tensor of the model is written once instead
    of four times: a third of the time of convolving, averaging and scaling separately, as is done on Apple's
    GPUs, which have no fp64.
    """
    if widest(waveforms.device) != torch.float64:
        return _normed_in_turn(conv, norm, waveforms, lengths)
    windows = waveforms.unfold(-1, conv.kernel_size[0], conv.stride[0])  # (batch, frames, kernel)
    weight = conv.weight[:, 0].float()
    moments = _moments if on_host(windows) else _masked_moments
    mean, variance = moments(windows, lengths, weight.double())
    scale = norm.weight * torch.rsqrt(variance.float() + norm.eps)
    shift = norm.bias - mean.float() * scale
    # A bias of the convolution would be a constant, which the norm removes again.
    return torch.baddbmm(shift[..., None], weight * scale[..., None], windows.transpose(1, 2))


def _normed_in_turn(conv: nn.Conv1d, norm: nn.GroupNorm, waveforms: Tensor, lengths: Tensor) -> Tensor:
    """`_normed_convolution` in fp32, as torch's modules do it, but ignoring padding."""
    hidden = nn.functional.conv1d(waveforms[:, None], conv.weight.float(), stride=conv.stride)
    mean, variance = item_moments(hidden, lengths)
    scale = norm.weight[:, None] * torch.rsqrt(variance + norm.eps)
    return (hidden - mean) * scale + norm.bias[:, None]


def _moments(windows: Tensor, lengths: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance over time of each channel, (batch, channels) float64; weight (channels, kernel)."""
    means, variances = [], []
    for item, length in zip(windows, lengths.tolist(), strict=True):
        own = item[:length].double()
        mean = own.mean(dim=0)
        covariance = (own - mean).T @ (own - mean) / length
        means.append(weight @ mean)
        variances.append((weight @ covariance * weight).sum(dim=1))
    return torch.stack(means), torch.stack(variances)


def _masked_moments(windows: Tensor, lengths: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """`_moments` without a loop, for a GPU and for exported graphs."""
    inside = valid_mask(lengths, windows.shape[1])[..., None]
    count = lengths[:, None, None]
    mean = torch.where(inside, windows.double(), 0).sum(1, keepdim=True) / count
    centred = torch.where(inside, windows - mean, 0)
    covariance = centred.transpose(1, 2) @ centred / count
    return mean[:, 0] @ weight.T, (weight @ covariance * weight).sum(-1)


def frozen_on_a_gpu(hidden: Tensor) -> bool:
    """Whether cuDNN would run these without a gradient; if so, faster code replaces it."""
    return hidden.is_cuda and not torch.is_grad_enabled()


def _channels_last(layer: Any, hidden: Tensor) -> Tensor:
    """Apply `layer`, one of the convolutions, to (batch, channels, frames) in half precision.

    Tensor cores want channels last; cuDNN converts to that and back in each layer, at half the speed (on an
    H100 1.1 ms against 2.6). So channels stay last from one layer to the next.
    """
    weight = layer.conv.weight[:, :, None].contiguous(memory_format=torch.channels_last)
    hidden = hidden[:, :, None].contiguous(memory_format=torch.channels_last)
    stride = (1, *layer.conv.stride)
    hidden = nn.functional.conv2d(hidden, weight, layer.conv.bias, stride=stride)[:, :, 0]
    if isinstance(norm := getattr(layer, "layer_norm", None), nn.LayerNorm):
        hidden = norm(hidden.transpose(1, 2)).transpose(1, 2)
    activated: Tensor = layer.activation(hidden)
    return activated


def _as_matmul(embed: Any, hidden: Tensor) -> Tensor:
    """Apply `embed`, the positional convolution, to (batch, frames, dim), by one matrix product per group.

    cuDNN computes its 16 groups one after the other, without tensor cores: three quarters of the time of
    wav2vec2-base on an H100.
    """
    conv = embed.conv
    (kernel,), groups = conv.kernel_size, conv.groups
    values = hidden.transpose(1, 2).to(conv.weight.dtype)
    values = nn.functional.pad(values, (kernel // 2, (kernel - 1) // 2)).unflatten(1, (groups, -1))
    windows = values.transpose(0, 1).unfold(-1, kernel, 1)  # (groups, batch, channels, frames, kernel)
    windows = windows.transpose(2, 3).flatten(3).flatten(1, 2)  # (groups, batch * frames, channels * kernel)
    weight = conv.weight.flatten(1).unflatten(0, (groups, -1))  # (groups, channels, channels * kernel)
    bias = conv.bias.view(groups, 1, -1)
    found = torch.baddbmm(bias, windows, weight.transpose(1, 2)).unflatten(1, hidden.shape[:2])
    activated: Tensor = embed.activation(found.permute(1, 2, 0, 3).flatten(2))
    return activated


def _geometry(strides: list[tuple[int, int]]) -> tuple[int, float]:
    """Samples between two frames, and the sample at the centre of the first frame."""
    hop, seen = 1, 1
    for kernel, stride in strides:
        seen += (kernel - 1) * hop
        hop *= stride
    return hop, seen / 2
