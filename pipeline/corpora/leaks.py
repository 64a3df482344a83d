"""What the two sides of a split share: what leaks, and which rows to train on are left out instead.

A fold is tested by models that train on the rows of all other folds, less those that `withheld` names; a
train/valid/test split is fold 0 (see manifest.py).
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from stillwave.pipeline.config.corpus import Predefined, SplitBase
from stillwave.pipeline.corpora.manifest import SPLITS, own_folds, withheld_from
from stillwave.pipeline.corpora.spelling import same_text
from stillwave.pipeline.corpora.splits import check_leak

REPORTED = ("speaker", "text")  # columns of which `prepare` says what leaks


class Size(NamedTuple):
    """Numbers of rows of a fold. withheld: neither trained nor validated on."""

    test: int
    train: int
    withheld: int


def keys_of(rows: pd.DataFrame, column: str) -> list[str | None]:
    """The key of each row's value, None for none; texts that differ only in case or blanks have the same."""
    values = [None if pd.isna(value) else str(value) for value in rows[column]]
    return [value and (same_text(value) or None) for value in values] if column == "text" else values


def shares(manifest: pd.DataFrame, keys: Sequence[str | None]) -> NDArray[np.bool_]:
    """Whether each row shares its key with a row that its fold trains on, (rows,).

    Of a split, rows of test are compared with train and valid, rows of valid with train.
    """
    withheld = withheld_from(manifest)
    found: Iterable[bool]
    if "split" in manifest:
        sides = [SPLITS.index(side) for side in manifest["split"]]
        first: dict[str | None, int] = {None: len(SPLITS)}  # the first side that uses a key
        for key, side, folds in zip(keys, sides, withheld, strict=True):
            if key is not None and not folds:
                first[key] = min(side, first.get(key, side))
        found = (
            not folds and first[key] < side for key, side, folds in zip(keys, sides, withheld, strict=True)
        )
    else:
        tested: Sequence[int | None] = own_folds(manifest)
        everywhere, own = Counter(keys), Counter(zip(tested, keys, strict=True))
        left_out: Counter[tuple[int | None, str | None]] = Counter(
            (fold, key) for key, folds in zip(keys, withheld, strict=True) for fold in folds
        )
        found = (
            key is not None and everywhere[key] > own[fold, key] + left_out[fold, key]
            for key, fold in zip(keys, tested, strict=True)
        )
    return np.fromiter(found, dtype=bool, count=len(manifest))


def check_shared(manifest: pd.DataFrame, keys: Sequence[str | None], what: str, remedy: str) -> None:
    """Raise ValueError, as `check_leak`, if rows share a key with rows that their fold trains on."""
    leaking = {key for key, shared in zip(keys, shares(manifest, keys), strict=True) if shared}
    sides = manifest["split" if "split" in manifest else "fold"].tolist()
    check_leak(sides, [key if key in leaking else None for key in keys], what, remedy)


def withhold(manifest: pd.DataFrame, keys: Mapping[str, Sequence[str]], label: str) -> pd.DataFrame:
    """`manifest` with the column `withheld`: the folds that test other rows with one of a row's keys.

    keys: by column, one per row. Without anything to leave out there is no such column. ValueError if a fold
    has no training row of a class left.
    """
    tested = own_folds(manifest)
    found: list[set[int]] = [set() for _ in tested]
    for values in keys.values():
        folds = defaultdict[str, set[int]](set)
        for key, fold in zip(values, tested, strict=True):
            if fold is not None:
                folds[key].add(fold)
        for row, key in zip(found, values, strict=True):
            row |= folds[key]
    named = [
        " ".join(map(str, sorted(row - {fold}))) or None for row, fold in zip(found, tested, strict=True)
    ]
    if not any(named):
        return manifest
    result = manifest.assign(withheld=pd.Series(named, index=manifest.index, dtype=object))
    _check_classes(result, keys, label)
    return result


