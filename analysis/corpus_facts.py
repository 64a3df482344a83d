"""What is in a manifest: its rows counted by class, speaker, duration and more, for corpus_page/."""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from stillwave.analysis.names import natural
from stillwave.pipeline.corpora.base import MEASURED
from stillwave.pipeline.corpora.leaks import sizes
from stillwave.pipeline.corpora.manifest import RESERVED, SPLITS, contents
from stillwave.pipeline.corpora.quarantine import Quarantined

MOST_LINES, MOST_COLUMNS = 40, 16  # of a table; all others are added up in one more
MOST_BARS = 30
CROSSED = ("language", "gender", "sex")  # counted by class, like the speaker


@dataclass(frozen=True)
class Groups:
    """The rows by one column. names: of the groups. numbers: (rows,), of each row's group.

    own: how many of the groups are a value of their own; what follows are all others, and rows without one.
    """

    names: list[str]
    numbers: NDArray[np.int64]
    own: int


class Counts(NamedTuple):
    """Rows counted by two columns. heads: of the table's columns.

    lines: of each, its name, its cells and the sum of their counts. A cell is a count, and that as a share of
    the largest; counts of all others have no share, as they would dwarf the rest.
    """

    heads: list[str]
    lines: list[tuple[str, list[tuple[int, float]], int]]


class Bar(NamedTuple):
    """Rows of a duration in [start_s, end_s); end_s is None for the last, which holds all that are longer."""

    start_s: float
    end_s: float | None
    rows: int


def grouped(
    values: pd.Series, most: int, lacking: str, order: Callable[[str], Any] = natural, others: str = "others"
) -> Groups:
    """The rows by `values`: the `most` largest groups, in `order`, then `others`, and those that lack one."""
    gaps = values.isna().tolist()
    texts = [None if gap else str(value) for value, gap in zip(values.tolist(), gaps, strict=True)]
    counts = Counter(text for text in texts if text is not None)
    shown = sorted(sorted(counts, key=lambda name: (-counts[name], order(name)))[:most], key=order)
    rest, own = len(counts) - len(shown), len(shown)
    place: dict[str | None, int] = {name: number for number, name in enumerate(shown)}
    place[None] = own + bool(rest)
    names = shown + ([f"{rest} {others}"] if rest else []) + ([lacking] if any(gaps) else [])
    return Groups(names, np.array([place.get(text, own) for text in texts], dtype=np.int64), own)


def crossed(lines: Groups, columns: Groups) -> Counts:
    """The rows in each group of both."""
    counts = np.zeros((len(lines.names), len(columns.names)), dtype=np.int64)
    np.add.at(counts, (lines.numbers, columns.numbers), 1)
    named = counts[: lines.own, : columns.own]
    shares = np.zeros(counts.shape)
    shares[: lines.own, : columns.own] = named / max(1, named.max(initial=0))
    cells = [list(zip(n, of, strict=True)) for n, of in zip(counts.tolist(), shares.tolist(), strict=True)]
    return Counts(columns.names, list(zip(lines.names, cells, counts.sum(axis=1).tolist(), strict=True)))


def corpus_facts(manifest: pd.DataFrame, label: str | None) -> dict[str, Any]:
    """The values that the templates of corpus_page/ show, other than leaks, quarantine and clips."""
    labels = manifest[label] if label is not None else pd.Series("all rows", index=manifest.index)
    audio = manifest[manifest["path"] != ""]
    by_class = grouped(labels, MOST_LINES, "no label", others="other classes")
    few_classes = grouped(labels, MOST_COLUMNS, "no label")
    by_side = grouped(sides_of(manifest), MOST_LINES, "no part", side_order(manifest), "other folds")
    return {
        "label": label,
        "rows": len(manifest),
        "recordings": len(audio),
        "seconds": float(audio["duration_s"].sum()),
        "copies": len(audio) - len(set(contents(audio))),
        "durations": _durations(audio["duration_s"]),
        "bars": histogram(audio["duration_s"]) if len(audio) else [],
        "distinct": labels.nunique(),
        "classes": _classes(manifest, by_class),
        "speakers": _speakers(manifest, labels),
        "by_speaker": (
            crossed(grouped(manifest["speaker"], MOST_LINES, "no speaker"), few_classes)
            if _has(manifest, "speaker")
            else None
        ),
        "by_class": {
            name: crossed(by_class, grouped(manifest[name], MOST_COLUMNS, f"no {name}"))
            for name in CROSSED
            if name != label and _has(manifest, name)
        },
        "columns": _columns(manifest),
        "rates": list(audio.groupby("sample_rate")["duration_s"].agg(["size", "sum"]).itertuples(name=None)),
        "notes": _notes(manifest) if "note" in manifest else None,
        "folds": "fold" in manifest,
        "by_side": crossed(by_side, few_classes),
        "sizes": sizes(manifest) if "withheld" in manifest else {},
    }


