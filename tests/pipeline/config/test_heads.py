"""Heads by kind or by class: their fields are the arguments of their constructors."""

import inspect
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from stillwave.heads.fusion import FusionClassifier
from stillwave.heads.pooled import PooledClassifier
from stillwave.pipeline.config.base import ConfigError, load_config, parse_config
from stillwave.pipeline.config.heads import HEADS
from stillwave.pipeline.config.recipe import Recipe
from stillwave.pipeline.runs.head import build_head

OWN = """
import torch
from torch import nn

from stillwave.heads.base import Head
from stillwave.heads.bounds import Dropout
from stillwave.heads.base import Outputs


class Last(Head):
    def __init__(self, dim, num_classes, *, num_layers=1, dropout: Dropout = 0.2, width: int, name="x"):
        super().__init__()
        self.given = dim, num_classes, num_layers, dropout, width, name
        self.linear = nn.Linear(dim if isinstance(dim, int) else sum(dim.values()), num_classes)

    @staticmethod
    def check(*, width, **others):
        if width % 2:
            raise ValueError(f"width {width} must be even")

    @property
    def output(self):
        return self.linear

    def outputs(self, *inputs):
        features = torch.cat([frames[:, 0] for frames in inputs[::2]], dim=-1)
        return Outputs(self.output(features), features)


class NoHead(nn.Module):
    pass


def function():
    pass
"""


