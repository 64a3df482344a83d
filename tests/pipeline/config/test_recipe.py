from typing import Any

import pytest

from stillwave.pipeline.config.base import ConfigError, parse_config
from stillwave.pipeline.config.recipe import Recipe

SEGMENT = {"kind": "segment"}
FUSION = {"kind": "fusion_openmax"}
BOTH = {"head": FUSION, "backbones": ["a", "t"]}
STATISTICS = {"head": {"kind": "statistics"}, "backbones": ["b", "a", "t"]}


def recipe(**fields: Any) -> Recipe:
    parsed: Recipe = parse_config({"backbones": ["a"], "head": SEGMENT} | fields, Recipe, "r.yaml")
    return parsed


@pytest.mark.parametrize(
    ("fields", "stores"),
    [
        ({}, {"frames": "a"}),
        ({"head": FUSION, "modalities": ["text"]}, {"text": "a"}),
        (BOTH | {"modalities": ["audio", "text"]}, {"audio": "a", "text": "t"}),
        (BOTH | {"modalities": ["audio"]}, {"audio": "a"}),
        (BOTH | {"modalities": ["text"]}, {"text": "t"}),
        (STATISTICS, {"b": "b", "a": "a", "t": "t"}),
        (STATISTICS | {"backbones": ["a.1"]}, {"frames": "a.1"}),
    ],
)  # fmt: skip
def test_stores_are_those_of_the_modalities(fields: dict[str, Any], stores: dict[str, str]) -> None:
    assert list(recipe(**fields).stores().items()) == list(stores.items())


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"backbones": ["a", "b"]}, "a segment head reads one backbone"),
        ({"modalities": ["audio"]}, "a segment head reads one backbone"),
        ({"head": FUSION}, r"modalities are \[\]"),
        ({"head": FUSION, "modalities": ["text", "audio"]}, r"modalities are \['text', 'audio'\]"),
        (
            {"head": FUSION, "modalities": ["audio", "text"]},
            r"take a backbone each, audio first; got \['a'\]",
        ),
        ({"head": FUSION, "modalities": ["audio"], "backbones": list("abc")}, "take a backbone each"),
        ({"head": FUSION | {"shared_dim": 10}, "modalities": ["audio"]}, "multiple of num_heads 8"),
        (STATISTICS | {"modalities": ["audio"]}, r"a statistics head .* remove `modalities` \['audio'\]"),
        (
            STATISTICS | {"backbones": ["a", "t", "a"]},
            r"`backbones` \['a', 't', 'a'\] name a store more than once",
        ),
        (
            STATISTICS | {"backbones": ["a.1", "t"]},
            r"`backbones` \['a.1'\]: .* must not contain a dot; rename",
        ),
        (
            STATISTICS | {"augment": {"stretch": 0.1}},
            "a statistics head sees no single frames.*or use `views`",
        ),
        (STATISTICS | {"losses": {"anchor": 0.1}}, "a statistics head has none of them"),
        ({"losses": {"anchor": 0.1}}, "a segment head has none of them"),
        ({"losses": {"cross_entropy": 0}}, "no loss trains the logits"),
        (
            {"open_set": {"score": "learned_uncertainty"}},
            "uncertainty needs a fusion_openmax head and losses.uncertainty",
        ),
        ({"open_set": {"score": "best"}}, r"`open_set.score`: Input should be 'msp'.*\(got 'best'\)"),
        ({"classes": ["x", "y"], "open_set": {"unknown": ["y"]}}, r"\['y'\] are in `classes` and in"),
        ({"classes": ["x", "x"]}, r"`classes` \['x', 'x'\] name a class more than once"),
        ({"open_set": {"threshold": float("nan")}}, "finite number"),
        (
            {"head": FUSION | {"base_dim": 1}, "modalities": ["audio"]},
            r"base_dim.*greater than or equal to 2",
        ),
        ({"open_set": {"tail_size": 2}}, r"`open_set.tail_size`: .*greater than or equal to 3 \(got 2\)"),
    ],
    ids=str,
)
def test_what_does_not_fit_together_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        recipe(**fields)
