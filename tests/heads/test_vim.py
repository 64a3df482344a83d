"""Virtual-logit matching against NumPy, and where its subspaces are small."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from stillwave.heads.base import Outputs
from stillwave.heads.open_set import load_scorer
from stillwave.heads.vim import VirtualLogit


def make_layer(dim: int, classes: int = 3, bias: bool = True) -> nn.Linear:
    layer = nn.Linear(dim, classes, bias=bias).double()
    generator = torch.Generator().manual_seed(4)
    for parameter in layer.parameters():
        nn.init.normal_(parameter, generator=generator)
    return layer


def make_outputs(layer: nn.Linear, rows: int, seed: int) -> Outputs:
    """Features that vary most in their first dimensions."""
    generator = torch.Generator().manual_seed(seed)
    dim = layer.in_features
    features = torch.randn(rows, dim, generator=generator, dtype=torch.float64) / torch.arange(1, dim + 1)
    features[:, 0] += 2
    return Outputs(layer(features).detach(), features)


def fitted(layer: nn.Linear, rows: int = 60) -> VirtualLogit:
    train = make_outputs(layer, rows, 0)
    return VirtualLogit().fit(train, torch.zeros(rows), layer)


def naive(layer: nn.Linear, train: Outputs, items: Outputs, principal: int) -> list[float]:
    """By projection onto the leading right singular vectors, one item at a time."""
    weight = layer.weight.detach().numpy()
    bias = np.zeros(len(weight)) if layer.bias is None else layer.bias.detach().numpy()
    origin = -np.linalg.lstsq(weight, bias, rcond=None)[0]

    def norm(row: np.ndarray, lead: np.ndarray) -> float:
        centred = row - origin
        return float(np.linalg.norm(centred - sum((centred @ v) * v for v in lead)))

    lead = np.linalg.svd(train.features.numpy() - origin)[2][:principal]
    norms = [norm(row, lead) for row in train.features.numpy()]
    scale = float(train.logits.amax(1).sum()) / sum(norms)
    return [
        scale * norm(row, lead) - float(np.log(np.exp(logits).sum()))
        for row, logits in zip(items.features.numpy(), items.logits.numpy(), strict=True)
    ]


@pytest.mark.parametrize(
    ("dim", "rows", "bias", "principal"),
    [
        (8, 60, True, 4),
        (8, 60, False, 4),
        (7, 60, True, 3),
        (12, 5, True, 2),
        (1, 9, True, 0),
        (6, 1, True, 0),
    ],
)
def test_equals_a_naive_loop(dim, rows, bias, principal):
    layer = make_layer(dim, bias=bias)
    train, items = make_outputs(layer, rows, 0), make_outputs(layer, 20, 1)
    score = fitted(layer, rows)
    assert score.principal.shape == (dim, principal)
    expected = naive(layer, train, items, principal)
    assert score.scale > 0
    assert score(items).tolist() == pytest.approx(expected, rel=1e-8)


def test_virtual_and_largest_logit_are_equal_on_average():
    layer = make_layer(8)
    train = make_outputs(layer, 60, 0)
    virtual = fitted(layer)(train) + torch.logsumexp(train.logits, 1)
    torch.testing.assert_close(virtual.mean(), train.logits.amax(1).mean())


def test_leaving_the_principal_directions_is_outlying_and_staying_in_them_is_not():
    layer = make_layer(8)
    score = fitted(layer)
    items = make_outputs(layer, 20, 1)
    basis = torch.linalg.qr(torch.cat([score.principal, torch.eye(8)], 1).double()).Q
    away = items.features + 5 * basis[:, 4]
    assert (score(items._replace(features=away)) > score(items) + 1).all()
    along = items.features + 5 * basis[:, 0]
    torch.testing.assert_close(score(items._replace(features=along)), score(items))


@pytest.mark.parametrize("case", ["no residual", "no positive logit"])
def test_without_a_scale_it_is_the_energy(case):
    layer = make_layer(8)
    train = make_outputs(layer, 60, 0)
    if case == "no residual":
        origin = -torch.linalg.pinv(layer.weight) @ layer.bias
        along = torch.linspace(1, 3, 60, dtype=torch.float64)[:, None]
        train = train._replace(features=(origin + along).detach())  # all on one line
    else:
        train = train._replace(logits=train.logits - 100)
    score = VirtualLogit().fit(train, torch.zeros(60), layer)
    assert score.scale == 0
    items = make_outputs(layer, 20, 1)
    torch.testing.assert_close(score(items), -torch.logsumexp(items.logits, 1))


def test_an_item_does_not_depend_on_its_batch_and_state_travels():
    layer = make_layer(8)
    score, items = fitted(layer), make_outputs(layer, 40, 2)
    together = score(items)
    for i in range(0, 40, 9):
        alone = Outputs(items.logits[i : i + 1], items.features[i : i + 1])
        torch.testing.assert_close(score(alone)[0], together[i], rtol=1e-12, atol=1e-12)
    assert torch.equal(load_scorer("vim", score.state_dict())(items), together)


def test_an_older_file_has_the_residual_directions_instead():
    layer = make_layer(8)
    score, items = fitted(layer), make_outputs(layer, 20, 1)
    residual = torch.linalg.svd(score.principal, full_matrices=True).U[:, 4:]
    old = {"origin": score.origin, "residual": residual, "scale": score.scale}
    torch.testing.assert_close(load_scorer("vim", old)(items), score(items))


def test_errors():
    layer = make_layer(4)
    empty = Outputs(torch.zeros(0, 3), torch.zeros(0, 4))
    with pytest.raises(ValueError, match="no training rows"):
        VirtualLogit().fit(empty, torch.zeros(0), layer)
    with pytest.raises(ValueError, match="'vim' is not fitted"):
        VirtualLogit()(Outputs(torch.zeros(1, 3), torch.zeros(1, 4)))


def test_plain_features_of_a_network_in_float32():
    def features(count: int, seed: int) -> Tensor:
        return torch.randn(count, 8, generator=torch.Generator().manual_seed(seed)).relu()

    layer = make_layer(8).float()
    train = features(50, 0)
    score = VirtualLogit().fit(Outputs(layer(train).detach(), train), torch.zeros(50), layer)
    scores = score(Outputs(layer(train).detach(), train))
    assert scores.dtype == torch.float64
    assert scores.isfinite().all()
