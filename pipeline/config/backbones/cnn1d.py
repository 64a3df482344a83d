"""Config of the small convolutional encoder of raw waveforms."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from stillwave.pipeline.config.backbones.common import CommonConfig, Precision

Sizes = Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1)]


class Cnn1dConfig(CommonConfig):
    """Convolutions of the raw waveform, each with batch norm, ReLU, max pooling and dropout.

    precision: of the forward pass. sample_rate: Hz.
    channels, kernel_sizes, strides, pools: one per layer. A pool of n keeps the largest of every n frames.
    dropout: of whole channels, after each layer, while training.
    clip_s: seconds that every item is cut to, from its start, or padded to with silence, so that all have the
        same number of frames; null: each has the frames of its own length.
    filters: how the first layer starts: as `random` weights, or as band-pass filters along the `mel` scale,
        which on speech saves it most of what there is to learn.
    seed: of the weights; there are no others, until `finetune` has trained them.
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

    not_in_fingerprint: ClassVar[frozenset[str]] = CommonConfig.not_in_fingerprint | {
        "seed",
        "dropout",
        "filters",
    }

    @model_validator(mode="after")
    def _one_of_each_per_layer(self) -> "Cnn1dConfig":
        fields = {name: getattr(self, name) for name in ("channels", "kernel_sizes", "strides", "pools")}
        if len({len(sizes) for sizes in fields.values()}) > 1:
            raise ValueError(f"{fields} must be of one length, one number per layer")
        return self
