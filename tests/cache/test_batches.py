import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stillwave.cache.batches import length_bucketed, pad


@given(
    lengths=st.lists(st.integers(1, 50), max_size=60),
    max_rows=st.integers(1, 9),
    max_frames=st.none() | st.integers(1, 120),
    seed=st.none() | st.integers(0, 3),
)
def test_every_row_stands_in_one_batch_and_budgets_hold(
    lengths: list[int], max_rows: int, max_frames: int | None, seed: int | None
) -> None:
    generator = None if seed is None else np.random.default_rng(seed)
    sizes = np.array(lengths, dtype=np.int64)
    batches = length_bucketed(sizes, max_rows=max_rows, max_frames=max_frames, generator=generator)
    assert sorted(row for batch in batches for row in batch.tolist()) == list(range(len(lengths)))
    for batch in batches:
        assert 1 <= len(batch) <= max_rows
        if max_frames is not None and len(batch) > 1:
            assert len(batch) * sizes[batch].max() <= max_frames


def test_batches_are_seeded_and_differ_between_epochs() -> None:
    lengths = np.random.default_rng(0).integers(10, 90, 200)
    same = [length_bucketed(lengths, max_rows=16, generator=np.random.default_rng(1)) for _ in range(2)]
    assert all(np.array_equal(a, b) for a, b in zip(*same, strict=True))
    generator = np.random.default_rng(1)
    first, second = (length_bucketed(lengths, max_rows=16, generator=generator) for _ in range(2))
    assert not all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


def test_buckets_waste_less_than_random_batches() -> None:
    lengths = np.random.default_rng(0).integers(10, 400, 512)
    padded = sum(
        len(b) * lengths[b].max()
        for b in length_bucketed(lengths, max_rows=16, generator=np.random.default_rng(1))
    )
    assert padded < 1.2 * lengths.sum()


def test_padding_is_zero_and_lengths_are_kept() -> None:
    values, lengths = pad([np.ones((2, 3)), np.full((4, 3), 2.0)])
    assert lengths.tolist() == [2, 4]
    assert values.sum() == 6 + 24
    assert not values[0, 2:].any()


def test_budgets_below_one_are_refused() -> None:
    with pytest.raises(ValueError, match="max_rows and max_frames must be >= 1; got 0"):
        length_bucketed(np.array([1]), max_rows=0)