def sides_of(manifest: pd.DataFrame) -> pd.Series:
    """The side of each row: train, valid or test, or the fold that tests it, as `fold 0`."""
    return manifest["split"] if "split" in manifest else manifest["fold"].map("fold {}".format).astype(object)


def side_order(manifest: pd.DataFrame) -> Callable[[str], Any]:
    """The key that sorts the sides: train, valid, test, or the folds by number."""
    return SPLITS.index if "split" in manifest else natural


def histogram(seconds: pd.Series) -> list[Bar]:
    """Bars of equal width, at most MOST_BARS of them up to the 99th percentile, and one for the rest."""
    top = float(np.percentile(seconds, 99))
    widths = (mantissa * 10.0**power for power in range(-4, 6) for mantissa in (1, 2, 5))
    width = next(width for width in widths if top < width * MOST_BARS)
    count = int(top / width) + 1
    rows = np.bincount(np.minimum(seconds.to_numpy() / width, count).astype(np.int64), minlength=count)
    bars = [Bar(i * width, (i + 1) * width, int(n)) for i, n in enumerate(rows[:count])]
    return [*bars, Bar(count * width, None, int(rows[count]))] if len(rows) > count else bars


def by_reason(quarantined: Iterable[Quarantined]) -> list[tuple[Quarantined, int]]:
    """The first line of each stage and reason, and how many there are, the most frequent first."""
    first: dict[tuple[str, str], Quarantined] = {}
    counts: Counter[tuple[str, str]] = Counter()
    for line in quarantined:
        counts[line.stage, line.reason] += 1
        first.setdefault((line.stage, line.reason), line)
    return [(first[key], counts[key]) for key in sorted(counts, key=lambda key: (-counts[key], key))]


def _has(manifest: pd.DataFrame, name: str) -> bool:
    return name in manifest and bool(manifest[name].notna().any())


def _durations(seconds: pd.Series) -> dict[str, float]:
    if seconds.empty:
        return {}
    points = {"shortest": 0.0, "5 % are shorter than": 0.05, "median": 0.5, "95 % are shorter than": 0.95}
    found = {name: float(seconds.quantile(point)) for name, point in points.items()}
    return found | {"longest": float(seconds.max()), "mean": float(seconds.mean())}


def _classes(manifest: pd.DataFrame, by_class: Groups) -> list[dict[str, Any]]:
    """Rows, seconds, median duration and speakers of each class."""
    found = []
    for number, name in enumerate(by_class.names):
        rows = manifest[by_class.numbers == number]
        audio = rows["duration_s"][rows["path"] != ""]
        found.append(
            {
                "name": name,
                "rows": len(rows),
                "seconds": float(audio.sum()),
                "median": float(audio.median()) if len(audio) else None,
                "speakers": rows["speaker"].nunique() if "speaker" in rows else None,
            }
        )
    return found


def _speakers(manifest: pd.DataFrame, labels: pd.Series) -> dict[str, list[float]]:
    """The smallest, median and largest number of rows, of seconds and of classes of a speaker."""
    if not _has(manifest, "speaker"):
        return {}
    by = manifest.assign(labels=labels).groupby("speaker")
    each = {"rows": by.size(), "seconds": by["duration_s"].sum(), "classes": by["labels"].nunique()}
    return {name: [float(values.quantile(q)) for q in (0, 0.5, 1)] for name, values in each.items()}


def _columns(manifest: pd.DataFrame) -> list[dict[str, Any]]:
    """For each column of the corpus's own: its distinct values, its gaps and its most frequent value."""
    found = []
    for name in manifest.columns:
        if name not in RESERVED and name not in MEASURED:
            values = manifest[name].dropna()
            most = min(
                Counter(map(str, values.tolist())).items(), key=lambda item: (-item[1], item[0]), default=None
            )
            lacking = len(manifest) - len(values)
            found.append({"name": name, "distinct": values.nunique(), "lacking": lacking, "most": most})
    return found


def _notes(manifest: pd.DataFrame) -> list[tuple[str, int, str]]:
    """Each note, how many rows have it, and the first of them; a row may have several, after semicolons."""
    first: dict[str, str] = {}
    counts: Counter[str] = Counter()
    for name, notes in manifest[["id", "note"]].dropna().itertuples(index=False):
        for note in filter(None, (part.strip() for part in str(notes).split(";"))):
            counts[note] += 1
            first.setdefault(note, name)
    ordered = sorted(counts, key=lambda note: (-counts[note], note))
    return [(note, counts[note], first[note]) for note in ordered]
