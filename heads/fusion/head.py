"""The fusion head, from stored frames of speech and text to logits."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor, nn

from stillwave.heads.base import Head, Outputs
from stillwave.heads.bounds import Count, Dropout, Part
from stillwave.heads.fusion.attention import CrossModalAttention
from stillwave.heads.fusion.gate import FusionLayer
from stillwave.heads.fusion.openmax_classifier import OpenMaxClassifier
from stillwave.heads.fusion.uncertainty import UncertaintyTarget
from stillwave.heads.layers import LayerMix, Standardise, xavier_uniform
from stillwave.heads.masks import zero_padding
from stillwave.heads.statistics import AttentiveStatsPooling
from stillwave.heads.temporal import TemporalConv, check_convolutions

MODALITIES = ("audio", "text")


class FusionClassifier(Head):
    """Per modality: standardise -> layer mix -> cross-modal attention -> statistics; then gate -> classify.

    dims: dimension of the stored frames of each modality, "audio" and "text" or one of them, in input order.
        With one modality there is no attention, and the gate is a tanh layer.
    num_layers: stored layers per modality, 1 unless given.
    mean_removal, channels, strides, kernel_size, encoder_dropout: for the audio, between layer mix and
        attention, as in `SegmentClassifier`; with empty strides there is no encoder.
    shared_dim, num_heads: as in `CrossModalAttention`. fused_dim: size of the gate's output.
    depth, bottleneck: residual blocks of the classifier, and the width inside each.
    base_dim, dropout, anchor_dim: as in `OpenMaxClassifier`.
    checkpoint_every: blocks per checkpoint, whose activations are recomputed in the backward pass; 0: none.
    uncertainty_target: what the uncertainty is trained for; see heads/fusion/uncertainty.py.
    modality_dropout: in training, an item with both modalities loses one of them with this probability,
        either one being equally likely.

    A length of 0 means that the item lacks the modality: nothing attends to it, and a learned vector stands
    in for its statistics. Padding changes nothing: the outputs of an item do not depend on its batch.
    """

    def __init__(
        self,
        dims: Mapping[str, int],
        num_classes: int,
        *,
        num_layers: Mapping[str, int] = MappingProxyType({}),
        shared_dim: Count = 256,
        num_heads: Count = 8,
        fused_dim: Count = 512,
        depth: Count = 35,
        base_dim: Annotated[int, Field(ge=2)] = 512,
        bottleneck: Count = 44,
        dropout: Dropout = 0.15,
        anchor_dim: Count = 128,
        checkpoint_every: Annotated[int, Field(ge=0)] = 5,
        modality_dropout: Dropout = 0.0,
        uncertainty_target: UncertaintyTarget = "correct",
        channels: Count = 128,
        strides: tuple[Count, ...] = (),
        kernel_size: Count = 5,
        encoder_dropout: Dropout = 0.0,
        mean_removal: Part = 0.0,
    ) -> None:
        super().__init__()
        if not dims or set(dims) - set(MODALITIES):
            raise ValueError(f"dims name {sorted(dims)}; name some of {', '.join(MODALITIES)}")
        if not 0 <= mean_removal <= 1:
            raise ValueError(f"mean_removal is {mean_removal}; it is a fraction of the mean, 0 to 1")
        if not 0 <= modality_dropout <= 1:
            raise ValueError(f"modality_dropout is {modality_dropout}; it is a probability, 0 to 1")
        self.modalities = tuple(name for name in MODALITIES if name in dims)
        self.mean_removal, self.modality_dropout = mean_removal, modality_dropout
        layers = {name: num_layers.get(name, 1) for name in self.modalities}
        self.standardise = nn.ModuleDict(
            {n: Standardise(layers[n], dims[n]) if layers[n] > 1 else Standardise(dims[n]) for n in layers}
        )
        self.layer_mix = nn.ModuleDict({name: LayerMix(count) for name, count in layers.items()})
        widths = {name: dims[name] for name in self.modalities}
        self.encoder = None
        if strides and "audio" in widths:
            self.encoder = TemporalConv(widths["audio"], channels, strides, kernel_size, encoder_dropout)
            widths["audio"] = channels
        self.pooling = nn.ModuleDict({name: AttentiveStatsPooling(width) for name, width in widths.items()})
        self.absent = nn.ParameterDict({name: torch.zeros(2 * width) for name, width in widths.items()})
        self.cross_attention: CrossModalAttention | None = None
        self.fusion_layer: nn.Module
        if len(widths) == 2:
            audio, text = widths.values()
            self.cross_attention = CrossModalAttention(audio, text, shared_dim, num_heads)
            self.fusion_layer = FusionLayer(2 * audio, 2 * text, fused_dim)
        else:
            (width,) = widths.values()
            self.fusion_layer = nn.Sequential(nn.Linear(2 * width, fused_dim), nn.Tanh())
            self.fusion_layer.apply(xavier_uniform)
        self.classifier = OpenMaxClassifier(
            fused_dim,
            num_classes,
            num_layers=depth,
            base_dim=base_dim,
            dropout=dropout,
            bottleneck=bottleneck,
            checkpoint_every=checkpoint_every,
            anchor_dim=anchor_dim,
            uncertainty_target=uncertainty_target,
        )

    @staticmethod
    def check(*, shared_dim: int, num_heads: int, **others: Any) -> None:
        """ValueError if arguments do not fit together; checks a recipe before anything is built."""
        if shared_dim % num_heads:
            raise ValueError(f"shared_dim {shared_dim} must be a multiple of num_heads {num_heads}")
        check_convolutions(**others)

    @property
    def output(self) -> nn.Linear:
        """The last linear layer: logits = output(features)."""
        return self.classifier.deep_classifier.output

    @property
    def standardisers(self) -> tuple[Standardise, ...]:
        """One per modality, in the order of the inputs."""
        return tuple(module for module in self.standardise.values() if isinstance(module, Standardise))

    def outputs(self, *inputs: Tensor) -> Outputs:
        """-> logits (batch, classes), features (batch, base_dim / 2), uncertainty (batch,)."""
        return self.classifier.outputs(self.fused(*inputs))

    def losses(self, outputs: Outputs, labels: Tensor) -> dict[str, Tensor]:
        """The head's own scalar losses, unweighted: anchor, uncertainty, prototype."""
        return self.classifier.losses(outputs, labels)

    def keep_openmax(self, fitted: nn.Module) -> None:
        self.classifier.openmax.load_state_dict(fitted.state_dict())

    def fused(self, *inputs: Tensor) -> Tensor:
        """The inputs -> (batch, fused_dim), within -1..1: the input of the classifier."""
        fused: Tensor = self.fusion_layer(*self.pooled(*inputs))
        return fused

    def pooled(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """-> statistics of each modality, (batch, 2 * width), or its learned vector where absent."""
        if len(inputs) != 2 * len(self.modalities):
            names = " and of ".join(self.modalities)
            raise ValueError(f"got {len(inputs)} tensors; this head reads frames and lengths of {names}")
        given = self._drop_modality(*inputs[1::2]) if self.training else inputs[1::2]
        pairs = zip(self.modalities, inputs[::2], given, strict=True)
        encoded = [self._encode(name, values, length) for name, values, length in pairs]
        frames, lengths = zip(*encoded, strict=True)
        if self.cross_attention is not None:
            frames = self.cross_attention.attend(frames[0], lengths[0], frames[1], lengths[1])
        return tuple(
            torch.where(length[:, None] > 0, self._statistics(name, x, length), self.absent[name])
            for name, x, length in zip(self.modalities, frames, lengths, strict=True)
        )

    def _statistics(self, name: str, x: Tensor, lengths: Tensor) -> Tensor:
        pooling = self.pooling[name]
        assert isinstance(pooling, AttentiveStatsPooling)
        return pooling.statistics(x, lengths)

    def _encode(self, name: str, values: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """One modality's stored frames, processed up to the attention: (batch, frames, width) and lengths."""
        if not values.shape[1]:  # no item of the batch has the modality: use one frame of padding
            values = values.new_zeros(len(values), 1, *values.shape[2:])
        # Done once, where it is cheapest: all later values beyond a length are finite, too.
        values = zero_padding(values, lengths)
        x: Tensor = self.layer_mix[name](self.standardise[name](values))
        if name == "audio" and self.mean_removal:
            mean = zero_padding(x, lengths).sum(1, keepdim=True) / lengths.clamp(min=1)[:, None, None]
            x = x - self.mean_removal * mean
        if name == "audio" and self.encoder is not None:
            x, lengths = self.encoder(x, lengths)
        return x, lengths

    def _drop_modality(self, *lengths: Tensor) -> tuple[Tensor, ...]:
        """Lengths (batch,) per modality, with one of an item's two set to 0 at random."""
        if len(lengths) < 2 or not self.modality_dropout:
            return lengths
        draw, side = torch.rand(2, len(lengths[0]), device=lengths[0].device)
        lost = (draw < self.modality_dropout) & (lengths[0] > 0) & (lengths[1] > 0)
        return (
            torch.where(lost & (side < 0.5), 0, lengths[0]),
            torch.where(lost & (side >= 0.5), 0, lengths[1]),
        )
