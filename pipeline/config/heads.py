"""Config of the heads: which modules stand between stored frames and logits."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from stillwave.pipeline.config.base import Config

Strides = tuple[Annotated[int, Field(ge=1)], ...]


class Convolutions(Config):
    """Temporal convolutions in front of a head; the fields are those of heads/temporal.py.

    mean_removal: the part of each utterance's own mean that is subtracted first.
    strides: one convolution each; empty for none. channels, kernel_size: of the convolutions.
    encoder_dropout: of whole channels.
    """

    mean_removal: float = Field(0.0, ge=0, le=1)
    channels: int = Field(128, ge=1)
    strides: Strides = ()
    kernel_size: int = Field(5, ge=1)
    encoder_dropout: float = Field(0.0, ge=0, lt=1)

    @model_validator(mode="after")
    def _convolutions_keep_their_place(self) -> "Convolutions":
        if self.kernel_size % 2 == 0 or any(stride > self.kernel_size for stride in self.strides):
            raise ValueError(
                f"kernel_size {self.kernel_size} must be odd, and no smaller than a stride of {self.strides}"
            )
        return self


class SegmentHead(Convolutions):
    """Segment attention pooling and a classifier; the fields are those of heads/classifier.py.

    encoder_dropout: of whole channels, in the convolutions. dropout: in the classifier.
    """

    kind: Literal["segment"]
    num_segments: int = Field(8, ge=1)
    pooling_type: Literal["attention", "max", "avg", "learnable"] = "attention"
    num_heads: int = Field(8, ge=1)
    pooling_dropout: float = Field(0.1, ge=0, lt=1)
    use_temporal_encoding: bool = True
    hidden: int = Field(128, ge=1)
    dropout: float = Field(0.5, ge=0, lt=1)


class PooledHead(Config):
    """Global pooling and an MLP; the fields are those of heads/pooled.py.

    dropout: after each hidden layer.
    """

    kind: Literal["pooled"]
    standardise: bool = True
    pooling: Literal["mean", "max", "attention", "multi_scale", "attentive", "adaptive"] = "mean"
    bins: int = Field(8, ge=1)
    norm: bool = False
    hidden: tuple[Annotated[int, Field(ge=1)], ...] = (256, 128)
    dropout: float = Field(0.3, ge=0, lt=1)


class FusionHead(Convolutions):
    """Cross-modal attention, gated fusion and the deep OpenMax classifier; see heads/multimodal.py.

    The convolutions are on audio only. One modality (`modalities` of the recipe) needs no attention or gates.
    depth, bottleneck: residual blocks of the classifier, and the width inside each.
    checkpoint_every: blocks whose activations are computed again in the backward pass, not kept; 0: none.
    modality_dropout: probability that a training row with both modalities is shown one of them only.
    uncertainty_target: what its loss teaches the uncertainty; see heads/uncertainty.py.
    """

    kind: Literal["fusion_openmax"]
    shared_dim: int = Field(256, ge=1)
    num_heads: int = Field(8, ge=1)
    fused_dim: int = Field(512, ge=1)
    depth: int = Field(35, ge=1)
    base_dim: int = Field(512, ge=2)
    bottleneck: int = Field(44, ge=1)
    dropout: float = Field(0.15, ge=0, lt=1)
    anchor_dim: int = Field(128, ge=1)
    checkpoint_every: int = Field(5, ge=0)
    modality_dropout: float = Field(0.0, ge=0, lt=1)
    uncertainty_target: Literal["correct", "error"] = "correct"

    @model_validator(mode="after")
    def _heads_divide_the_shared_space(self) -> "FusionHead":
        if self.shared_dim % self.num_heads:
            raise ValueError(f"shared_dim {self.shared_dim} must be a multiple of num_heads {self.num_heads}")
        return self


Head = Annotated[SegmentHead | PooledHead | FusionHead, Field(discriminator="kind")]
