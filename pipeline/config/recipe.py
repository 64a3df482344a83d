"""What `train` reads: which backbones' frames, which head, and how it is trained."""

from typing import Annotated, Literal

from pydantic import Field, SerializeAsAny, model_validator

from stillwave.pipeline.config.base import Config, Text
from stillwave.pipeline.config.heads import Head
from stillwave.pipeline.config.train import Augment, Finetune, Losses, Personalise, RecipeViews, Train

Modality = Literal["audio", "text"]
Score = Literal["msp", "mls", "energy", "openmax", "knn", "vim", "cac", "learned_uncertainty"]
UNKNOWN_NAME = "unknown"  # the decision for rows of unknown classes
NAME = r"^\w[\w.-]*$"  # of a store and of a config: no path, for a run may be somebody else\'s
PROBABILITY_SCORES = ("msp", "openmax", "learned_uncertainty")  # 0 to 1: a fixed threshold means something


class OpenSet(Config):
    """How to detect unknown classes.

    unknown: labels excluded from training; test rows that have them should be detected.
    score: the score that decides; higher is more outlying. Others that the head allows are reported, too.
    threshold: rows above it are called unknown. `tuned`: set from the known validation rows. null: 0.3 for
        scores that are probabilities (msp, openmax, learned_uncertainty), else tuned.
    keep: the share of the known validation rows below a tuned threshold.
    tail_size, alpha, distance: settings of OpenMax. neighbours: the k of knn.
    """

    unknown: list[Text] = Field(default_factory=list)
    score: Score = "vim"
    threshold: Annotated[float, Field(allow_inf_nan=False)] | Literal["tuned"] | None = None
    keep: float = Field(0.95, gt=0, lt=1)
    tail_size: int = Field(20, ge=3)
    alpha: int = Field(10, ge=1)
    distance: Literal["euclidean", "cosine", "eucos"] = "euclidean"
    neighbours: int = Field(10, ge=1)


class Recipe(Config):
    """One system: stored frames -> head -> logits.

    backbones: names of the stores, `<embeddings>/<name>.zarr`, made with `configs/backbones/<name>.yaml`:
        one for a segment or pooled head; any number for a statistics head; for a fusion head the audio one,
        then the text one.
    modalities: for a fusion head, what it reads: [audio, text], or only one of them, whose backbone may then
        be the only one; for other heads empty. A row without frames of one modality is trained and predicted
        on the other.
    head, losses, train: the model, its losses, and the training settings.
    augment: random changes of the training rows' frames; in a fusion head, only of the audio frames.
    views: how to use augmented versions of the recordings in the store.
    label: the manifest's column to predict. classes: use only these labels; null uses all that are not
        unknown.
    finetune: how to train the backbones, too; null: they are frozen, and `extract` stores frames.
    personalise: whether, and how, the head knows the speaker.
    open_set: which labels are unknown, and how to detect them.
    """

    backbones: list[Annotated[str, Field(pattern=NAME)]] = Field(min_length=1)
    modalities: list[Modality] = Field(default_factory=list)
    label: str = "emotion"
    classes: list[Text] | None = Field(None, min_length=2)
    head: Head
    losses: Losses = Losses()
    augment: SerializeAsAny[Augment] | None = None
    views: RecipeViews = RecipeViews()
    train: Train = Train()
    finetune: Finetune | None = None
    personalise: SerializeAsAny[Personalise] | None = None
    open_set: OpenSet = OpenSet()

    @model_validator(mode="after")
    def _one_backbone_per_modality(self) -> "Recipe":
        fuses = self.head.kind == "fusion_openmax" or (self.head.kind == "custom" and self.modalities)
        if self.head.kind == "statistics":
            _check_parts(self.backbones, self.modalities)
        elif not fuses:
            if len(self.backbones) != 1 or self.modalities:
                raise ValueError(
                    f"a {self.head.kind} head reads one backbone, whatever its modality; got backbones "
                    f"{self.backbones}, modalities {self.modalities}"
                )
        elif self.modalities not in (["audio"], ["text"], ["audio", "text"]):
            raise ValueError(
                f"modalities are {self.modalities}; a fusion head takes [audio], [text] or [audio, text]"
            )
        elif not len(self.modalities) <= len(self.backbones) <= 2:
            raise ValueError(
                f"modalities {self.modalities} take a backbone each, audio first; got {self.backbones}"
            )
        return self

    @model_validator(mode="after")
    def _summarised_frames_are_not_augmented(self) -> "Recipe":
        if self.head.kind == "statistics" and self.augment:
            raise ValueError(
                "a statistics head sees no single frames, which `augment` changes; remove it, or use `views`"
            )
        return self

    @model_validator(mode="after")
    def _losses_that_the_head_has(self) -> "Recipe":
        own = {name: getattr(self.losses, name) for name in ("anchor", "uncertainty", "prototype")}
        if self.head.kind not in ("fusion_openmax", "custom") and any(own.values()):
            raise ValueError(
                f"losses {own} need the fusion_openmax head; a {self.head.kind} head has none of them"
            )
        if self.open_set.score == "learned_uncertainty" and not self.losses.uncertainty:
            raise ValueError(
                "open_set.score: learned_uncertainty needs a fusion_openmax head and losses.uncertainty > 0"
            )
        return self

    @model_validator(mode="after")
    def _live_frames_have_no_views(self) -> "Recipe":
        if self.finetune and self.views != RecipeViews():
            raise ValueError(
                "`views` come from a store, which `finetune` does not read; use `finetune.augment`, which "
                "draws augmentations in every epoch"
            )
        if self.finetune and "encoders" in self.train.groups:
            raise ValueError(
                "train.groups.encoders: with `finetune` the backbone's rate is finetune.learning_rate; "
                "remove the group"
            )
        return self

    @model_validator(mode="after")
    def _known_and_unknown_are_apart(self) -> "Recipe":
        if self.classes and len(set(self.classes)) < len(self.classes):
            raise ValueError(f"`classes` {self.classes} name a class more than once")
        if both := sorted(set(self.open_set.unknown) & set(self.classes or ())):
            raise ValueError(f"{both} are in `classes` and in `open_set.unknown`; keep one")
        return self

    def stores(self) -> dict[str, str]:
        """The stores that are read, by the modality that they stand for.

        `frames` in a head of one; a statistics head of several has them under their own names.
        """
        if not self.modalities:
            one = len(self.backbones) == 1
            return {"frames": self.backbones[0]} if one else {name: name for name in self.backbones}
        both = len(self.backbones) == 2
        names = ("audio", "text") if both else self.modalities
        return {
            name: store for name, store in zip(names, self.backbones, strict=True) if name in self.modalities
        }


def _check_parts(backbones: list[str], modalities: list[Modality]) -> None:
    """Raise ValueError unless these can be the parts of a statistics head."""
    if modalities:
        raise ValueError(
            f"a statistics head takes whatever its stores hold; remove `modalities` {modalities}"
        )
    if len(set(backbones)) < len(backbones):
        raise ValueError(f"`backbones` {backbones} name a store more than once")
    if len(backbones) > 1 and (dotted := [name for name in backbones if "." in name]):
        raise ValueError(f"`backbones` {dotted}: names of several stores must not contain a dot; rename them")
