"""What the rapid word pipeline requires of its table, in the table's own terms."""

import warnings
from pathlib import Path

import pandas as pd

from stillwave.pipeline.corpora.table import column_names, read_table

COLUMNS = {"path": "file_path", "word": "word", "speaker": "speaker"}  # our names -> the table's
NAMED = 10  # the most words in a message


def check_table(table: Path, root: Path) -> None:
    """Raise ValueError for a missing table, a missing column, or a row without speaker."""
    needed = ", ".join(COLUMNS.values())
    if not table.is_file():
        raise ValueError(f"{table}: no such table; give a CSV, Parquet or JSONL file with columns {needed}")
    there = column_names(table)
    if missing := [name for name in COLUMNS.values() if name not in there]:
        raise ValueError(
            f"{table}: no column {', '.join(map(repr, missing))}; it needs {needed}, and has "
            f"{', '.join(there)}"
        )
    rows = read_table(table, root, COLUMNS).rows
    if nameless := [row["path"] for row in rows if row["speaker"] is None]:
        raise ValueError(
            f"{table}: column 'speaker' has no value for {nameless[0]} ({len(nameless)} rows in all); fill "
            "it in, with one name for all unknown speakers"
        )


def check_words(table: Path, rows: pd.DataFrame) -> None:
    """Raise ValueError unless the usable `rows` have two words, with training rows for each."""
    words = sorted(set(rows["word"]))
    if len(words) < 2:
        raise ValueError(
            f"{table}: column 'word' has only {words[0]!r} in all {len(rows)} usable rows; a model needs 2 "
            "words or more to tell apart"
        )
    if lost := sorted(set(words) - set(rows["word"][rows["split"] != "test"])):
        raise ValueError(
            f"{table}: no training row has {_listed(lost)}: only test speakers say it; add "
            "recordings of other speakers, leave it out, or give another seed"
        )


def warn_of_untested(table: Path, rows: pd.DataFrame) -> None:
    """Warn about words without test rows, such as words with a single recording: they are not evaluated."""
    if untested := sorted(set(rows["word"]) - set(rows["word"][rows["split"] == "test"])):
        warnings.warn(
            f"{table}: no test row has {_listed(untested)}: in word_analysis the count is 0 and the accuracy "
            "null; add recordings",
            stacklevel=3,
        )


def _listed(words: list[str]) -> str:
    more = f" and {len(words) - NAMED} more" if len(words) > NAMED else ""
    return f"the word{'s' * (len(words) > 1)} {', '.join(map(repr, words[:NAMED]))}{more}"
