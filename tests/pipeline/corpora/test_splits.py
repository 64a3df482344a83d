"""Splits: every row exactly once, no group on both sides, balance, seeds, and independence of row order."""

from collections import Counter
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stillwave.pipeline.corpora.splits import (
    check_leak,
    holdout,
    kfold,
    leave_one_group_out,
    predefined,
    predefined_folds,
    side_of,
)

rows = st.lists(
    st.tuples(st.sampled_from("abcdefgh"), st.sampled_from("xyz")), min_size=8, max_size=80
).filter(lambda items: len({group for group, _ in items}) >= 4)


@given(rows, st.integers(2, 4), st.integers(0, 5), st.booleans())
def test_kfold_tests_every_row_once_and_keeps_groups_whole(
    items: list[tuple[str, str]], folds: int, seed: int, stratify: bool
) -> None:
    groups, labels = zip(*items, strict=True)
    result = kfold(groups, folds, seed, labels if stratify else None)
    assert result.shape == (len(items),)
    assert set(result.tolist()) == set(range(folds))
    check_leak(result.tolist(), groups, "groups", "")


@given(rows, st.integers(0, 5), st.sampled_from([0.0, 0.1, 0.25]), st.sampled_from([0.1, 0.25]))
def test_holdout_puts_every_row_on_one_side_and_keeps_groups_whole(
    items: list[tuple[str, str]], seed: int, valid: float, test: float
) -> None:
    groups, labels = zip(*items, strict=True)
    sides = holdout(groups, valid, test, seed, labels)
    assert set(sides.tolist()) == ({"train", "valid", "test"} if valid else {"train", "test"})
    check_leak(sides.tolist(), groups, "groups", "")


@given(rows)
def test_leave_one_group_out_has_one_fold_per_group_in_order(items: list[tuple[str, str]]) -> None:
    groups = [group for group, _ in items]
    numbers = {group: number for number, group in enumerate(sorted(set(groups)))}
    assert leave_one_group_out(groups).tolist() == [numbers[group] for group in groups]


@given(rows, st.randoms(use_true_random=False))
def test_the_order_of_rows_does_not_matter(items: list[tuple[str, str]], random: Random) -> None:
    shuffled = list(items)
    random.shuffle(shuffled)
    by_group = []
    for order in (items, shuffled):
        groups, labels = zip(*order, strict=True)
        by_group.append(dict(zip(groups, kfold(groups, 3, 0, labels).tolist(), strict=True)))
    assert by_group[0] == by_group[1]


def test_kfold_is_seeded_and_repeatable() -> None:
    groups = [f"s{index % 12:02d}" for index in range(240)]
    first = kfold(groups, 4, 0)
    np.testing.assert_array_equal(first, kfold(groups, 4, 0))
    assert any((first != kfold(groups, 4, seed)).any() for seed in (1, 2, 3))


def test_another_seed_is_another_split_even_when_no_two_groups_are_of_a_size() -> None:
    groups = [f"s{index}" for index in range(10) for _ in range(20 + index)]
    partitions = set()
    for seed in range(8):
        folds = dict(zip(groups, kfold(groups, 5, seed).tolist(), strict=True))
        partitions.add(frozenset(frozenset(g for g in folds if folds[g] == k) for k in range(5)))
    assert len(partitions) > 4


def test_kfold_row_by_row_is_stratified_to_a_row() -> None:
    labels = ["rare"] * 10 + ["common"] * 90
    folds = kfold([f"r{index:03d}" for index in range(100)], 5, 0, labels)
    counts = Counter(zip(folds.tolist(), labels, strict=True))
    assert all(counts[fold, "rare"] == 2 and counts[fold, "common"] == 18 for fold in range(5))


def test_grouped_kfold_balances_labels_as_far_as_groups_allow() -> None:
    # Half of the speakers only ever say x, half only y: each fold should get some of both.
    groups = [f"s{index // 10:02d}" for index in range(200)]
    labels = ["x" if index < 100 else "y" for index in range(200)]
    folds = kfold(groups, 5, 3, labels)
    counts = Counter(zip(folds.tolist(), labels, strict=True))
    assert all(counts[fold, label] == 20 for fold in range(5) for label in "xy")


def test_holdout_meets_its_fractions() -> None:
    sides = Counter(holdout([f"r{index}" for index in range(1000)], 0.1, 0.2, 0, ["a", "b"] * 500).tolist())
    assert sides == {"train": 700, "valid": 100, "test": 200}


def test_small_shares_still_get_a_group() -> None:
    sides = holdout(["a"] * 50 + ["b"] * 40 + ["c"] * 60, 0.01, 0.01, 0)
    assert set(sides.tolist()) == {"train", "valid", "test"}


def test_too_few_groups_are_an_error() -> None:
    with pytest.raises(ValueError, match=r"kfold with 5 folds takes at least 5 groups; there are 2: a, b"):
        kfold(["a", "b", "a"], 5, 0)
    with pytest.raises(ValueError, match=r"leave_one_group_out: 1 group \(a\); it needs at least 2"):
        leave_one_group_out(["a", "a"])


def test_predefined_translates_and_refuses_what_it_cannot_read() -> None:
    assert predefined(["train", "dev", "test"], {"dev": "valid"}).tolist() == ["train", "valid", "test"]
    with pytest.raises(ValueError, match=r"cannot read 'None', 'dev'; say in split\.names"):
        predefined(["train", "dev", None], {})


def test_predefined_folds_are_numbers() -> None:
    assert predefined_folds(["0", "2", "1"]).tolist() == [0, 2, 1]
    with pytest.raises(ValueError, match=r"'-1', 'x': not a fold number"):
        predefined_folds(["0", "x", "-1"])


def test_words_for_sides_are_whole_words() -> None:
    words = {
        "train": ["train", "Training", "train-clean-100", "train_2", "TRAIN1"],
        "valid": ["val", "valid", "validation", "dev", "dev.clean", "Development"],
        "test": ["test", "Testing", "test2", "eval", "evaluation"],
        "": ["trains", "trainer", "tests", "testimony", "devices", "value", "evaluated", "", "pretrain"],
    }
    assert {side: [word for word in of if side_of(word) != side] for side, of in words.items()} == {
        side: [] for side in words
    }


def test_a_leak_is_named_with_its_sides_and_remedy() -> None:
    with pytest.raises(
        ValueError, match=r"leaks 1 speaker\(s\): ann \(test: 1 rows, train: 2 rows\)\. Fix it"
    ):
        check_leak(["train", "train", "test", "test"], ["ann", "ann", "ann", "bob"], "speaker(s)", "Fix it")


def test_rows_without_a_key_do_not_leak() -> None:
    check_leak(["train", "test"], [None, None], "speaker(s)", "")
