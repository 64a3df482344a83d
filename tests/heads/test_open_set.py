"""The contract of every score: a small network trained on known blobs, asked about unknown ones."""

from functools import cache

import pytest
import torch
from safetensors.torch import load, save
from torch import Tensor, nn

from stillwave.heads.base import Outputs
from stillwave.heads.open_set import SCORES, load_scorer
from stillwave.heads.scores import Score

KNOWN, DIM = 3, 6


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def blobs(classes: list[int], per_class: int, seed: int) -> tuple[Tensor, Tensor]:
    """Points around the corners of a cube; corners below KNOWN are trained on."""
    labels = torch.tensor(classes).repeat_interleave(per_class)
    centres = torch.tensor([[4.0, 0, 0], [0, 4, 0], [0, 0, 4], [4, 4, 4]])
    return centres[labels] + torch.randn(len(labels), 3, generator=seeded(seed)), labels


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(3, 16), nn.ReLU(), nn.Linear(16, DIM), nn.ReLU())
        self.output = nn.Linear(DIM, KNOWN)
        for index, parameter in enumerate(self.parameters()):
            nn.init.normal_(parameter, std=0.4, generator=seeded(index))

    @torch.no_grad()
    def outputs(self, points: Tensor) -> Outputs:
        features = self.body(points)
        return Outputs(self.output(features), features, features.mean(1).sigmoid())


@cache
def trained() -> tuple[Network, Outputs, Tensor, Outputs]:
    """A network, its outputs on training rows and their labels, on held-out rows of all corners."""
    network = Network()
    points, labels = blobs([0, 1, 2], 60, 0)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    for _ in range(150):
        optimizer.zero_grad()
        nn.functional.cross_entropy(network.output(network.body(points)), labels).backward()
        optimizer.step()
    return network, network.outputs(points), labels, network.outputs(blobs([0, 1, 2, 3], 30, 1)[0])


def fitted(name: str) -> Score:
    network, train, labels, _ = trained()
    return SCORES[name]().fit(train, labels, network.output)


def item(outputs: Outputs, where: slice | Tensor) -> Outputs:
    return Outputs(*(None if field is None else field[where] for field in outputs))


@pytest.mark.parametrize("name", SCORES)
def test_contract(name):
    outputs = trained()[3]
    score = fitted(name)
    together = score(outputs)
    assert together.shape == (120,)
    assert together.dtype == torch.float64
    assert together.isfinite().all()
    assert not together.requires_grad
    assert not list(score.parameters())
    shuffled = torch.randperm(120, generator=seeded(2))
    torch.testing.assert_close(score(item(outputs, shuffled)), together[shuffled], rtol=1e-10, atol=1e-12)
    for i in range(0, 120, 11):
        alone = score(item(outputs, slice(i, i + 1)))
        torch.testing.assert_close(alone[0], together[i], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", SCORES)
def test_fitted_state_travels_through_safetensors_to_the_bit(name):
    outputs, score = trained()[3], fitted(name)
    loaded = load_scorer(name, load(save(score.state_dict())))
    assert torch.equal(loaded(outputs), score(outputs))
    assert type(loaded) is type(score)
    again = load_scorer(name, loaded.state_dict())  # and what was loaded can be stored
    assert torch.equal(again(outputs), score(outputs))


@pytest.mark.parametrize("name", [name for name in SCORES if name != "learned_uncertainty"])
def test_unknown_items_score_higher(name):
    scores = fitted(name)(trained()[3])
    known, unknown = scores[:90], scores[90:]
    auroc = (known[:, None] < unknown).double().mean()
    assert auroc > 0.65  # the wrong sign gives less than 0.35


@pytest.mark.parametrize("name", ["openmax", "knn", "vim", "cac"])
def test_scores_that_learn_refuse_to_work_before(name):
    with pytest.raises(ValueError, match="not fitted"):
        SCORES[name]()(trained()[3])


def test_fitting_twice_is_fitting_once():
    network, train, labels, outputs = trained()
    for name in SCORES:
        score = fitted(name)
        once = score(outputs)
        score.fit(item(train, slice(0, 100)), labels[:100], network.output)
        score.fit(train, labels, network.output)
        assert torch.equal(score(outputs), once), name


def test_errors_of_load_scorer():
    with pytest.raises(ValueError, match=r"score is 'mahalanobis'; choose one of msp, mls, energy, openmax"):
        load_scorer("mahalanobis", {})
    with pytest.raises(ValueError, match=r"'knn' has tensors \['bank', 'k'\], got \['bank'\]"):
        load_scorer("knn", {"bank": torch.zeros(1, 2)})
    with pytest.raises(ValueError, match=r"'msp' has tensors \[\], got \['means'\]"):
        load_scorer("msp", {"means": torch.zeros(1)})
