"""Config of the training loop: augmentation, losses, optimizer and schedule."""

from typing import Literal

from pydantic import Field, model_validator

from pipeline.config.base import Config


class Augment(Config):
    """Random changes to the stored frames of training batches; the fields are those of heads/augment.py.

    Of a fusion head's frames, those of audio.
    """

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


class Losses(Config):
    """Weights of the losses that are added up; one of 0 is left out. Each is logged apart.

    cross_entropy: with `train.label_smoothing` and `train.class_weights`.
    focal: class-balanced (Cui et al., 2019). focal_kind: `sigmoid` is the paper's, `softmax` a variant.
    cac: class anchor clustering with fixed anchors in logit space (Miller et al., 2021), of any head.
    anchor, uncertainty, prototype: of the fusion_openmax head.
    """

    cross_entropy: float = Field(1.0, ge=0)
    focal: float = Field(0.0, ge=0)
    focal_kind: Literal["softmax", "sigmoid"] = "softmax"
    focal_beta: float = Field(0.9999, ge=0, lt=1)
    focal_gamma: float = Field(2.0, ge=0)
    cac: float = Field(0.0, ge=0)
    cac_alpha: float = Field(10.0, gt=0)
    cac_distance_weight: float = Field(0.1, ge=0)
    anchor: float = Field(0.0, ge=0)
    uncertainty: float = Field(0.0, ge=0)
    prototype: float = Field(0.0, ge=0)

    @model_validator(mode="after")
    def _something_is_learnt(self) -> "Losses":
        if not (self.cross_entropy or self.focal or self.cac):
            raise ValueError("no loss trains the logits: give cross_entropy, focal or cac a weight above 0")
        return self


class Group(Config):
    """Optimizer settings of a part of the head: a factor on the learning rate, and its own weight decay."""

    rate: float = Field(1.0, ge=0)
    weight_decay: float | None = Field(None, ge=0)


class Train(Config):
    """The training loop.

    valid_fraction: share of the training rows' speakers (`group`) held out for validation; 0 for none.
        A manifest with a `valid` split brings its own.
    ema: decay of the weights' moving average, which is what is evaluated and saved; 0 for none.
    class_weights: `balanced` weighs each row by n / (classes x rows of its class).
    precision: autocast type of the head; weights stay fp32.
    groups: by the name of a part of the head, `classifier.anchor_clustering`, settings that differ from
        learning_rate and weight_decay; the longest name that fits a parameter counts. `encoders` is
        where a live backbone will be; cached frames have none. Biases and norms never decay.
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
    groups: dict[str, Group] = Field(default_factory=dict)
