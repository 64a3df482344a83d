"""The FastConformer encoder (arXiv 2305.05084): subsampling by eight, then Conformer layers (2005.08100).

Parameters are named as in transformers' ParakeetEncoder, so that one state dict serves both.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from stillwave.heads.masks import on_host, valid_mask
from stillwave.pipeline.backbones.convolutions import MaskedBatchNorm

SUBSAMPLING = 8


@dataclass(frozen=True)
class Architecture:
    """Sizes of an encoder, and the switches that change its numbers.

    use_bias: for every layer except the projection of the positions, which has none.
    scale_input: whether the input of the first layer is multiplied by sqrt(d_model).
    """

    d_model: int
    num_layers: int
    num_heads: int
    ff_dim: int
    num_mels: int = 80
    subsampling_channels: int = 256
    conv_kernel: int = 9
    use_bias: bool = True
    scale_input: bool = True

    def __post_init__(self) -> None:
        if self.d_model % self.num_heads or self.d_model % 2:
            raise ValueError(
                f"d_model {self.d_model} must be even and a multiple of num_heads {self.num_heads}"
            )
        if self.conv_kernel % 2 == 0:
            raise ValueError(f"conv_kernel {self.conv_kernel} must be odd")


def subsampled(lengths: Tensor) -> Tensor:
    """Frames for so many mel frames: one per group of eight, even if incomplete."""
    return (lengths + SUBSAMPLING - 1) // SUBSAMPLING


class Conformer(nn.Module):
    """Log-mel frames to hidden states, masked throughout: an item's states do not depend on its padding.

    dropout acts on the input of the first layer, in the feed-forward modules, on the attention weights, and
    on each module's residual.
    """

    def __init__(self, architecture: Architecture, dropout: float = 0.1) -> None:
        super().__init__()
        self.scale = math.sqrt(architecture.d_model) if architecture.scale_input else 1.0
        self.subsampling = Subsampling(architecture)
        self.dropout = nn.Dropout(dropout)
        self.layers = nn.ModuleList(Layer(architecture, dropout) for _ in range(architecture.num_layers))

    def forward(self, mels: Tensor, lengths: Tensor) -> list[Tensor]:
        """(batch, mel frames, num_mels), valid mel frames -> states 0.. of (batch, frames, d_model) each.

        State 0 is the input of the first layer. The number of frames is `subsampled` of the mel frames.
        """
        hidden = self.subsampling(mels, lengths) * self.scale
        mask = valid_mask(subsampled(lengths), hidden.shape[1])
        positions = relative_positions(hidden.shape[1], hidden.shape[2], hidden.device)
        states = [self.dropout(hidden)]
        for layer in self.layers:
            states.append(layer(states[-1], mask, positions))
        return states


class Subsampling(nn.Module):
    """Three strided convolutions over time and bands, the last two depthwise separable, then a projection."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        channels = architecture.subsampling_channels
        self.layers = nn.ModuleList([_halving(1, channels), nn.ReLU()])
        for _ in range(2):
            pointwise = nn.Conv2d(channels, channels, 1)
            self.layers.extend([_halving(channels, channels, groups=channels), pointwise, nn.ReLU()])
        bands = math.ceil(architecture.num_mels / SUBSAMPLING)
        self.linear = nn.Linear(channels * bands, architecture.d_model)

    def forward(self, mels: Tensor, lengths: Tensor) -> Tensor:
        """(batch, mel frames, num_mels), valid mel frames -> (batch, frames, d_model)."""
        hidden = mels[:, None]  # (batch, channels, time, bands)
        for layer in self.layers:
            if getattr(layer, "stride", None) == (2, 2):
                # Beyond an item's end a convolution sees zeros, as beyond the end of a batch.
                mask = valid_mask(lengths, hidden.shape[2])[:, None, :, None]
                hidden = hidden.masked_fill(~mask, 0)
                lengths = (lengths + 1) // 2
            hidden = layer(hidden)
        projected: Tensor = self.linear(hidden.transpose(1, 2).flatten(2))
        return projected


def _halving(inputs: int, outputs: int, groups: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel_size=3, stride=2, padding=1, groups=groups)


def relative_positions(num_frames: int, dim: int, device: torch.device) -> Tensor:
    """(2 * num_frames - 1, dim): sines and cosines of the distances num_frames - 1 down to 1 - num_frames."""
    distance = torch.arange(num_frames - 1, -num_frames, -1, device=device, dtype=torch.float32)
    rate = torch.exp(torch.arange(0, dim, 2, device=device) * (-math.log(10000) / dim))
    angle = distance[:, None] * rate
    return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1)


class Layer(nn.Module):
    """Half a feed-forward module, self-attention, convolution, the other half, and a norm."""

    def __init__(self, architecture: Architecture, dropout: float) -> None:
        super().__init__()
        self.norm_feed_forward1 = nn.LayerNorm(architecture.d_model)
        self.feed_forward1 = FeedForward(architecture, dropout)
        self.norm_self_att = nn.LayerNorm(architecture.d_model)
        self.self_attn = RelativeAttention(architecture, dropout)
        self.norm_conv = nn.LayerNorm(architecture.d_model)
        self.conv = Convolution(architecture)
        self.norm_feed_forward2 = nn.LayerNorm(architecture.d_model)
        self.feed_forward2 = FeedForward(architecture, dropout)
        self.norm_out = nn.LayerNorm(architecture.d_model)
        self.dropout = nn.Dropout(dropout)

    def forward(self, hidden: Tensor, mask: Tensor, positions: Tensor) -> Tensor:
        """hidden: (batch, frames, d_model); mask: (batch, frames), True where valid. Same shape out."""
        hidden = hidden + 0.5 * self.dropout(self.feed_forward1(self.norm_feed_forward1(hidden)))
        hidden = hidden + self.dropout(self.self_attn(self.norm_self_att(hidden), mask, positions))
        hidden = hidden + self.dropout(self.conv(self.norm_conv(hidden), mask))
        hidden = hidden + 0.5 * self.dropout(self.feed_forward2(self.norm_feed_forward2(hidden)))
        normed: Tensor = self.norm_out(hidden)
        return normed


