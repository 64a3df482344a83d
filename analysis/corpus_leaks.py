"""What the training and the test rows of a split share: speakers, texts, recordings."""

from collections import Counter
from typing import NamedTuple

import pandas as pd

from stillwave.analysis.corpus_facts import side_order, sides_of
from stillwave.analysis.names import natural
from stillwave.pipeline.corpora.manifest import SPLITS
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
    counts = Counter(sides_of(manifest).tolist())
    return {part: counts[part] for part in sorted(counts, key=side_order(manifest)) if part != "train"}


def leaks(manifest: pd.DataFrame, group: str | None = "speaker") -> list[Leak]:
    """What may leak: `group`, the column whose values the split keeps together; speaker, text, recording.

    Equal bytes are one recording, and so are spans of it that overlap. A column that the manifest lacks is
    left out.
    """
    found = [
        _leak(manifest, name, manifest[name], manifest[name])
        for name in dict.fromkeys([group or "speaker", "speaker", "text"])
        if name in manifest and manifest[name].notna().any()
    ]
    heard = manifest["path"] != ""
    if heard.any():
        shared = pd.Series(sharing(manifest), index=manifest.index, dtype=object)
        found.append(_leak(manifest, "recording", shared, shared))
    return found


def _leak(manifest: pd.DataFrame, what: str, keys: pd.Series, names: pd.Series) -> Leak:
    """names: of the keys, for people."""
    sides = sides_of(manifest)
    if "split" in manifest:
        # what is tested last must be new to both training and validation
        order = sides.map(SPLITS.index)
        shares = order.groupby(keys).transform("min") < order
    else:
        shares = manifest["fold"].groupby(keys).transform("nunique") > 1
    counts = Counter(sides[shares].tolist())
    frequent = Counter(map(str, names[shares].tolist()))
    most = sorted(frequent, key=lambda name: (-frequent[name], natural(name)))[:EXAMPLES]
    examples, named = {}, names.map(str)
    for name in most:
        parts = Counter(sides[named == name].tolist())
        examples[name] = {part: parts[part] for part in sorted(parts, key=side_order(manifest))}
    return Leak(what, {part: counts[part] for part in tested(manifest)}, len(frequent), examples)
