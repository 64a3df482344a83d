"""Which column of a manifest is the label, and which cannot be."""

from typing import Any

import pandas as pd
import pytest

from stillwave.analysis.labels import MAX_CLASSES, label_column


def columns(**values: list[Any]) -> pd.DataFrame:
    fixed = {"id": ["a", "b"], "path": ["p", "q"], "text": ["x", "y"], "gender": ["f", "m"], "fold": [0, 1]}
    return pd.DataFrame({name: pd.Series(value, dtype=object) for name, value in (fixed | values).items()})


def test_the_label_is_the_one_column_that_can_be_it() -> None:
    assert label_column(columns(), None) is None
    assert label_column(columns(speaker=["s", "t"], accent=["x", "x"]), None) is None
    assert label_column(columns(accent=["x", "y"]), None) == "accent"
    assert label_column(columns(accent=["x", "y"], emotion=["sad", "angry"]), None) == "emotion"
    assert label_column(columns(accent=["x", "y"], note=["clipping", "silent mix"]), None) == "accent"
    assert label_column(columns(accent=["x", "y"]), "gender") == "gender"
    with pytest.raises(ValueError, match=r"may be the label: accent, take; choose one, -S label=accent"):
        label_column(columns(accent=["x", "y"], take=["1", "2"]), None)
    with pytest.raises(
        ValueError, match=r"label 'mood' is not a label in the manifest, whose columns are id,"
    ):
        label_column(columns(), "mood")
    with pytest.raises(ValueError, match=r"label 'fold' is not a label"):
        label_column(columns(), "fold")


def test_a_label_that_is_asked_for_is_text_of_2_to_1000_values() -> None:
    count = MAX_CLASSES + 1
    odd = {"rating": [0.5, 1.5], "take": [1, 2], "empty": [None, None], "one": ["x", "x"]}
    for name, said in {
        "rating": "2 values in the manifest, floating",
        "take": "2 values in the manifest, integer",
        "empty": "0 values in the manifest, empty",
        "one": "1 values in the manifest, string",
    }.items():
        with pytest.raises(ValueError, match=f"label '{name}' has {said}; a label has 2 to 1000 text values"):
            label_column(columns(**odd), name)
    many = pd.DataFrame({"note": [f"n{i}" for i in range(count)]})
    with pytest.raises(ValueError, match=f"label 'note' has {count} values"):
        label_column(many, "note")
    assert label_column(many[1:], "note") == "note"
