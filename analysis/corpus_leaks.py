"""What the training and the test rows of a split share, for people: speakers, texts, recordings."""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from stillwave.analysis.corpus_facts import side_order, sides_of
from stillwave.analysis.names import natural
from stillwave.pipeline.corpora.leaks import keys_of, shares
from stillwave.pipeline.corpora.manifest import withheld_from
from stillwave.pipeline.corpora.spans import sharing

EXAMPLES = 5


class Leak(NamedTuple):
    """What some test rows share with rows to train on.

    what: a column, or `recording`. rows: of the tested rows of each part, how many share it.
    shared: how many different values are on both sides. examples: the most frequent of them, and their rows
    by part.
    """

    what: str
    rows: dict[str, int]
    shared: int
    examples: dict[str, dict[str, int]]


def tested(manifest: pd.DataFrame) -> dict[str, int]:
    """The parts that are tested, or validated, and their rows: each fold, or `valid` and `test`."""
    used = np.array(["fold" in manifest or not folds for folds in withheld_from(manifest)], dtype=bool)
    counts = Counter(sides_of(manifest)[used].tolist())
    return {part: counts[part] for part in sorted(counts, key=side_order(manifest)) if part != "train"}


def leaks(manifest: pd.DataFrame, group: str | None = "speaker") -> list[Leak]:
    """What may leak: `group`, the column whose values the split keeps together; speaker, text, recording.

    Equal bytes are one recording, and so are spans of it that overlap; texts that differ only in case or
    blanks are one text. A column that the manifest lacks is left out.
    """
    found = [
        _leak(manifest, name, keys_of(manifest, name), manifest[name])
        for name in dict.fromkeys([group or "speaker", "speaker", "text"])
        if name in manifest and manifest[name].notna().any()
    ]
    heard = manifest["path"] != ""
    if heard.any():
        shared = sharing(manifest)
        found.append(_leak(manifest, "recording", shared, pd.Series(shared, dtype=object)))
    return found


def _leak(manifest: pd.DataFrame, what: str, keys: Sequence[str | None], names: pd.Series) -> Leak:
    """names: of the keys, for people; the first row's is taken."""
    sides, shared = sides_of(manifest).tolist(), shares(manifest, keys)
    named: dict[str | None, str] = {}
    for key, name in zip(keys, names.tolist(), strict=True):
        named.setdefault(key, str(name))
    counts = Counter(side for side, bad in zip(sides, shared, strict=True) if bad)
    frequent = Counter(key for key, bad in zip(keys, shared, strict=True) if bad)
    examples = {}
    for one in sorted(frequent, key=lambda key: (-frequent[key], natural(named[key])))[:EXAMPLES]:
        parts = Counter(side for side, key in zip(sides, keys, strict=True) if key == one)
        examples[named[one]] = {part: parts[part] for part in sorted(parts, key=side_order(manifest))}
    return Leak(what, {part: counts[part] for part in tested(manifest)}, len(frequent), examples)
