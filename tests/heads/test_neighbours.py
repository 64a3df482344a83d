"""The distance to the k-th neighbour against a sorted loop."""

import math

import pytest
import torch
from torch import Tensor, nn

from stillwave.heads import neighbours
from stillwave.heads.base import Outputs
from stillwave.heads.neighbours import Neighbours
from stillwave.heads.open_set import load_scorer


def as_outputs(features: Tensor) -> Outputs:
    return Outputs(features[:, :2], features)


def fitted(k: int, features: Tensor) -> Neighbours:
    return Neighbours(k).fit(as_outputs(features), torch.zeros(len(features)), nn.Linear(5, 2))


def make_features(count: int, seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(count, 5, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def naive(item: list[float], bank: list[list[float]], k: int) -> float:
    def unit(row: list[float]) -> list[float]:
        return [v / math.sqrt(sum(x * x for x in row)) for v in row]

    return sorted(math.dist(unit(item), unit(row)) for row in bank)[k - 1]


@pytest.mark.parametrize("k", [1, 3, 10])
def test_equals_a_naive_loop(k, monkeypatch):
    monkeypatch.setattr(neighbours, "CHUNK", 8)  # several chunks, the last one shorter
    bank, items = make_features(30, 0), 4 * make_features(21, 1)
    expected = [naive(item, bank.tolist(), k) for item in items.tolist()]
    assert fitted(k, bank)(as_outputs(items)).tolist() == pytest.approx(expected, rel=1e-12)


def test_by_hand():
    score = fitted(2, torch.tensor([[3.0, 0, 0, 0, 0], [0, 5.0, 0, 0, 0], [0, 0, 7.0, 0, 0]]))
    items = torch.tensor([[2.0, 0, 0, 0, 0], [-1.0, 0, 0, 0, 0], [1.0, 1.0, 0, 0, 0]])
    # Next to the bank's own (distance 0) come unit vectors at right angles; from -e1, e2 and e3 are nearest.
    expected = [math.sqrt(2), math.sqrt(2), math.sqrt(2 - math.sqrt(2))]
    assert score(as_outputs(items)).tolist() == pytest.approx(expected)


def test_with_fewer_rows_than_k_it_is_the_farthest():
    bank, items = make_features(4, 0), make_features(6, 1)
    torch.testing.assert_close(fitted(10, bank)(as_outputs(items)), fitted(4, bank)(as_outputs(items)))


def test_small_distances_keep_their_digits():
    bank = torch.tensor([[1.0, 0, 0, 0, 0]], dtype=torch.float64)
    item = torch.tensor([[1.0, 1e-10, 0, 0, 0]], dtype=torch.float64)
    assert fitted(1, bank)(as_outputs(item)).item() == pytest.approx(1e-10, rel=1e-6)
    assert fitted(1, bank)(as_outputs(torch.zeros(1, 5))).item() == 1  # no direction: the origin itself


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_an_item_does_not_depend_on_its_batch_and_state_travels(dtype):
    items = make_features(50, 1, dtype)
    score = fitted(7, make_features(40, 0, dtype))
    assert score.bank.dtype == dtype
    together = score(as_outputs(items))
    for i in range(0, 50, 9):
        torch.testing.assert_close(score(as_outputs(items[i : i + 1]))[0], together[i], rtol=1e-13, atol=0)
    loaded = load_scorer("knn", score.state_dict())
    assert loaded.k == 7
    assert torch.equal(loaded(as_outputs(items)), together)


def test_errors():
    with pytest.raises(ValueError, match="k is 0"):
        Neighbours(0)
    with pytest.raises(ValueError, match="no training rows"):
        fitted(1, torch.zeros(0, 5))
    with pytest.raises(ValueError, match="'knn' is not fitted"):
        Neighbours()(as_outputs(torch.zeros(1, 5)))


def test_of_many_rows_a_part_at_even_distances_is_kept(monkeypatch):
    features = make_features(100, 0)
    whole = fitted(3, features).bank
    assert len(whole) == 100
    monkeypatch.setattr(neighbours, "BANK_ROWS", 34)
    part = fitted(3, features).bank
    assert torch.equal(part, whole[::3])
