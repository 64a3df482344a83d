"""Unusable rows and files: listed with a reason, never dropped, and too many of them stop the stage."""

import csv
import io
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from stillwave.pipeline.audio.files import read_file


class Quarantined(NamedTuple):
    """One line of a quarantine.csv.

    stage: `import` (name or row), `decode` (audio), `transcribe` (text) or `extract` (frames).
    reason: a word from a fixed list. detail: what is needed to fix it.
    """

    id: str
    path: str
    stage: str
    reason: str
    detail: str


def quarantine_csv(quarantined: Sequence[Quarantined]) -> bytes:
    """The file's bytes; only a header if there is nothing to list."""
    return csv_bytes(Quarantined._fields, quarantined)


def csv_bytes(header: Sequence[str], rows: Iterable[Sequence[str]]) -> bytes:
    """A table as CSV, in UTF-8."""
    buffer = io.StringIO(newline="")
    csv.writer(buffer, lineterminator="\n").writerows([header, *rows])
    return buffer.getvalue().encode()


def quarantine_path(store: str | Path) -> str:
    """The file next to a store in which `extract` lists the rows that it lacks."""
    return f"{store}.quarantine.csv"


def quarantined_ids(path: str | Path) -> set[str]:
    """The ids that a quarantine.csv lists; none if there is no such file."""
    try:
        text = read_file(path).decode()
    except FileNotFoundError:
        return set()
    return {row["id"] for row in csv.DictReader(io.StringIO(text, newline=""))}


def check_bad_fraction(
    quarantined: Sequence[Quarantined], usable: int, bound: float, path: str | Path
) -> None:
    """Raise ValueError if more than `bound` of the rows, or all, are quarantined; `path` lists them."""
    bad, considered = len(quarantined), len(quarantined) + usable
    if usable and bad / considered <= bound:
        return
    reasons = Counter(item.reason for item in quarantined)
    named = ", ".join(f"{count} {reason}" for reason, count in sorted(reasons.items()))
    first = f"; the first is {quarantined[0].id}: {quarantined[0].detail}" if quarantined else ""
    raise ValueError(
        f"{bad} of {considered} rows are unusable ({named}){first}. At most max_bad_fraction = {bound:.1%} "
        f"may be, and not all. {path} lists them: fix or remove them, or raise max_bad_fraction"
    )
