"""What `prepare` reads: which corpus, which labels to keep, how it is split, what counts as unusable."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from stillwave.pipeline.config.base import Config


class SplitBase(Config):
    """Fields that every split has.

    group: rows that share this column's value stay on one side; null splits row by row, on request.
    allow_leak: accept a group (or two files with the same bytes) on both sides of the split.
    """

    group: str | None = "speaker"
    allow_leak: bool = False


class Predefined(SplitBase):
    """The split is a column that the corpus brings.

    column: its name. names: translates its values to train, valid, test.
    folds: the column holds the number of the fold in which a row is tested, counted from 0.
    """

    kind: Literal["predefined"]
    column: str = "split"
    names: dict[str, Literal["train", "valid", "test"]] = Field(default_factory=dict)
    folds: bool = False


class Holdout(SplitBase):
    """One seeded train/valid/test split.

    valid, test: shares of the rows, met as nearly as groups allow. seed: of the draw.
    stratify: keep the share of each label alike on all sides.
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

    folds: how many. seed: of the draw. stratify: keep the share of each label alike in all of them.
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


class CorpusBase(Config):
    """Fields that every corpus has.

    root: folder of the corpus; a relative one is taken from the working directory. `--root` overrides it.
    label: the column that `classes` filters and that splits stratify by.
    classes: keep only rows with these labels; the others are counted and reported. null keeps all.
    min_duration_s, max_duration_s: shorter and longer files are quarantined; null sets no upper bound.
    max_bad_fraction: `prepare` fails when a larger share of the files is unusable.
    split: which rows are trained, validated and tested.
    """

    root: str | None = None
    label: str = "emotion"
    classes: list[str] | None = Field(None, min_length=1)
    min_duration_s: float = Field(0.0, ge=0)
    max_duration_s: float | None = Field(30.0, gt=0)
    max_bad_fraction: float = Field(0.05, ge=0, le=1)
    split: SplitConfig = KFold(kind="kfold", folds=5)


class Table(CorpusBase):
    """Rows of a CSV, Parquet or JSONL file.

    table: the file, relative to `root` (default: the working directory), as are the audio paths in it.
    columns: our column name -> theirs; `path` is required, `id` defaults to the path without extension.
    constants: our column name -> one value for every row, for example `language: de`.
    text_rows: keep rows that have an id and a text but no path, for recipes that read text; others of them
        are quarantined.
    """

    kind: Literal["table"]
    root: str | None = "."
    table: str
    columns: dict[str, str]
    constants: dict[str, str] = Field(default_factory=dict)
    text_rows: bool = False

    @model_validator(mode="after")
    def _maps_path_and_no_column_twice(self) -> "Table":
        if "path" not in self.columns:
            raise ValueError("columns must name the one with the audio paths, for example `path: file_path`")
        made = {"sha256", "sample_rate", "num_samples", "duration_s"}
        if taken := sorted(made & (self.columns.keys() | self.constants.keys())):
            raise ValueError(f"{', '.join(taken)}: measured from the audio; leave it out of the mapping")
        if both := sorted(self.columns.keys() & self.constants.keys()):
            raise ValueError(f"{', '.join(both)}: in `columns` and in `constants`; keep one")
        return self


class Folder(CorpusBase):
    """One folder per class: `root/<label>/**/<file>`.

    speaker: a regular expression searched in the path relative to `root`; its group named `speaker`
        (or else its first group) is the speaker. A file that does not match is quarantined.
    constants: as for a table.
    """

    kind: Literal["folder"]
    speaker: str | None = None
    constants: dict[str, str] = Field(default_factory=dict)


class EmoDB(CorpusBase):
    """Berlin Database of Emotional Speech (Burkhardt et al., 2005)."""

    kind: Literal["emodb"]
    split: SplitConfig = LeaveOneGroupOut(kind="leave_one_group_out")


class FSDD(CorpusBase):
    """Free Spoken Digit Dataset: `word` is zero to nine."""

    kind: Literal["fsdd"]
    label: str = "word"
    split: SplitConfig = LeaveOneGroupOut(kind="leave_one_group_out")


class RAVDESS(CorpusBase):
    """Ryerson Audio-Visual Database of Emotional Speech and Song, its audio-only files.

    channel: which of them.
    """

    kind: Literal["ravdess"]
    channel: Literal["speech", "song", "both"] = "speech"


class CremaD(CorpusBase):
    """Crowd-sourced Emotional Multimodal Actors Dataset."""

    kind: Literal["crema_d"]


class Urdu(CorpusBase):
    """URDU dataset of emotional utterances from talk shows (Latif et al., 2018)."""

    kind: Literal["urdu"]


class Demo(CorpusBase):
    """The built-in synthetic corpus; made under `root` when it is not there yet.

    seed: of who says what, and how.
    """

    kind: Literal["demo"]
    root: str | None = "data/corpora/demo"
    seed: int = Field(0, ge=0)


CorpusConfig = Annotated[
    Table | Folder | EmoDB | FSDD | RAVDESS | CremaD | Urdu | Demo, Field(discriminator="kind")
]
