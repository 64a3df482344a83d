"""What `prepare` reads: which corpus, which labels to keep, how it is split, what counts as unusable."""

import re
from pathlib import PurePath, PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field, model_validator

from stillwave.pipeline.config.base import Config

MEASURED = frozenset({"sha256", "sample_rate", "num_samples", "duration_s"})


def compiled(pattern: str, field: str) -> re.Pattern[str]:
    """`pattern` as a regular expression. Raises ValueError that names `field`."""
    try:
        return re.compile(pattern)
    except re.error as error:
        raise ValueError(f"{field}: {pattern!r} is not a regular expression: {error}") from None


def _text(value: Any) -> Any:
    if isinstance(value, bool | int | float):
        raise ValueError(f"YAML reads this as {value!r}, not as text; put it in quotes")
    return value


Text = Annotated[str, BeforeValidator(_text)]


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
        if taken := sorted(MEASURED & (self.columns.keys() | self.constants.keys())):
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


class Named(CorpusBase):
    """A corpus whose file names say everything: a regular expression, and what its named groups mean.

    pattern: a regular expression for the whole of a file's name without its suffix, or for the name and the
        folders above it: `(?P<speaker>[A-Z]+)/(?P<emotion>[a-z]+)` reads `any/DC/sad.wav`. Each named group
        is a column; where one part says two things, put a group within a group. `(?x)` at its start allows
        spaces and lines. A file that does not match is quarantined. What matches is the row's id, unless
        there is a group `id`.
    example: a file of the corpus, with the folders that `pattern` reads; the config is checked by it.
    names: what quarantine.csv calls such names.
    values: column -> text in the file's name -> value; a column that is not here has the text itself.
    constants: as for a table.
    columns: the manifest's columns, in this order; null takes all groups, then all constants.
    keep: column -> values to import; rows with other values are counted as left out.
    """

    kind: Literal["named"]
    pattern: str
    example: str
    names: str = "the corpus's names"
    values: dict[str, dict[Text, Text]] = Field(default_factory=dict)
    constants: dict[str, Text] = Field(default_factory=dict)
    columns: list[str] | None = None
    keep: dict[str, list[Text]] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _fits_its_pattern(self) -> "Named":
        groups = [group for group in compiled(self.pattern, "pattern").groupindex if group != "id"]
        there = [*groups, *self.constants]
        reserved = {"id", "path", *MEASURED}
        if taken := sorted({name for name in there if there.count(name) > 1 or name in reserved}):
            raise ValueError(f"{', '.join(taken)}: reserved, or in `pattern` and in `constants`; rename it")
        columns = there if self.columns is None else self.columns
        split = self.split.column if isinstance(self.split, Predefined) else self.split.group
        for field, names, known in (
            ("values", self.values, groups),
            ("columns", columns, there),
            ("label", [self.label], columns),
            ("split", [split] if split else [], columns),
            ("keep", self.keep, columns),
        ):
            if absent := [name for name in names if name not in known]:
                raise ValueError(
                    f"{field}: no column {absent[0]!r}; there are {', '.join(known) or 'none'}. Name its "
                    f"part of `pattern`, (?P<{absent[0]}>...), or correct `{field}`"
                )
        if self.row(PurePosixPath(self.example)) is None:
            raise ValueError(
                f"example: {self.example!r} does not match pattern {self.pattern!r}; correct either"
            )
        return self

    def row(self, path: PurePath) -> dict[str, str | None] | None:
        """The id and the columns of a file, of its path below the root; None when it does not match.

        Raises ValueError for a text that `values` lacks.
        """
        parts = path.with_suffix("").parts
        tails = ("/".join(parts[-count:]) for count in range(1, len(parts) + 1))
        match = next(filter(None, map(re.compile(self.pattern).fullmatch, tails)), None)
        if match is None:
            return None
        row = {"id": match.group(), **match.groupdict(), **self.constants}
        for name, values in self.values.items():
            if (text := row[name]) is not None and text not in values:
                raise ValueError(
                    f"values.{name}: no value for {text!r}, which {path} has; add it, or narrow "
                    f"(?P<{name}>...) in `pattern`, and such files are quarantined"
                )
            row[name] = None if text is None else values[text]
        return row if self.columns is None else {name: row[name] for name in ("id", *self.columns)}


class Custom(CorpusBase):
    """A corpus that your own code imports. `prepare` runs that code; a manifest, store or run never does.

    class: `package.module:Name` of a function or class. It is called with the root (a `Path`) and the
        config's further fields as keyword arguments, and returns an `Imported`
        (`stillwave.pipeline.corpora.base`), whose rows have `id`, `path` and the same columns each, as text
        or None.
    """

    model_config = ConfigDict(extra="allow")

    kind: Literal["custom"]
    class_path: str = Field(alias="class")


class Demo(CorpusBase):
    """The built-in synthetic corpus; made under `root` when it is not there yet.

    seed: of who says what, and how.
    """

    kind: Literal["demo"]
    root: str | None = "data/corpora/demo"
    seed: int = Field(0, ge=0)


_RENAMED = ("emodb", "fsdd", "ravdess", "crema_d", "urdu")


def _renamed(raw: Any) -> Any:
    if isinstance(raw, dict) and (kind := raw.get("kind")) in _RENAMED:
        raise ValueError(
            f"kind: {kind} is now configs/corpora/{kind}.yaml, of `kind: named`; copy that file, and set "
            "root, classes and split in it (RAVDESS's `channel: song` is `keep: {channel: [song]}`)"
        )
    return raw


CorpusConfig = Annotated[
    Table | Folder | Named | Demo | Custom, Field(discriminator="kind"), BeforeValidator(_renamed)
]
