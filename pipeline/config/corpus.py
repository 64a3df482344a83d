"""Config of a corpus's split: which rows are for training, validation and testing."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from stillwave.pipeline.config.base import Config, Text


class SplitBase(Config):
    """Fields that every split has.

    group: rows with the same value in this column stay on one side; null splits row by row.
    allow_leak: whether to accept a group (or two files with the same bytes) on both sides of the split.
    """

    group: str | None = "speaker"
    allow_leak: bool = False


class Predefined(SplitBase):
    """The split is a column of the corpus.

    column: its name. names: maps its values to train, valid, test.
    folds: whether the column holds the number of the fold that tests the row, counted from 0.
    """

    kind: Literal["predefined"]
    column: str = "split"
    names: dict[Text, Literal["train", "valid", "test"]] = Field(default_factory=dict)
    folds: bool = False


class Holdout(SplitBase):
    """One seeded train/valid/test split.

    valid, test: shares of the rows, met as closely as groups allow. seed: of the random assignment.
    stratify: whether each label has the same share on all sides.
    """

    kind: Literal["holdout"]
    valid: float = Field(0.15, ge=0, lt=1)
    test: float = Field(0.15, gt=0, lt=1)
    seed: int = 0
    stratify: bool = True

    @model_validator(mode="after")
    def _leaves_training_rows(self) -> "Holdout":
        if self.valid + self.test >= 1:
            total = self.valid + self.test
            raise ValueError(f"valid + test = {total:g} leaves no training rows; stay below 1")
        return self


class KFold(SplitBase):
    """Seeded folds of about equal size; each is tested once.

    folds: how many. seed: of the random assignment. stratify: whether to balance labels over the folds.
    """

    kind: Literal["kfold"]
    folds: int = Field(default=5, ge=2)
    seed: int = 0
    stratify: bool = True


class LeaveOneGroupOut(SplitBase):
    """One fold per value of `group`, numbered in sorted order."""

    kind: Literal["leave_one_group_out"]
    group: str = "speaker"


SplitConfig = Annotated[Predefined | Holdout | KFold | LeaveOneGroupOut, Field(discriminator="kind")]