class FeedForward(nn.Module):
    """Two linear layers with a SiLU between them."""

    def __init__(self, architecture: Architecture, dropout: float) -> None:
        super().__init__()
        self.linear1 = nn.Linear(architecture.d_model, architecture.ff_dim, bias=architecture.use_bias)
        self.linear2 = nn.Linear(architecture.ff_dim, architecture.d_model, bias=architecture.use_bias)
        self.dropout = nn.Dropout(dropout)

    def forward(self, hidden: Tensor) -> Tensor:
        out: Tensor = self.linear2(self.dropout(functional.silu(self.linear1(hidden))))
        return out


class RelativeAttention(nn.Module):
    """Multi-head attention with the relative positions of Transformer-XL (arXiv 1901.02860, section 3.3).

    The score of query i and key j is (q_i + u) k_j + (q_i + v) r_{i-j}, over sqrt of the head's size.
    """

    def __init__(self, architecture: Architecture, dropout: float) -> None:
        super().__init__()
        dim, use_bias = architecture.d_model, architecture.use_bias
        self.heads = (architecture.num_heads, dim // architecture.num_heads)
        self.q_proj = nn.Linear(dim, dim, bias=use_bias)
        self.k_proj = nn.Linear(dim, dim, bias=use_bias)
        self.v_proj = nn.Linear(dim, dim, bias=use_bias)
        self.o_proj = nn.Linear(dim, dim, bias=use_bias)
        self.relative_k_proj = nn.Linear(dim, dim, bias=False)
        self.bias_u = nn.Parameter(torch.zeros(self.heads))
        self.bias_v = nn.Parameter(torch.zeros(self.heads))
        self.dropout = dropout

    def forward(self, hidden: Tensor, mask: Tensor, positions: Tensor) -> Tensor:
        """As `Layer.forward`."""
        query = self.q_proj(hidden).unflatten(-1, self.heads)  # (batch, frames, heads, size)
        key = self.k_proj(hidden).unflatten(-1, self.heads).transpose(1, 2)
        value = self.v_proj(hidden).unflatten(-1, self.heads).transpose(1, 2)
        distant = self.relative_k_proj(positions).unflatten(-1, self.heads).permute(1, 2, 0)
        by_distance = (query + self.bias_v).transpose(1, 2) @ distant  # (batch, heads, frames, distances)
        bias = _by_key(by_distance) / math.sqrt(self.heads[1])
        attended = functional.scaled_dot_product_attention(
            (query + self.bias_u).transpose(1, 2).to(value.dtype),
            key,
            value,
            attn_mask=bias.masked_fill(~mask[:, None, None, :], -torch.inf).to(value.dtype),
            dropout_p=self.dropout if self.training else 0.0,
        )
        out: Tensor = self.o_proj(attended.transpose(1, 2).flatten(2))
        return out


def _by_key(scores: Tensor) -> Tensor:
    """(.., n, 2n - 1) scores by query and distance n-1..1-n -> (.., n, n) by query and key.

    Key j of query i is at distance i - j, which is column n - 1 - i + j: one step to the left per row.
    """
    n = scores.shape[-2]
    if torch.compiler.is_exporting():  # ONNX has no windows of unknown size
        steps = torch.arange(n, device=scores.device)
        return scores.gather(-1, (n - 1 - steps[:, None] + steps).expand(*scores.shape[:-2], n, n))
    return scores.flatten(-2)[..., n - 1 :].unfold(-1, n, max(1, 2 * n - 2))


class Convolution(nn.Module):
    """Gated pointwise, depthwise over time, batch norm, SiLU, pointwise."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        dim, kernel, use_bias = architecture.d_model, architecture.conv_kernel, architecture.use_bias
        self.pointwise_conv1 = nn.Conv1d(dim, 2 * dim, 1, bias=use_bias)
        self.depthwise_conv = nn.Conv1d(dim, dim, kernel, padding=kernel // 2, groups=dim, bias=use_bias)
        self.norm = MaskedBatchNorm(dim)
        self.pointwise_conv2 = nn.Conv1d(dim, dim, 1, bias=use_bias)

    def forward(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """As `Layer.forward`."""
        gated = functional.glu(self.pointwise_conv1(hidden.transpose(1, 2)), dim=1)
        mixed = self.depthwise_conv(gated.masked_fill(~mask[:, None], 0))
        mixed = functional.silu(self._normalise(mixed, mask))
        out: Tensor = self.pointwise_conv2(mixed).transpose(1, 2)
        return out

    def _normalise(self, mixed: Tensor, mask: Tensor) -> Tensor:
        """Batch norm of (batch, channels, frames), over valid frames only, in training."""
        if not self.norm.training:
            normed: Tensor = self.norm(mixed)
            return normed
        if not on_host(mask):  # picking frames out would wait for their number
            return self.norm(mixed, mask.sum(1))  # type: ignore[no-any-return]
        valid = self.norm(mixed.transpose(1, 2)[mask])
        spread: Tensor = valid.new_zeros(*mask.shape, valid.shape[1])
        spread[mask] = valid
        return spread.transpose(1, 2)
