"""The fields and results of every corpus, and the walk over a folder that most of them use."""

import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import TYPE_CHECKING

from pydantic import Field

from stillwave.pipeline.config.base import Config, Text
from stillwave.pipeline.config.corpus import KFold, SplitConfig

Row = dict[str, str | None]  # `id`, `path`, seconds `start` and `end` for spans, the corpus's text columns

AUDIO_SUFFIXES = frozenset(
    {".wav", ".wave", ".flac", ".ogg", ".oga", ".opus", ".mp3"}
    | {".aif", ".aiff", ".aifc", ".au", ".caf", ".w64"}
    | {".rf64", ".bwf", ".snd", ".sph", ".voc", ".svx", ".8svx", ".ircam", ".spx", ".mp2", ".mka"}
    | {".avr", ".paf", ".pvf", ".wve"}
    | {".m4a", ".m4b", ".mp4", ".aac", ".webm", ".weba", ".amr", ".awb", ".3gp", ".3g2", ".wma", ".asf"}
    | {".ac3", ".ape", ".wv", ".tta", ".mpc", ".shn", ".ra"}
)

MEASURED = frozenset({"sha256", "sample_rate", "num_samples", "duration_s", "decoder", "note", "withheld"})


@dataclass(frozen=True)
class Rejected:
    """A row or file that cannot be imported, with a short machine-readable reason and its explanation."""

    id: str
    path: str
    reason: str
    detail: str


@dataclass
class Imported:
    """Rows in a stable order, rejected rows and files, and counts of what is left out.

    places: where each row is from, for messages, as "row 3"; empty if the rows' paths say it.
    warnings: what may be meant otherwise.
    excluded: rows that the config leaves out, by category ("song").
    ignored: files without an audio suffix, by suffix; they are not part of the corpus.
    """

    rows: list[Row] = field(default_factory=list)
    places: list[str] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    excluded: Counter[str] = field(default_factory=Counter)
    ignored: Counter[str] = field(default_factory=Counter)


class CorpusBase(Config):
    """Fields of every corpus.

    root: folder of the corpus; a relative one is relative to the working directory. `--root` overrides it.
    label: the column for `classes` and for stratified splits.
    labels: their label -> ours, for those to rename or to join: `{Anger: anger}`.
    classes: keep only rows with these labels, as renamed; others are counted and reported. null keeps all.
    min_duration_s, max_duration_s: shorter and longer files are quarantined; null sets no upper bound.
    max_bad_fraction: `prepare` fails if a larger share of the files is unusable.
    split: which rows are for training, validation and testing.
    """

    root: str | None = None
    label: str = "emotion"
    labels: dict[Text, Text] = Field(default_factory=dict)
    classes: list[Text] | None = Field(None, min_length=1)
    min_duration_s: float = Field(0.0, ge=0)
    max_duration_s: float | None = Field(30.0, gt=0)
    max_bad_fraction: float = Field(0.05, ge=0, le=1)
    split: SplitConfig = KFold(kind="kfold", folds=5)
    if TYPE_CHECKING:
        kind: str

    def read(self, root: Path) -> Imported:
        """The corpus below `root`. Raises ValueError for a root or a field that cannot be used."""
        raise NotImplementedError


def audio_files(root: Path, ignored: Counter[str]) -> Iterator[Path]:
    """Audio files under `root`, sorted; others are counted in `ignored`. ValueError if there are none."""
    if not root.is_dir():
        raise ValueError(f"{root}: no such folder; give the corpus's with --root, or `root:` in its config")
    found = 0
    # os.walk, because Path.rglob does not follow linked folders before Python 3.13.
    for folder, subfolders, names in os.walk(root, followlinks=True):
        here = Path(folder).resolve()
        # A link to a parent folder would recurse forever.
        subfolders[:] = sorted(
            name
            for name in subfolders
            if not name.startswith(".") and not here.is_relative_to(Path(folder, name).resolve())
        )
        for name in sorted(names):
            path = Path(folder, name)
            # A leading dot is the operating system's (.DS_Store, ._name.wav), never a recording.
            if name.startswith(".") or path.suffix.lower() not in AUDIO_SUFFIXES:
                ignored["hidden" if name.startswith(".") else path.suffix.lower() or "no suffix"] += 1
                continue
            try:
                str(path).encode()
            except UnicodeEncodeError:
                raise ValueError(
                    f"{str(path)!r}: this name is not UTF-8, so no table can hold it; rename the file, or "
                    "its folder"
                ) from None
            found += 1
            yield path
    if not found:
        raise ValueError(f"{root}: no audio files below it (looked for {', '.join(sorted(AUDIO_SUFFIXES))})")


def keep_suffixes(rows: Sequence[Row]) -> None:
    """Add the suffix to the ids of files that differ in nothing else: `a.wav` and `a.flac`."""
    sharing: dict[str | None, list[Row]] = defaultdict(list)
    for row in rows:
        sharing[row["id"]].append(row)
    for same in sharing.values():
        if len({PurePath(str(row["path"])).suffix for row in same}) > 1:
            for row in same:
                row["id"] = f"{row['id']}{PurePath(str(row['path'])).suffix}"


def check_no_span(names: Iterable[str]) -> None:
    """Raise ValueError if one of a corpus's names for what is no span is `start` or `end`."""
    if taken := sorted({"start", "end"} & {*names}):
        raise ValueError(
            f"{', '.join(taken)}: reserved for spans, which only the `columns` of a table give; name the "
            "group or constant otherwise"
        )


def compiled(pattern: str, field: str) -> re.Pattern[str]:
    """`pattern` as a regular expression. Raises ValueError that names `field`."""
    try:
        return re.compile(pattern)
    except re.error as error:
        raise ValueError(f"{field}: {pattern!r} is not a regular expression: {error}") from None
