import pytest
from torch import nn

from stillwave.heads.fusion import FusionClassifier
from stillwave.pipeline.config.base import load_config
from stillwave.pipeline.config.recipe import Recipe
from stillwave.pipeline.config.train import Group, Train
from stillwave.pipeline.train.optimizer import build_optimizer, set_rate


class Toy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(3, 4)
        self.deep = nn.ModuleDict({"a": nn.Linear(4, 4), "ab": nn.LayerNorm(4)})


def groups_of(head: nn.Module, config: Train) -> dict[str, tuple[float, float]]:
    """(rate, weight decay) by the parameter's name."""
    optimizer = build_optimizer(head, config)
    place = {
        id(parameter): (group["rate"], group["weight_decay"])
        for group in optimizer.param_groups
        for parameter in group["params"]
    }
    return {name: place[id(parameter)] for name, parameter in head.named_parameters()}


def test_without_groups_matrices_decay_and_vectors_do_not() -> None:
    found = groups_of(Toy(), Train(weight_decay=0.05))
    assert {name: pair for name, pair in found.items() if name.endswith("weight")} == {
        "first.weight": (1.0, 0.05),
        "deep.a.weight": (1.0, 0.05),
        "deep.ab.weight": (1.0, 0.0),
    }
    assert all(pair == (1.0, 0.0) for name, pair in found.items() if name.endswith("bias"))


def test_the_longest_name_that_fits_counts_and_names_are_whole() -> None:
    groups = {"deep": Group(rate=2.0, weight_decay=0.3), "deep.a": Group(rate=3.0)}
    found = groups_of(Toy(), Train(weight_decay=0.05, groups=groups))
    assert found["first.weight"] == (1.0, 0.05)
    assert found["deep.a.weight"] == (3.0, 0.05)  # its own decay is not given: the recipe's
    assert found["deep.a.bias"] == (3.0, 0.0)
    assert found["deep.ab.weight"] == (2.0, 0.0)  # `deep.a` is no prefix of the name `deep.ab`


def test_a_group_that_fits_nothing_is_named_and_encoders_are_for_live_backbones() -> None:
    with pytest.raises(ValueError, match=r"train.groups \['dep'\] match no parameter.* first, deep"):
        build_optimizer(Toy(), Train(groups={"dep": Group()}))
    build_optimizer(Toy(), Train(groups={"encoders": Group(rate=0.1)}))


def test_rates_are_factors_on_the_schedule() -> None:
    optimizer = build_optimizer(Toy(), Train(groups={"deep": Group(rate=1.5)}))
    set_rate(optimizer, 0.02)
    assert {group["rate"]: group["lr"] for group in optimizer.param_groups} == {1.0: 0.02, 1.5: 0.03}


def test_the_flagship_recipe_has_the_published_groups() -> None:
    """Rate factors and decays of the system that the recipe describes, part by part."""
    recipe = load_config("configs/recipes/fusion_openmax.yaml", Recipe)
    head = FusionClassifier({"audio": 8, "text": 8}, 4, shared_dim=8, num_heads=2, depth=2, base_dim=16)
    found = groups_of(head, recipe.train)
    matrices = {name: found[name] for name, p in head.named_parameters() if p.ndim > 1}
    expected = {
        "cross_attention": (1.0, 0.05),
        "pooling": (1.0, 0.05),
        "fusion_layer": (1.0, 0.05),
        "classifier.deep_classifier": (1.5, 0.06),
        "classifier.anchor_clustering": (2.0, 0.04),
        "classifier.uncertainty_head": (1.0, 0.05),
        "classifier.prototypes": (1.0, 0.05),
    }
    assert {part for part in expected if any(name.startswith(part) for name in matrices)} == expected.keys()
    for name, pair in matrices.items():
        assert pair == next(value for part, value in expected.items() if name.startswith(part)), name
    encoders = recipe.train.groups["encoders"]
    assert (encoders.rate, encoders.weight_decay) == (0.1, 0.025)
