"""Parts of a recipe whose fields are the arguments of a class: each default stands once, with the class."""

import inspect
import pickle
from typing import Any

import pytest
import torch

from stillwave.heads.augment import FrameAugment
from stillwave.heads.personal import Personalised
from stillwave.pipeline.config.base import ConfigError, parse_config
from stillwave.pipeline.config.recipe import Recipe
from stillwave.pipeline.config.train import Augment, Personalise
from stillwave.pipeline.runs.head import build_head


def recipe(**fields: Any) -> Recipe:
    parsed: Recipe = parse_config(
        {"backbones": ["a"], "head": {"kind": "pooled"}, **fields}, Recipe, "r.yaml"
    )
    return parsed


@pytest.mark.parametrize(("name", "target"), [("augment", FrameAugment), ("personalise", Personalised)])
def test_the_fields_are_the_arguments_with_their_defaults(name: str, target: Any) -> None:
    parsed = recipe(**{name: {}})
    arguments = inspect.signature(target).parameters.values()
    own = {each.name: each.default for each in arguments if each.kind is each.KEYWORD_ONLY}
    part = getattr(parsed, name)
    assert part.options() == own
    assert len(own) >= 3
    dumped = parsed.model_dump(mode="json")
    assert list(dumped[name]) == list(own)
    assert parse_config(dumped, Recipe, "again") == parsed
    assert pickle.loads(pickle.dumps(parsed)) == parsed
    assert isinstance(part, Augment if name == "augment" else Personalise)
    assert getattr(recipe(**{name: part}), name) is part


def test_what_is_built_has_the_fields() -> None:
    parsed = recipe(augment={"bands": 4, "warp": 0.2}, personalise={"dim": 5})
    assert parsed.augment is not None
    assert FrameAugment(**parsed.augment.options()) == FrameAugment(bands=4, warp=0.2)
    head = build_head(parsed, {"frames": (8,)}, 3, num_speakers=2)
    assert isinstance(head, Personalised)
    assert head.speakers(torch.tensor([1])).shape == (1, 5)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"augment": {"warp": 0.1}}, "`augment`: .*warp, gain, tilt and band_masks need `bands`"),
        ({"augment": {"strech": 0.1}}, "`augment.strech`: Extra inputs are not permitted"),
        ({"augment": {"stretch": 1}}, r"`augment.stretch`: .*less than 1 \(got 1\)"),
        ({"augment": {"time_masks": -1}}, r"`augment.time_masks`: .*\(got -1\)"),
        ({"augment": 3}, r"`augment`: Input should be a valid dictionary or instance of Augment \(got 3\)"),
        ({"personalise": {"unknown": 1}}, r"`personalise.unknown`: .*less than 1 \(got 1\)"),
        ({"personalise": {"num_speakers": 3}}, "`personalise.num_speakers`: Extra inputs"),
        ({"personalise": {"dim": 0}}, r"`personalise.dim`: .*\(got 0\)"),
    ],
    ids=str,
)
def test_what_is_wrong_is_said(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=f"^r.yaml: {message}"):
        recipe(**fields)
