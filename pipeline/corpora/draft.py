"""Drafting a corpus and a recipe from the contents of a folder, for `stillwave init`."""

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

import pandas as pd
import yaml

from stillwave.pipeline.audio.segments import span_of
from stillwave.pipeline.config.base import parse_config
from stillwave.pipeline.config.recipe import Recipe
from stillwave.pipeline.corpora import CorpusConfig
from stillwave.pipeline.corpora.base import Row, audio_files
from stillwave.pipeline.corpora.draft_split import propose_split
from stillwave.pipeline.corpora.draft_yaml import corpus_yaml, recipe_yaml
from stillwave.pipeline.corpora.folder import are_sides
from stillwave.pipeline.corpora.guess import (
    SPEAKER,
    guess_columns,
    our_name,
    path_column,
    speaker_pattern,
)
from stillwave.pipeline.corpora.headers import look_at, outside_file
from stillwave.pipeline.corpora.paths import is_there
from stillwave.pipeline.corpora.readers import READERS
from stillwave.pipeline.corpora.spelling import listed
from stillwave.pipeline.corpora.splits import side_of
from stillwave.pipeline.corpora.table import read_cells
from stillwave.pipeline.corpora.usable import usable_rows

FEW_ROWS, FEW_SPEAKERS = 10, 3  # per class

# The corpus's YAML without the split: fields, comments on them, and the meanings of a split's values.
Source = tuple[dict[str, Any], dict[str, str], dict[str, str]]
Opened = tuple[list[Row], Path, str, Path]  # rows, their table, its column of paths, the paths' folder


@dataclass(frozen=True)
class Draft:
    """Two valid YAML texts, and what was found: the rows and classes used, speakers, warnings.

    table: relative to the folder; None if the folders are the classes. split: its kind.
    """

    corpus: str
    recipe: str
    table: str | None
    label: str
    classes: dict[str, int]
    speakers: int
    split: str
    warnings: list[str]


def draft(folder: Path, table: Path | None = None, label: str | None = None) -> Draft:
    """Look at the audio below `folder` and at `table`, or at the one in `folder`, and draft its configs.

    label: the column to predict; None guesses it. The headers of a sample of the files are read, but no
    audio. Raises ValueError if there is no audio, no column of paths or of labels, or fewer than two classes
    are left.
    """
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such folder; give the folder of the recordings")
    files = list(audio_files(folder, Counter()))
    warnings: list[str] = []
    opened = _open(table, folder, files) if table else _find_table(folder, files, warnings)
    fields, comments, sides = (
        _of_table(*opened, label, warnings) if opened else _of_folders(folder, files, label, warnings)
    )
    label = str(fields["label"])
    rows, bad = _rows(fields, files, warnings)
    split, classes = propose_split(rows, label, sides, warnings)
    counts = Counter(rows[label])
    kept = {name: counts[name] for name in sorted(classes or counts)}
    warnings += _thin(rows, label, kept)
    spans = [span_of(row) for row in rows.to_dict("records")]
    limits = look_at(files, warnings, spans) | (
        {"max_bad_fraction": round(min(1.0, bad + 0.05), 2)} if bad else {}
    )
    corpus = corpus_yaml({**fields, "classes": classes, **limits, "split": split}, comments)
    group = None if split.get("allow_leak") else split["group"]
    recipe = recipe_yaml(label, sum(kept.values()), group)
    parse_config(yaml.safe_load(corpus), CorpusConfig, "the drafted corpus")
    parse_config(yaml.safe_load(recipe), Recipe, "the drafted recipe")
    speakers = rows["speaker"].nunique() if "speaker" in rows else 0
    return Draft(corpus, recipe, fields.get("table"), label, kept, speakers, split["kind"], warnings)


def _find_table(folder: Path, files: Sequence[Path], warnings: list[str]) -> Opened | None:
    """The longest table in `folder` that names files; not a manifest or a quarantine file."""
    found = []
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in READERS and not path.name.startswith(".") and path.name != "quarantine.csv":
            try:
                opened = _open(path, folder, files)
            except ValueError as error:
                if path.suffix.lower() != ".json":  # which are settings more often than tables
                    warnings.append(f"not used: {error}")
                continue
            if "num_samples" not in opened[0][0]:
                found.append(opened)
    best = max(found, key=lambda opened: len(opened[0]), default=None)
    if others := [opened[1].name for opened in found if opened is not best]:
        warnings.append(f"other tables in the folder also name files: {', '.join(others)}")
    return best


def _open(table: Path, folder: Path, files: Sequence[Path]) -> Opened:
    """The table's rows, the table, its column of paths, and the folder that they are relative to."""
    if not table.is_file() and (folder / table).is_file():
        table = folder / table
    rows = read_cells(table)
    if (named := path_column(rows, table, folder, files)) is None:
        raise ValueError(
            f"{table}: no column names the files below {folder}, such as "
            f"{files[0].relative_to(folder).as_posix()!r}; the columns are {listed(rows[0])}"
        )
    return rows, table, *named


