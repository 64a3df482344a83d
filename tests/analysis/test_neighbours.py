"""Neighbours and their precision against loops over all pairs."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from stillwave.analysis import neighbours
from stillwave.analysis.neighbours import Metric, chance, nearest, nearest_and_apart, precision_at

METRICS: tuple[Metric, ...] = ("cosine", "euclidean")


def distance(a: NDArray[Any], b: NDArray[Any], metric: Metric) -> float:
    a, b = a.astype(float), b.astype(float)
    if metric == "euclidean":
        return float(np.sqrt(((a - b) ** 2).sum()))
    lengths = np.sqrt((a**2).sum()) * np.sqrt((b**2).sum())
    return 1 - float(a @ b) / lengths if lengths else 1.0


def naive(x: NDArray[Any], k: int, metric: Metric, apart: Any = None) -> list[list[int]]:
    found = []
    for i in range(len(x)):
        others = [j for j in range(len(x)) if j != i]
        if apart is not None:
            others = [j for j in others if None not in (apart[i], apart[j]) and apart[j] != apart[i]]
        others.sort(key=lambda j: (round(distance(x[i], x[j], metric), 10), j))
        found.append((others + [-1] * k)[:k])
    return found


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_equals_a_loop_over_all_pairs(metric: Metric, dtype: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "BLOCK_BYTES", 8 * 41 * 7)  # seven rows at a time, the last block shorter
    x = np.random.default_rng(0).standard_normal((41, 6)).astype(dtype)
    found = nearest(x, 9, metric)
    assert found.dtype == np.int32
    assert found.tolist() == naive(x, 9, metric)


@pytest.mark.parametrize("metric", METRICS)
@given(
    points=st.lists(st.tuples(st.integers(-2, 2), st.integers(-2, 2)), min_size=3, max_size=24), k=st.data()
)
@settings(deadline=None, max_examples=60)
def test_ties_go_by_row_number_and_no_row_is_its_own_neighbour(
    metric: Metric, points: list[tuple[int, int]], k: Any
) -> None:
    """A small grid has many equal rows, equal distances, and rows of zeros."""
    x = np.array(points, dtype=np.float64)
    count = k.draw(st.integers(1, len(x) - 1))
    if metric == "euclidean":
        assert nearest(x, count, metric).tolist() == naive(x, count, metric)
        return
    found = nearest(x, count, metric)
    for i, row in enumerate(found.tolist()):
        # Of a direction on a diagonal, lengths round differently: distances are equal to rounding only.
        others = [j for j in range(len(x)) if j != i]
        expected = sorted(distance(x[i], x[j], metric) for j in others)[:count]
        np.testing.assert_allclose([distance(x[i], x[j], metric) for j in row], expected, atol=1e-9)
        assert i not in row
        assert len(set(row)) == count


@pytest.mark.parametrize("metric", METRICS)
def test_equal_rows_are_neighbours_in_their_order(metric: Metric, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 768 dimensions, where a product of matrices sums equal columns in different ways."""
    monkeypatch.setattr(neighbours, "BLOCK_BYTES", 8 * 39 * 2)
    kinds = np.random.default_rng(0).standard_normal((13, 768)).astype(np.float32)
    x = np.tile(kinds, (3, 1))  # row i is also i + 13 and i + 26
    found = nearest(x, 8, metric)
    for i, row in enumerate(found.tolist()):
        assert row[:2] == [j for j in (i % 13, i % 13 + 13, i % 13 + 26) if j != i]
        for first, second, third in (row[2:5], row[5:8]):
            assert (second, third) == (first + 13, first + 26)


@pytest.mark.parametrize("metric", METRICS)
def test_all_rows_equal(metric: Metric) -> None:
    found = nearest(np.full((6, 3), 0.1, dtype=np.float32), 3, metric)
    assert found.tolist() == [[1, 2, 3], [0, 2, 3], [0, 1, 3], [0, 1, 2], [0, 1, 2], [0, 1, 2]]


def test_a_row_of_zeros_has_no_direction_and_gives_no_nan() -> None:
    x = np.array([[1.0, 0], [0, 0], [-1, 0], [0, -0.0]])
    found = nearest(x, 3, "cosine")
    assert found.tolist() == [[1, 3, 2], [0, 2, 3], [1, 3, 0], [0, 1, 2]]


