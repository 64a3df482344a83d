"""What the columns of a table, or the parts of files' paths, mean: guesses by name and by content."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath

from stillwave.pipeline.audio.segments import Span
from stillwave.pipeline.corpora.base import MEASURED, Row
from stillwave.pipeline.corpora.manifest import RESERVED
from stillwave.pipeline.corpora.paths import is_there, located
from stillwave.pipeline.corpora.spans import read_span
from stillwave.pipeline.corpora.spelling import listed
from stillwave.pipeline.corpora.splits import side_of

LABELS = (
    "label", "emotion", "class", "category", "target", "word", "command", "intent", "sentiment", "digit",
)  # fmt: skip
TEXTS = ("text", "transcript", "transcription", "sentence", "utterance", "words")
LANGUAGES = ("language", "lang")
SPLITS = ("split", "subset", "partition", "set", "fold")
STARTS_ENDS = (
    ("start", "end"), ("start_time", "end_time"), ("start_s", "end_s"), ("begin", "end"), ("onset", "offset"),
)  # fmt: skip
SPEAKER = re.compile(r"(?<![a-z])(speaker|spkr?|actor|subject|talker|singer|client|participant)")
# Columns that are not labels even with few values: they describe the speaker or the recording.
ASIDE = re.compile(
    r"gender|sex$|^age|accent|locale|session|channel|device|rate|duration|length|votes|^id$|_id$"
)
MOST_CLASSES = 100
SAMPLE = 200  # rows searched for the column of paths
# The speaker in a path relative to the corpus: the second folder, or the start of a file's name.
PATTERNS = (r"^[^/]+/(?P<speaker>[^/]+)/", r"/(?P<speaker>[^/_-]+)[_-][^/]*$")


def path_column(
    rows: Sequence[Row], table: Path, folder: Path, files: Sequence[Path]
) -> tuple[str, Path] | None:
    """The column whose values are files, and the folder that they are relative to; None for no column.

    That folder is `folder`, the table's own, or one below `folder` that holds files with these names.
    """
    some = rows[:: max(1, len(rows) // SAMPLE)]
    names = {path.name: path for path in files}
    best, found = 0, None
    for column in rows[0]:
        values = [value for row in some if (value := row[column])]
        roots = [folder, table.parent]
        for value in values:
            named = PurePosixPath(value)
            if file := names.get(named.name):
                roots.append(file.parents[min(len(named.parts), len(file.parents)) - 1])
                break
        for root in roots:
            hits = sum(is_there(located(root, value)) for value in values)
            if hits > best:
                best, found = hits, (column, root)
    return found if best * 2 > len(some) else None


def guess_columns(
    rows: Sequence[Row], path: str, label: str | None
) -> tuple[dict[str, str], str, dict[str, str]]:
    """Our name -> theirs for every known column, and our name for the column of labels.

    label: their name for it, if it is known. Third, the meanings of the values of `split`; empty without such
    a column, or if it is the number of a `fold`. Raises ValueError naming the columns if none looks like
    labels.
    """
    values = {
        name: Counter(value for row in rows if (value := row[name]) is not None)
        for name in rows[0]
        if name != path
    }
    if label is not None and label not in values:
        raise ValueError(f"no column {label!r}; the columns are {listed(rows[0])}")
    free = [name for name in values if name != label]

    def named(wanted: Iterable[str]) -> str | None:
        return next((name for want in wanted for name in free if name.lower() == want and values[name]), None)

    speaker = next(
        (n for n in free if SPEAKER.search(n.lower()) and 0 < len(values[n]) < values[n].total()), None
    )
    split = named(SPLITS)
    sides = {value: side_of(value) for value in values[split]} if split else {}
    if "train" not in sides.values() or not {"test", "valid"} & {*sides.values()}:
        sides = {}
    if split and not sides and not ("fold" in split.lower() and all(v.isdecimal() for v in values[split])):
        split = None
    text, language = named(TEXTS), named(LANGUAGES)
    start, end = _span_columns(rows, path, free) or (None, None)
    taken = {speaker, split, text, language, start, end}
    classes = [
        name for name in free
        if name not in taken and 2 <= len(values[name]) <= min(MOST_CLASSES, values[name].total() // 2)
    ]  # fmt: skip
    by_name = [name for want in LABELS for name in classes if want in name.lower()]
    by_content = [name for name in classes if not ASIDE.search(name.lower()) and not _measured(values[name])]
    chosen = label or next(iter([*by_name, *by_content]), None)
    if chosen is None:
        raise ValueError(
            f"no column looks like labels, with 2 to {MOST_CLASSES} values that repeat; the columns are "
            f"{listed(rows[0])}: name the one to predict with --label"
        )
    ours = our_name(chosen)
    part = "split" if sides else "fold"
    found = {
        "path": path, "start": start, "end": end, ours: chosen, "speaker": speaker, "text": text,
        "language": language, part: split,
    }  # fmt: skip
    columns = {name: theirs for name, theirs in found.items() if theirs is not None}
    return columns, ours, {value: side for value, side in sides.items() if side}


def _span_columns(rows: Sequence[Row], path: str, free: Sequence[str]) -> tuple[str, str] | None:
    """The columns with the first and the last second of each row, by their names; of ten rows, one may err.

    Onsets and offsets may be of something in the recording: some file must have several rows.
    """
    names = {"_".join(re.split(r"[\W_]+", name.lower())): name for name in free}
    for start, end in STARTS_ENDS:
        if start not in names or end not in names:
            continue
        found, spans = (names[start], names[end]), list[Span | None]()
        for row in rows:
            with suppress(ValueError):
                spans.append(read_span({"start": row[found[0]], "end": row[found[1]]}))
        several = len({row[path] for row in rows}) < len(rows)
        if any(spans) and len(spans) >= 0.9 * len(rows) and (several or start != "onset"):
            return found
    return None


def our_name(column: str) -> str:
    """Our name for the column of labels: theirs, unless we use that name for something else."""
    name = "_".join(column.lower().split())
    return "label" if name in {*RESERVED, *MEASURED, "speaker", "text", "language"} else name


def speaker_pattern(paths: Sequence[str], labels: Sequence[str]) -> tuple[str, list[str]] | None:
    """The regular expression that finds a speaker in each path (`label/...`), and what it finds; or None.

    Accepted if all paths match, and at least half of the matches occur in several classes: one that occurs in
    only one class is more likely a take, or the class itself.
    """
    for pattern in PATTERNS:
        matches = [re.search(pattern, path) for path in paths]
        if not all(matches):
            continue
        speakers = [match["speaker"] for match in matches if match]
        classes: dict[str, set[str]] = defaultdict(set)
        for speaker, label in zip(speakers, labels, strict=True):
            classes[speaker].add(label)
        several = sum(len(found) > 1 for found in classes.values())
        if 2 <= len(classes) <= len(paths) // 2 and several * 2 >= len(classes):
            return pattern, speakers
    return None


def _measured(values: Counter[str]) -> bool:
    """Whether all values are numbers with fractions: durations, ratings; not classes."""
    return all(re.fullmatch(r"-?\d+\.\d+", value) for value in values)