def _of_table(
    rows: list[Row], table: Path, path: str, root: Path, label: str | None, warnings: list[str]
) -> Source:
    try:
        columns, ours, sides = guess_columns(rows, path, label)
    except ValueError as error:
        raise ValueError(f"{table}: {error}") from None
    if "start" in columns and (outside := outside_file(rows, columns, root)):
        warnings.append(
            f"columns {columns.pop('start')!r} and {columns.pop('end')!r} are not used, as they are not "
            f"seconds of the files: {outside}"
        )
    relative = Path(os.path.relpath(table, root)).as_posix()
    fields = {"kind": "table", "root": root.as_posix(), "table": relative, "columns": columns, "label": ours}
    comments = {"columns": "ours: theirs; guessed", "label": "guessed" if label is None else "as asked for"}
    return fields, comments, sides


def _of_folders(folder: Path, files: Sequence[Path], label: str | None, warnings: list[str]) -> Source:
    root = Path(os.path.commonpath([file.parent for file in files]))  # `folder`, or one below it
    inside = [file.relative_to(root).as_posix() for file in files if file.parent != root]
    sides = sorted({path.partition("/")[0] for path in inside}) if are_sides([*map(PurePath, inside)]) else []
    labels = [path.split("/")[bool(sides)] for path in inside]
    if len(set(labels)) < 2:
        raise ValueError(
            f"{folder}: no table in it names its files; {len(set(labels))} folders in {root} hold audio. It "
            f"needs one folder for each of at least two classes, or a table ({', '.join(READERS)}): "
            "stillwave init FOLDER TABLE. For labels in file names, use `kind: named` (docs/howto/corpus.md)"
        )
    if all(SPEAKER.search(name.lower()) for name in labels):
        warnings.append("the folders seem to be speakers, not classes: give the classes in a table")
    fields = {"kind": "folder", "root": root.as_posix(), "label": our_name(label or "label")}
    comments = {"kind": " ".join(["one folder per class", *(["in"] if sides else []), *sides])}
    if speaker := speaker_pattern(inside, labels):
        fields["speaker"] = speaker[0]
        comments["speaker"] = f"guessed: {', '.join(sorted(set(speaker[1]))[:3])}, ..."
    return fields, comments, {side_of(side): side_of(side) for side in sides}


def _rows(fields: dict[str, Any], files: Sequence[Path], warnings: list[str]) -> tuple[pd.DataFrame, float]:
    """The rows that have a label and a file, as in `prepare`, and the share of the others.

    `sha256` is the path: no file is read.
    """
    config = parse_config(fields, CorpusConfig, "the drafted corpus")
    usable = usable_rows(config.read(Path(config.root)), config)
    imported, rejected = usable.rows, usable.quarantined
    warnings += usable.warnings
    warnings += [f"{number} rows will be left out: {what}" for what, number in usable.excluded.items()]
    found = [is_there(Path(str(row["path"]))) for row in imported]
    there = [row for row, file in zip(imported, found, strict=True) if file]
    for reason, number in Counter(line.reason for line in rejected).items():
        first = next(line.detail for line in rejected if line.reason == reason)
        warnings.append(f"{number} rows or files will be left out as {reason}: {first}")
    if missing := [row["path"] for row, file in zip(imported, found, strict=True) if not file]:
        warnings.append(f"{len(missing)} rows name a file that is missing, first {missing[0]}")
    paths = [*(row["path"] for row in imported), *(line.path for line in rejected)]
    named = {Path(str(path)).resolve() for path in paths}
    if extra := [file for file in files if file.resolve() not in named]:
        warnings.append(f"{len(extra)} audio files have no row, first {extra[0]}")
    if not there:
        raise ValueError(f"no row has both a file and a {config.label}")
    rows = pd.DataFrame(there).assign(sha256=[str(row["path"]) for row in there])
    return rows, 1 - len(there) / (len(imported) + len(rejected))


def _thin(rows: pd.DataFrame, label: str, kept: dict[str, int]) -> list[str]:
    """Classes with few rows, and with few speakers."""
    warnings = []
    if few := [f"{name} {n}" for name, n in kept.items() if n < FEW_ROWS]:
        warnings.append(f"classes with fewer than {FEW_ROWS} rows: {', '.join(few)}")
    voices = rows.groupby(label)["speaker"].nunique().to_dict() if "speaker" in rows else {}
    if single := [name for name in kept if voices.get(name) == 1]:
        warnings.append(f"classes with only one speaker: {', '.join(single)}")
    if few := [f"{name} {voices[name]}" for name in kept if 1 < voices.get(name, 0) < FEW_SPEAKERS]:
        warnings.append(f"classes with fewer than {FEW_SPEAKERS} speakers: {', '.join(few)}")
    return warnings
