"""Splits: predefined, holdout, k-fold and leave-one-group-out splits, and the leak check.

Pure functions on sequences of equal length, one entry per row. `groups` must stay on one side
(speakers; or row ids for a split row by row), `labels` are kept balanced (or None). The result does
not depend on the order of the rows: groups are sorted before a seeded generator shuffles them.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Hashable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

_SIDE = re.compile(
    r"(?:(?P<train>train(?:ing)?)|(?P<valid>val|valid|validation|dev|devel|development)"
    r"|(?P<test>test(?:ing)?|eval|evaluation))(?![^\W\d_])"  # `test_2`, but not `tests`
)
Folds = npt.NDArray[np.int32]
Sides = npt.NDArray[np.object_]


def leave_one_group_out(groups: Sequence[str]) -> Folds:
    """The fold of each row, (rows,): one fold per group, numbered in sorted order of the groups."""
    names, folds = np.unique(np.asarray(groups, dtype=object).astype(str), return_inverse=True)
    if len(names) < 2:
        raise ValueError(f"leave_one_group_out: {len(names)} group ({', '.join(names)}); it needs at least 2")
    return folds.astype(np.int32)


def kfold(groups: Sequence[str], folds: int, seed: int, labels: Sequence[str] | None = None) -> Folds:
    """The fold of each row, (rows,), for `folds` folds of similar size and label shares."""
    return _deal(groups, labels, np.full(folds, 1 / folds), seed, f"kfold with {folds} folds")


def holdout(
    groups: Sequence[str], valid: float, test: float, seed: int, labels: Sequence[str] | None = None
) -> Sides:
    """The side of each row, (rows,): "train", "valid" or "test".

    `valid` and `test` are shares of the rows; whole groups approximate them, and no side with
    a share above 0 is empty.
    """
    names = np.array(["train", "valid", "test"] if valid > 0 else ["train", "test"], dtype=object)
    shares = np.array([1 - valid - test, valid, test] if valid > 0 else [1 - test, test])
    sides: Sides = names[_deal(groups, labels, shares, seed, f"holdout with {len(shares)} sides")]
    return sides


def predefined(values: Sequence[str | None], names: Mapping[str, str]) -> Sides:
    """The side of each row from the corpus's own `values`, mapped by `names`. Raises ValueError."""
    sides = np.array([None if value is None else names.get(value, value) for value in values], dtype=object)
    known = np.isin(sides.astype(str), ["train", "valid", "test"])
    if unknown := sorted({str(value) for value, good in zip(values, known, strict=True) if not good}):
        raise ValueError(
            f"predefined split: cannot read {', '.join(map(repr, unknown[:5]))}; "
            "say in split.names whether that is train, valid or test"
        )
    return sides


def predefined_folds(values: Sequence[str | None]) -> Folds:
    """The fold of each row from the corpus's own fold numbers, 0 or above. Raises ValueError."""
    if unknown := sorted({str(value) for value in values if value is None or not str(value).isdecimal()}):
        raise ValueError(
            f"predefined folds: {', '.join(map(repr, unknown[:5]))}: not a fold number, counted from 0"
        )
    return np.array([int(str(value)) for value in values], dtype=np.int32)


def side_of(value: str) -> str:
    """train, valid or test for a corpus's word for it, and what may follow it; empty for other words."""
    found = _SIDE.match(value.lower())
    return (found.lastgroup or "") if found else ""


def check_leak(sides: Sequence[Hashable], keys: Sequence[str | None], what: str, remedy: str) -> None:
    """Raise ValueError if one value of `keys` (a speaker, a file's hash) is on more than one side.

    Rows whose key is None are not compared. The message names up to five keys and where each of them is.
    """
    seen: dict[str, Counter[Hashable]] = defaultdict(Counter)
    for side, key in zip(sides, keys, strict=True):
        if key is not None:
            seen[key][side] += 1
    leaks = {key: counts for key, counts in sorted(seen.items()) if len(counts) > 1}
    if not leaks:
        return
    named = "; ".join(
        f"{key} (" + ", ".join(f"{side}: {n} rows" for side, n in sorted(counts.items(), key=str)) + ")"
        for key, counts in list(leaks.items())[:5]
    )
    more = f"; and {len(leaks) - 5} more" if len(leaks) > 5 else ""
    raise ValueError(f"the split leaks {len(leaks)} {what}: {named}{more}. {remedy}")


def _deal(
    groups: Sequence[str],
    labels: Sequence[str] | None,
    shares: npt.NDArray[np.float64],
    seed: int,
    what: str,
) -> Folds:
    """Assign whole groups to sides one by one, each to the side that most lacks the group's labels.

    Counts are per label, relative to the label's frequency, so that sides end up similar in labels as well
    as in size, for any shares.
    """
    names, members = np.unique(np.asarray(groups, dtype=object).astype(str), return_inverse=True)
    if len(names) < len(shares):
        raise ValueError(
            f"{what} takes at least {len(shares)} groups; there {'is' if len(names) == 1 else 'are'} "
            f"{len(names)}: {', '.join(names)}"
        )
    balanced = labels if labels is not None else [""] * len(members)
    classes = np.unique(np.asarray(balanced, dtype=object).astype(str), return_inverse=True)[1]
    counts = np.zeros((len(names), int(classes.max()) + 1))  # (groups, labels)
    np.add.at(counts, (members, classes), 1)

    # Roughly largest first balances best; the random factor makes another seed give another split even if
    # all groups differ in size.
    weight = counts.sum(axis=1) * np.random.default_rng(seed).uniform(1, 2, size=len(names))
    order = np.argsort(-weight, kind="stable")
    wanted = shares[:, None] * counts.sum(axis=0)  # (sides, labels)
    scale = np.maximum(counts.sum(axis=0), 1)
    given = np.zeros_like(wanted)
    side_of = np.empty(len(names), dtype=np.int32)
    empty = set(range(len(shares)))
    for position, group in enumerate(order):
        # The last groups go to sides that have none yet; otherwise a small share could stay empty.
        open_sides = sorted(empty) if len(order) - position <= len(empty) else range(len(shares))
        room = [float(((wanted - given)[side] * counts[group] / scale**2).sum()) for side in open_sides]
        best = max(room)
        side = next(s for s, r in zip(open_sides, room, strict=True) if r >= best - 1e-12)
        given[side] += counts[group]
        side_of[group] = side
        empty.discard(side)
    return side_of[members]