def sizes(manifest: pd.DataFrame) -> dict[int, Size]:
    """How many rows each fold tests, trains or validates on, and withholds; those of `valid` do not train."""
    tested = Counter(own_folds(manifest))
    withheld = Counter(fold for folds in withheld_from(manifest) for fold in folds)
    if "split" in manifest:
        sides = zip(manifest["split"], withheld_from(manifest), strict=True)
        return {0: Size(tested[0], sum(side == "train" and not out for side, out in sides), withheld[0])}
    return {
        fold: Size(tested[fold], len(manifest) - tested[fold] - withheld[fold], withheld[fold])
        for fold in sorted(fold for fold in tested if fold is not None)
    }


def leaking_rows(manifest: pd.DataFrame, label: str) -> dict[str, int]:
    """How many test rows share their speaker, or their text, with rows that their fold trains on.

    By column, without those of which no row does, and those that are the label under another name, such as
    the texts of a corpus of words.
    """
    tested = np.array([fold is not None for fold in own_folds(manifest)], dtype=bool)
    counts = {}
    for column in REPORTED:
        if column in manifest:
            keys = keys_of(manifest, column)
            labels = manifest[label].tolist()
            pairs = set(zip(labels, keys, strict=True))
            if not len(pairs) == len(set(labels)) == len(set(keys)):
                counts[column] = int((shares(manifest, keys) & tested).sum())
    return {column: count for column, count in counts.items() if count}


def leak_warnings(leaks: Mapping[str, int], test_rows: int, split: SplitBase) -> list[str]:
    """What `prepare` says of `leaking_rows`, with the remedies; not of leaks that the config accepts."""
    accepted = {split.group} if split.group is not None else {"speaker"}
    warnings = []
    for column in (column for column in leaks if column not in accepted):
        listed = [*(split.disjoint or filter(None, [split.group])), column]
        remedies = [f"`split.group: {column}` splits by it"] if not isinstance(split, Predefined) else []
        if len(listed) > 1 or not remedies:
            one = f"a {column}" if len(listed) == 1 else "any of them"
            remedies.append(
                f"`split.disjoint: [{', '.join(listed)}]` leaves out training rows that share {one}"
            )
        warnings.append(
            f"{column}: {leaks[column]} of {test_rows} test rows ({100 * leaks[column] / test_rows:.1f} %) "
            f"have a {column} that rows to train on have, too, so scores may be too good for new {column}s; "
            + ", ".join(remedies)
        )
    return warnings


def _check_classes(manifest: pd.DataFrame, keys: Mapping[str, Sequence[str]], label: str) -> None:
    """Raise ValueError if all that `withheld` leaves of a class in a fold's training rows is nothing."""
    classes, tested = manifest[label].tolist(), own_folds(manifest)
    train: Sequence[int] = range(len(manifest))
    if "split" in manifest:
        train = [row for row, side in enumerate(manifest["split"]) if side == "train"]
    withheld = withheld_from(manifest)
    left_out = Counter((fold, classes[row]) for row in train for fold in withheld[row])
    own = Counter((tested[row], classes[row]) for row in train)
    everywhere = Counter(classes[row] for row in train)
    lost = [pair for pair in sorted(left_out) if left_out[pair] + own[pair] == everywhere[pair[1]]]
    if not lost:
        return
    fold, name = lost[0]
    left = [row for row in train if fold in withheld[row] and classes[row] == name]
    test = [row for row, number in enumerate(tested) if number == fold]
    each = " or ".join(
        column for column, of in keys.items() if {of[row] for row in left} & {of[row] for row in test}
    )
    more = f", the first of {len(lost)} such pairs of a fold and a class" if len(lost) > 1 else ""
    raise ValueError(
        f"split.disjoint [{', '.join(keys)}]: fold {fold} has no training row of {label} {name!r} left"
        f"{more}: each of the {len(left)} in other parts shares its {each} with a test row. Leave {each} out "
        "of split.disjoint, use more folds, or leave the class out with `classes`"
    )
