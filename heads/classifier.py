"""The whole segment head, from stored frames to logits."""

import torch
from torch import Tensor, nn

from stillwave.heads.base import Head, Outputs
from stillwave.heads.bounds import Count, Dropout, Part
from stillwave.heads.layers import LayerMix, Standardise
from stillwave.heads.masks import zero_padding
from stillwave.heads.pooling import PoolingType, SegmentAttentionPooling
from stillwave.heads.temporal import TemporalConv, check_convolutions


class SegmentClassifier(Head):
    """Standardise -> layer mix -> mean removal -> temporal convolutions -> segment pooling -> MLP.

    dim, num_layers: stored frames are (frames, dim) if num_layers is 1, else (frames, layers, dim).
    mean_removal: the fraction of each utterance's mean that is subtracted, 0 to 1. Part of the mean is the
        recording's level and channel, part of it is the speech.
    channels, strides, kernel_size: as in `TemporalConv`, one convolution per stride; with empty strides
        there is no encoder, and the frames go straight to the pooling.
    num_segments, pooling_type, num_heads, pooling_dropout, use_temporal_encoding: as in
        `SegmentAttentionPooling`.
    hidden: width of the MLP's one hidden layer, fed with mean and deviation of the segment vectors.
    encoder_dropout: drops whole channels in the convolutions. dropout: inside the MLP.

    Padding changes nothing: the logits of an item do not depend on its batch.
    """

    def __init__(
        self,
        dim: int,
        num_classes: int,
        *,
        num_layers: int = 1,
        mean_removal: Part = 0.0,
        channels: Count = 128,
        strides: tuple[Count, ...] = (),
        kernel_size: Count = 5,
        encoder_dropout: Dropout = 0.0,
        num_segments: Count = 8,
        pooling_type: PoolingType = "attention",
        num_heads: Count = 8,
        pooling_dropout: Dropout = 0.1,
        use_temporal_encoding: bool = True,
        hidden: Count = 128,
        dropout: Dropout = 0.5,
    ) -> None:
        super().__init__()
        if not 0 <= mean_removal <= 1:
            raise ValueError(f"mean_removal is {mean_removal}; it is a fraction of the mean, 0 to 1")
        self.mean_removal = mean_removal
        self.standardise = Standardise(num_layers, dim) if num_layers > 1 else Standardise(dim)
        self.layer_mix = LayerMix(num_layers)
        self.encoder = TemporalConv(dim, channels, strides, kernel_size, encoder_dropout) if strides else None
        width = channels if strides else dim
        self.pooling = SegmentAttentionPooling(
            width, num_segments, pooling_type, num_heads, pooling_dropout, use_temporal_encoding
        )
        self.mlp = nn.Sequential(
            nn.LayerNorm(2 * width),
            nn.Dropout(dropout),
            nn.Linear(2 * width, hidden),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, num_classes),
        )

    check = staticmethod(check_convolutions)

    @property
    def standardisers(self) -> tuple[Standardise, ...]:
        """The standardiser to fit on the training rows' frames."""
        return (self.standardise,)

    @property
    def output(self) -> nn.Linear:
        """The last layer: features to logits."""
        last = self.mlp[-1]
        assert isinstance(last, nn.Linear)
        return last

    def outputs(self, frames: Tensor, lengths: Tensor) -> Outputs:  # type: ignore[override]
        """Lengths are 1 or more. The features are the hidden layer's."""
        if self.layer_mix.num_layers > 1:
            frames = zero_padding(frames, lengths)  # 0 * NaN would enter the weights' gradient
        x: Tensor = self.layer_mix(self.standardise(frames))
        if self.mean_removal:
            mean = zero_padding(x, lengths).sum(1, keepdim=True) / lengths[:, None, None]
            x = x - self.mean_removal * mean
        if self.encoder is not None:
            x, lengths = self.encoder(x, lengths)
        segments = self.pooling(x, lengths)
        # Deviation as a distance to the mean, not sqrt of a variance: its gradient is finite at zero, which
        # occurs for a one-frame item.
        mean = segments.mean(1)
        deviation = (segments - mean[:, None]).square().mean(1).add(1e-6).sqrt()
        features = self.mlp[:-1](torch.cat([mean, deviation], -1))
        return Outputs(self.output(features), features)