def recipe(head: Any, *, trusted: bool = True, **fields: Any) -> Recipe:
    given = {"backbones": ["a"], "head": head} | fields
    parsed: Recipe = parse_config(given, Recipe, "r.yaml", trusted=trusted)
    return parsed


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a module outside the package that Python finds."""
    monkeypatch.syspath_prepend(tmp_path)
    name = "own_heads_of_a_test"
    monkeypatch.delitem(sys.modules, name, raising=False)
    (tmp_path / f"{name}.py").write_text(OWN)
    return name


@pytest.mark.parametrize("kind", HEADS)
def test_the_fields_of_a_head_are_its_arguments_with_their_defaults(kind: str) -> None:
    modalities = ["audio"] if kind == "fusion_openmax" else []
    parsed = recipe({"kind": kind}, modalities=modalities)
    arguments = inspect.signature(parsed.head.module).parameters.values()
    own = {a.name: a.default for a in arguments if a.kind is a.KEYWORD_ONLY and a.name != "num_layers"}
    assert parsed.head.options() == own
    assert len(own) == 2 if kind == "statistics" else len(own) >= 6
    dumped = parsed.model_dump(mode="json")
    assert parse_config(dumped, Recipe, "again") == parsed
    assert pickle.loads(pickle.dumps(parsed)) == parsed


def test_a_head_is_built_from_its_fields() -> None:
    head = build_head(recipe({"kind": "pooled", "hidden": [7], "norm": True}), {"frames": (2, 8)}, 3)
    assert isinstance(head, PooledClassifier)
    assert head.output.in_features == 7
    assert head.layer_mix.num_layers == 2
    both = recipe(
        {"kind": "fusion_openmax", "shared_dim": 8, "depth": 2, "base_dim": 16},
        backbones=["a", "t"],
        modalities=["audio", "text"],
    )
    fused = build_head(both, {"audio": (6,), "text": (2, 5)}, 3)
    assert isinstance(fused, FusionClassifier)
    assert fused.layer_mix["text"].num_layers == 2


@pytest.mark.parametrize(
    ("head", "message"),
    [
        ({"kind": "segmnt"}, r"`head.kind`: must be one of 'segment', .* 'custom' \(got 'segmnt'\)"),
        ({}, r"`head.kind`: must be one of .*\(got None\)"),
        ({"kind": ["segment"]}, r"`head.kind`: must be one of .*\(got \['segment'\]\)"),
        ("segment", "`head`: .*give the fields of a head"),
        ({"kind": "segment", "num_heads": 0}, r"`head.num_heads`: .*greater .* equal to 1 \(got 0\)"),
        ({"kind": "segment", "strides": [2, 0]}, r"`head.strides.1`: .*\(got 0\)"),
        ({"kind": "segment", "dropout": 1}, r"`head.dropout`: .*less than 1 \(got 1\)"),
        ({"kind": "segment", "pooling_type": "sum"}, r"`head.pooling_type`: .*'attention'.*\(got 'sum'\)"),
        ({"kind": "segment", "num_layers": 2}, r"`head.num_layers`: Extra inputs are not permitted"),
        ({"kind": "segment", "strides": [7]}, "`head`: .*each must be in 1..5"),
        ({"kind": "custom"}, "`head.class`: write package.module:Name"),
        ({"kind": "custom", "class": "no_such_module:X"}, "`head.class`: cannot be imported: .*PYTHON"),
        ({"kind": "custom", "class": "{module}:function"}, "`head.class`: not a subclass of Head; "),
        ({"kind": "custom", "class": "{module}:NoHead"}, "`head.class`: not a subclass of Head; "),
        ({"kind": "custom", "class": "{module}:Last"}, "`head.width`: Field required"),
        ({"kind": "custom", "class": "{module}:Last", "width": 3}, "`head`: .*width 3 must be even"),
        ({"kind": "custom", "class": "{module}:Last", "width": 2, "dropout": 2}, "`head.dropout`: .*less"),
        ({"kind": "custom", "class": "{module}:Last", "width": 2, "hidden": 2}, "`head.hidden`: Extra"),
    ],
    ids=str,
)  # fmt: skip
def test_what_is_wrong_with_a_head_is_said(module: str, head: Any, message: str) -> None:
    if isinstance(head, dict) and "class" in head:
        head = head | {"class": head["class"].format(module=module)}
    with pytest.raises(ConfigError, match=f"^r.yaml: {message}"):
        recipe(head)


def test_a_head_from_outside_is_built_with_its_own_fields(module: str, tmp_path: Path) -> None:
    given = {"kind": "custom", "class": f"{module}:Last", "width": 4, "name": "y"}
    head: Any = build_head(recipe(given), {"frames": (5, 8)}, 3)
    assert head.given == (8, 3, 5, 0.2, 4, "y")
    assert head(torch.zeros(2, 6, 8), torch.tensor([6, 1])).shape == (2, 3)
    both = recipe(given, backbones=["a", "t"], modalities=["audio", "text"])
    assert both.stores() == {"audio": "a", "text": "t"}
    head = build_head(both, {"audio": (8,), "text": (2, 4)}, 3)
    assert head.given[:3] == ({"audio": 8, "text": 4}, 3, {"audio": 1, "text": 2})
    kept = recipe(given).model_dump(mode="json")["head"]
    assert kept == {**given, "dropout": 0.2}
    (tmp_path / "own.yaml").write_text(
        f"backbones: [a]\nhead: {{kind: custom, class: '{module}:Last', width: 4}}\n"
    )
    assert load_config(tmp_path / "own.yaml", Recipe, ["head.name=y"]) == recipe(given)


def test_a_recipe_that_came_with_a_run_imports_no_class(module: str) -> None:
    given = {"kind": "custom", "class": f"{module}:Last", "width": 4}
    message = rf"^r.yaml: `head.class`: kind custom imports it, .* --trust-run .* \(got '{module}:Last'\)$"
    with pytest.raises(ValueError, match=message):
        recipe(given, trusted=False)
    with pytest.raises(ValueError, match="--trust-run"):
        parse_config({"backbones": ["a"], "head": given}, Recipe, "r.yaml")
    assert module not in sys.modules
    assert recipe({"kind": "segment"}, trusted=False) == recipe({"kind": "segment"})


def test_reading_the_module_of_recipes_loads_no_torch() -> None:
    code = "import sys; import stillwave.pipeline.config.recipe; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout == "False\n"
