"""Rows that are spans of files: seconds as tables write them, contradictions, and rows that overlap."""

import re
from collections.abc import Hashable, Iterable, Mapping
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd

from stillwave.pipeline.audio.segments import Span, span_of
from stillwave.pipeline.corpora.base import Row
from stillwave.pipeline.corpora.manifest import SPAN
from stillwave.pipeline.corpora.spelling import MISSING, NUMBER

NOT_A_TIME = MISSING | {"NaT"}
# As timedeltas are written by pandas and Python: `0 days 00:00:01.500000`, `0 days`, `1 day, 0:00:01.5`,
# `00:00:01.5`. Negative ones start with a minus: `-1 days +23:59:59`.
_TIME = re.compile(r"(-?)(?:(\d+) days?,?)?(?:(?:^|\s)\+?(\d+):([0-5]?\d):([0-5]?\d(?:[.,]\d*)?))?")

# ISO 8601, as pandas writes them in JSON: `P0DT0H0M1.5S`.
_ISO = re.compile(r"(-?)P(?=.)(?:(\d+)D)?(?:T(?=.)(?:(\d+)H)?(?:(\d+)M)?(?:(\d+(?:[.,]\d*)?)S)?)?")


def read_span(row: Row) -> Span | None:
    """The span in a row's cells `start` and `end`, which become plain seconds; None for a whole file.

    Without `start` it starts with the file; without `end`, or with NaT, it ends with it. Raises ValueError.
    """
    start, end = (_seconds(row, name) for name in SPAN)
    span = None if end is None and not start else Span(start or 0.0, end)
    if span is not None and end is not None and end <= span.start:
        raise ValueError(f"its end, {end:g} s, is not after its start, {span.start:g} s; correct them")
    if span is not None and row.get("path") == "":
        raise ValueError("a row of text alone has no span; leave `start` and `end` empty")
    for name, value in zip(SPAN, span or (None, None), strict=True):
        if name in row or value is not None:
            row[name] = None if value is None else np.format_float_positional(value, trim="-")
    return span


def _seconds(row: Row, name: str) -> float | None:
    text = (row.get(name) or "").strip()
    if not text or text in NOT_A_TIME:
        return None
    seconds, found = float("nan"), _TIME.fullmatch(text) or _ISO.fullmatch(text)
    if NUMBER.fullmatch(text):
        seconds = float(text.replace(",", "."))
    elif found:
        days, hours, minutes, rest = (Decimal((part or "0").replace(",", ".")) for part in found.groups()[1:])
        seconds = float(((days * 24 + hours) * 60 + minutes) * 60 + rest)
    if not seconds < float("inf"):
        raise ValueError(f"its `{name}` is {text!r}; give seconds, as 1.5, or a time, as 00:00:01.5")
    if text.startswith("-"):
        raise ValueError(f"its `{name}` is {text!r}, before the file starts; give seconds from its start")
    return seconds


def where(row: Mapping[str, Any]) -> str:
    """The file of a row, and its span, in words."""
    span = span_of(row)
    if span is None:
        return str(row["path"])
    end = "its end" if span.end is None else f"{row['end']} s"
    return f"{row['path']} from {row['start']} s to {end}"


def same_span(row: Row) -> tuple[object, ...]:
    """Equal for rows of one file and one span, to the microsecond; a row of text alone equals itself only."""
    if not row["path"]:
        return (row["id"],)
    return (row["path"], *(None if second is None else round(second, 6) for second in span_of(row) or ()))


def check_labels(rows: Iterable[Mapping[str, Any]], label: str) -> None:
    """Raise ValueError if decoded rows have two labels for the same samples of files with the same bytes."""
    first: dict[Hashable, Mapping[str, Any]] = {}
    for row in rows:
        if row["path"] == "":  # a text may be said in several ways
            continue
        begin = round((span_of(row) or Span(0.0)).start * row["sample_rate"])
        twin = first.setdefault((row["sha256"], begin, row["num_samples"]), row)
        if twin[label] != row[label]:
            raise ValueError(
                f"{label}: two labels for the same samples: {twin['id']!r} ({where(twin)}) says "
                f"{twin[label]!r}, {row['id']!r} ({where(row)}) says {row[label]!r}; remove one, or join the "
                "two with `labels`"
            )


def in_seconds(row: Row, count: int, sample_rate: int) -> dict[str, float | None]:
    """The columns `start` and `end` of a manifest, if the row has them, for a span of `count` samples.

    An end that was rounded to behind the file's becomes the file's.
    """
    if not any(name in row for name in SPAN):
        return {}
    start, end = span_of(row) or (None, None)
    if start is not None and end is not None:
        last = round(start * sample_rate) + count
        end = end if round(end * sample_rate) == last else last / sample_rate
    return {"start": start, "end": end}


def without_empty(manifest: pd.DataFrame) -> pd.DataFrame:
    """A manifest has `start` and `end` only if some row is a span."""
    if "start" in manifest and not manifest["start"].isna().all():
        return manifest
    return manifest.drop(columns=[*SPAN], errors="ignore")


def sharing(manifest: pd.DataFrame) -> list[str | None]:
    """For each row with audio, the id of the first of those that it shares samples with, directly or not.

    They have the same bytes, and their spans overlap. If such rows are on two sides of a split, then two that
    overlap are. None for rows of text alone.
    """
    wanted = [name for name in ("id", "path", "sha256", "sample_rate", *SPAN) if name in manifest]
    rows = manifest[wanted].to_dict("records")
    spans = {place: _in_samples(row) for place, row in enumerate(rows) if row["path"] != ""}
    group, groups, reached = ("", 0), dict[int, tuple[str, int]](), 0.0
    for place in sorted(spans, key=lambda place: (rows[place]["sha256"], spans[place])):
        start, end = spans[place]
        if rows[place]["sha256"] != group[0] or start >= reached:
            group, reached = (rows[place]["sha256"], place), end
        groups[place], reached = group, max(reached, end)
    first: dict[tuple[str, int], str] = {}
    return [
        first.setdefault(groups[place], row["id"]) if place in groups else None
        for place, row in enumerate(rows)
    ]


def _in_samples(row: dict[Hashable, Any]) -> tuple[float, float]:
    """[first, last) of a row; before its rate is known, in microseconds."""
    start, end = span_of(row) or Span(0.0)
    rate = row.get("sample_rate") or 1_000_000
    return round(start * rate), float("inf") if end is None else round(end * rate)