def test_a_far_mean_does_not_blur_the_distances() -> None:
    x = 1e4 + np.random.default_rng(0).standard_normal((30, 8))
    assert nearest(x, 5, "euclidean").tolist() == naive(x, 5, "euclidean")


@pytest.mark.parametrize("metric", METRICS)
def test_apart_leaves_out_the_own_group(metric: Metric) -> None:
    x = np.random.default_rng(0).standard_normal((24, 4))
    speakers = np.array(["a", "b", None, "a", "a", "c"] * 4, dtype=object)
    assert nearest(x, 6, metric, apart=speakers).tolist() == naive(x, 6, metric, speakers)
    both = nearest_and_apart(x, 6, metric, speakers)
    assert [found.tolist() for found in both] == [naive(x, 6, metric), naive(x, 6, metric, speakers)]
    few = np.array(["a"] * 22 + ["b"] * 2, dtype=object)
    found = nearest(x, 6, metric, apart=few)
    assert found[:22, 2:].max() == -1
    assert found.tolist() == naive(x, 6, metric, few)


def naive_precision(found: NDArray[Any], groups: NDArray[Any], k: int) -> float:
    shares = []
    for i, row in enumerate(found.tolist()):
        known = [groups[j] for j in row[:k] if j >= 0 and groups[j] is not None]
        if groups[i] is not None and known:
            shares.append(sum(name == groups[i] for name in known) / len(known))
    return sum(shares) / len(shares)


@pytest.mark.parametrize("apart", [False, True])
def test_precision_equals_a_loop(apart: bool) -> None:
    rng = np.random.default_rng(0)
    groups = rng.choice(np.array(["x", "y", "z", None], dtype=object), 50)
    speakers = rng.choice(np.array(["s", "t", None], dtype=object), 50, p=[0.85, 0.1, 0.05])
    found = nearest(rng.standard_normal((50, 3)), 30, "cosine", apart=speakers if apart else None)
    assert (found == -1).any() == apart
    precision = precision_at(found, groups, (1, 4, 30))
    assert precision == {str(k): pytest.approx(naive_precision(found, groups, k)) for k in (1, 4, 30)}


def test_precision_by_hand() -> None:
    found = np.array([[1, 2], [0, 2], [3, 0], [2, 1]])
    groups = np.array(["a", "a", "b", None], dtype=object)
    # Rows 0 and 1: their nearest is of their group, the second is not. Row 2: its nearest does not count.
    assert precision_at(found, groups, [1, 2]) == {"1": 1.0, "2": pytest.approx((0.5 + 0.5 + 0) / 3)}
    assert precision_at(found, np.full(4, None), [2]) == {"2": None}
    with pytest.raises(
        ValueError, match=r"precision_at is \[1, 3\]; each must be from 1 to neighbours.k, which is 2"
    ):
        precision_at(found, groups, [1, 3])


@pytest.mark.parametrize("apart", [False, True])
def test_chance_is_the_precision_of_all_others(apart: bool) -> None:
    """Every other row, in whatever order, has the same share on average as rows drawn at random."""
    rng = np.random.default_rng(0)
    groups = rng.choice(np.array(["x", "y", "z", None], dtype=object), 40)
    speakers = rng.choice(np.array(["s", "t", None], dtype=object), 40)
    others = speakers if apart else None
    found = nearest(rng.standard_normal((40, 2)), 39, "euclidean", apart=others)
    expected = naive_precision(found, groups, 39)
    assert chance(groups, apart=others) == pytest.approx(expected)


def test_chance_by_the_formula() -> None:
    groups = np.array(["a"] * 3 + ["b"] * 5 + [None], dtype=object)
    assert chance(groups) == pytest.approx((3 * 2 + 5 * 4) / (8 * 7))
    assert chance(np.full(3, None)) is None
    assert chance(np.array(["a", "b"]), apart=np.array(["s", "s"])) is None


def test_what_cannot_be_searched_is_an_error() -> None:
    x = np.zeros((4, 2))
    for k in (0, 4):
        with pytest.raises(ValueError, match=f"k is {k}; 4 rows have 1 to 3"):
            nearest(x, k, "cosine")
    with pytest.raises(ValueError, match="metric is 'manhattan'; choose cosine or euclidean"):
        nearest(x, 1, "manhattan")  # type: ignore[arg-type]
    x[2, 1] = np.inf
    with pytest.raises(ValueError, match="1 rows have values that are not finite, the first is row 2"):
        nearest(x, 1, "cosine")
