"""What `train` reads: which backbones' frames, which head, and how it is trained."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from pipeline.config.base import Config


class SegmentHead(Config):
    """Segment attention pooling and a classifier; the fields are those of heads/classifier.py."""

    kind: Literal["segment"]
    mean_removal: float = Field(0.0, ge=0, le=1)
    channels: int = Field(128, ge=1)
    strides: tuple[Annotated[int, Field(ge=1)], ...] = ()
    kernel_size: int = Field(5, ge=1)
    encoder_dropout: float = Field(0.0, ge=0, lt=1)
    num_segments: int = Field(8, ge=1)
    pooling_type: Literal["attention", "max", "avg", "learnable"] = "attention"
    num_heads: int = Field(8, ge=1)
    pooling_dropout: float = Field(0.1, ge=0, lt=1)
    use_temporal_encoding: bool = True
    hidden: int = Field(128, ge=1)
    dropout: float = Field(0.5, ge=0, lt=1)

    @model_validator(mode="after")
    def _convolutions_keep_their_place(self) -> "SegmentHead":
        if self.kernel_size % 2 == 0 or any(stride > self.kernel_size for stride in self.strides):
            raise ValueError(
                f"kernel_size {self.kernel_size} must be odd, and no smaller than a stride of {self.strides}"
            )
        return self


class Augment(Config):
    """Random changes to the stored frames of training batches; the fields are those of heads/augment.py."""

    stretch: float = Field(0.0, ge=0, lt=1)
    time_masks: int = Field(0, ge=0)
    time_mask_frames: int = Field(0, ge=0)
    bands: int = Field(0, ge=0)
    warp: float = Field(0.0, ge=0, lt=1)
    gain: float = Field(0.0, ge=0)
    tilt: float = Field(0.0, ge=0)
    band_masks: int = Field(0, ge=0)
    band_mask_width: int = Field(0, ge=0)

    @model_validator(mode="after")
    def _bands_where_they_are_needed(self) -> "Augment":
        if not self.bands and (self.warp or self.gain or self.tilt or self.band_masks):
            raise ValueError(
                "warp, gain, tilt and band_masks need `bands`, the number of ordered bands in a frame"
            )
        return self


class Views(Config):
    """What becomes of the views that a store holds beside the clean rows (`views` of the backbone's config).

    train: `clean`, or `sample`: every epoch takes one of each row's views, the clean one among them.
    test: `clean`, or `average`: the mean of the probabilities over all views of a row.
    Validation and the standardisation of frames are on clean rows either way.
    """

    train: Literal["clean", "sample"] = "clean"
    test: Literal["clean", "average"] = "clean"


class EarlyStopping(Config):
    """Stop when `metric` on the validation rows has not improved for `patience` epochs; keep the best."""

    metric: Literal["uar", "accuracy", "weighted_f1", "macro_f1", "loss"] = "uar"
    patience: int = Field(10, ge=1)


class Train(Config):
    """The training loop.

    valid_fraction: share of the training rows' speakers (`group`) held out for validation; 0 for none.
        A manifest with a `valid` split brings its own.
    ema: decay of the weights' moving average, which is what is evaluated and saved; 0 for none.
    class_weights: `balanced` weighs each row by n / (classes x rows of its class).
    precision: autocast type of the head; weights stay fp32.
    """

    epochs: int = Field(60, ge=1)
    batch_size: int = Field(32, ge=1)
    learning_rate: float = Field(2e-3, gt=0)
    weight_decay: float = Field(0.05, ge=0)
    warmup_fraction: float = Field(0.1, ge=0, lt=1)
    grad_clip: float = Field(1.0, gt=0)
    label_smoothing: float = Field(0.1, ge=0, lt=1)
    class_weights: Literal["balanced", "none"] = "balanced"
    ema: float = Field(0.0, ge=0, lt=1)
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    valid_fraction: float = Field(0.0, ge=0, lt=1)
    group: str | None = "speaker"
    early_stopping: EarlyStopping | None = None
    seed: int = Field(0, ge=0)


class Recipe(Config):
    """One system: stored frames -> head -> logits.

    backbones: names of the stores, `<embeddings>/<name>.zarr`, made with `configs/backbones/<name>.yaml`.
    label: the manifest's column to predict. classes: keep only these labels; null keeps all.
    """

    backbones: list[str] = Field(min_length=1)
    label: str = "emotion"
    classes: list[str] | None = Field(None, min_length=2)
    head: SegmentHead
    augment: Augment | None = None
    views: Views = Views()
    train: Train = Train()

    @model_validator(mode="after")
    def _one_backbone_per_segment_head(self) -> "Recipe":
        if len(self.backbones) != 1:
            raise ValueError(f"a segment head reads one backbone; got {self.backbones}")
        return self
