"""Config of a corpus's split: which rows are for training, validation and testing."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from stillwave.pipeline.config.base import Config, Text


class SplitBase(Config):
    """Fields that every split has.

    group: rows with the same value in this column stay on one side; null splits row by row. Texts that differ
    only in case or blanks are one. With `disjoint`, it is one of its columns; by default the first.
    disjoint: columns in which the test rows of a fold share no value with its other rows: those that share
    one are left out when the fold's model is trained.
    allow_leak: whether to accept a group (or two files with the same bytes) on both sides of the split.
    """

    group: str | None = "speaker"
    disjoint: list[str] = Field(default_factory=list)
    allow_leak: bool = False

    @model_validator(mode="before")
    @classmethod
    def _group_is_the_first_of_disjoint(cls, fields: Any) -> Any:
        if isinstance(fields, Mapping) and "group" not in fields:
            match fields.get("disjoint"):
                case [str(first), *_]:
                    return {**fields, "group": first}
        return fields

    @model_validator(mode="after")
    def _group_is_disjoint(self) -> Self:
        if len({*self.disjoint}) < len(self.disjoint):
            raise ValueError(f"disjoint [{', '.join(self.disjoint)}] names a column twice; leave one out")
        if self.disjoint and self.group not in self.disjoint:
            raise ValueError(
                f"group {self.group!r} is not one of disjoint [{', '.join(self.disjoint)}]: list it there, "
                "or leave `group` out"
            )
        return self


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
