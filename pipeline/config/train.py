"""Config of the training loop: augmentation, losses, optimizer and schedule."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from stillwave.pipeline.config.base import Config
from stillwave.pipeline.config.keywords import Keywords
from stillwave.pipeline.config.views import WaveformEffects


class Augment(Keywords):
    """The fields of `FrameAugment`."""

    path = "stillwave.heads.augment:FrameAugment"


class RecipeViews(Config):
    """What becomes of the views that a store holds beside the clean rows (`views` of the backbone's config).

    train: `clean`, or `sample`: every epoch takes one of each row's views, the clean one among them.
    test: `clean`, or `average`: the mean of the probabilities over all views of a row.
    Validation is on clean rows either way; frames are standardised by all rows that training may take.
    """

    train: Literal["clean", "sample"] = "clean"
    test: Literal["clean", "average"] = "clean"


class EarlyStopping(Config):
    """Stop when training no longer helps the validation rows; keep the best epoch.

    metric: what is looked at. patience: epochs without an improvement.
    """

    metric: Literal["uar", "accuracy", "weighted_f1", "macro_f1", "loss"] = "uar"
    patience: int = Field(10, ge=1)


class Losses(Config):
    """Weights of the losses that are added up; one of 0 is left out. Each is logged apart.

    cross_entropy: with `train.label_smoothing` and `train.class_weights`.
    focal: class-balanced (Cui et al., 2019). focal_kind: `sigmoid` is the paper's, `softmax` a variant.
    focal_beta, focal_gamma: of the class weights, and of how little easy rows count.
    cac: class anchor clustering with fixed anchors in logit space (Miller et al., 2021), of any head.
    cac_alpha, cac_distance_weight: how far out anchors lie, and the weight of the distance to a row's own.
    anchor, uncertainty, prototype: of the fusion_openmax head.
    distill: what a teacher says of the training rows, at `distill_temperature` (Hinton et al., 2015); give
        the teacher with --teacher. distill_temperature: above 1 shows more of the classes it did not choose.
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
    distill: float = Field(0.0, ge=0)
    distill_temperature: float = Field(2.0, gt=0)

    @model_validator(mode="after")
    def _something_is_learnt(self) -> "Losses":
        if not (self.cross_entropy or self.focal or self.cac or self.distill):
            raise ValueError(
                "no loss trains the logits: give cross_entropy, focal, cac or distill a weight above 0"
            )
        return self


class Finetune(Config):
    """The backbone trains, too: `stillwave finetune` in place of `train`, on waveforms, not stored frames.

    unfreeze: `all` of it, `encoder` (all but the front end that turns waveforms into its first frames), or a
        number of layers, counted from the output.
    learning_rate: of the backbone's last layer; the head has `train.learning_rate`.
    layer_decay: factor on it from each layer to the one before; 1 for none.
    gradient_checkpointing: compute activations of the backbone again in the backward pass, not keep them.
    augment: what is done to the waveforms of training rows, drawn anew for every row and epoch.
    crop_s: training rows that are longer are cut to a random piece of this many seconds.
    """

    unfreeze: Literal["all", "encoder"] | Annotated[int, Field(ge=1)] = "encoder"
    learning_rate: float = Field(1e-5, gt=0)
    layer_decay: float = Field(1.0, gt=0, le=1)
    gradient_checkpointing: bool = False
    augment: WaveformEffects | None = None
    crop_s: float | None = Field(None, gt=0)


class Personalise(Keywords):
    """The fields of `Personalised`."""

    path = "stillwave.heads.personal:Personalised"


class Group(Config):
    """Optimizer settings of a part of the head.

    rate: a factor on the learning rate. weight_decay: its own; null for that of `train`.
    """

    rate: float = Field(1.0, ge=0)
    weight_decay: float | None = Field(None, ge=0)


class Train(Config):
    """The training loop.

    epochs: over the training rows of a fold. batch_size: rows per update.
    learning_rate, weight_decay: of AdamW; the rate is the largest one. warmup_fraction: share of the updates
        in which the rate rises to it. grad_clip: largest norm of the gradient.
    step_epochs, gamma: of the schedule `step`. label_smoothing: of losses.cross_entropy.
    valid_fraction: share of the training rows' speakers (`group`) held out for validation; 0 for none.
        A manifest with a `valid` split brings its own. group: null holds out single rows. A group on more
        than one side of the manifest's split is an error.
    early_stopping: null trains all epochs. seed: of the weights, the batches and the dropout.
    ema: decay of the weights' moving average, which is what is evaluated and saved; 0 for none.
    class_weights: `balanced` weighs each row by n / (classes x rows of its class).
    precision: autocast type of what trains; weights stay fp32.
    schedule: after the warm-up `cosine` to zero, `constant`, or `step`: times `gamma` every `step_epochs`.
    accumulate: a batch goes through the model in this many pieces, one after the other, to save memory. The
        numbers stay.
    groups: by the name of a part of the head, `classifier.anchor_clustering`, settings that differ from
        learning_rate and weight_decay; the longest name that fits a parameter counts. `encoders` is
        where a live backbone will be; cached frames have none. Biases and norms never decay.
    """

    epochs: int = Field(60, ge=1)
    batch_size: int = Field(32, ge=1)
    learning_rate: float = Field(2e-3, gt=0)
    weight_decay: float = Field(0.05, ge=0)
    warmup_fraction: float = Field(0.1, ge=0, lt=1)
    schedule: Literal["cosine", "constant", "step"] = "cosine"
    step_epochs: int = Field(5, ge=1)
    gamma: float = Field(0.5, gt=0, le=1)
    accumulate: int = Field(1, ge=1)
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
