"""The settings of benchmarks/pretrained.py, and what they are chosen on."""

import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from benchmarks.pretrained import (
    INNER_FOLDS,
    SEGMENT_RECIPE,
    SEGMENT_SETTINGS,
    SETTINGS,
    VIEWS_RECIPE,
    without,
)
from stillwave.pipeline.config.base import load_config
from stillwave.pipeline.config.recipe import Recipe

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "STILLWAVE_CORPORA"}


@pytest.mark.parametrize("step", [1, 3])
def test_settings_are_chosen_without_the_speaker_of_the_outer_fold(step: int) -> None:
    speakers = [speaker for speaker in "abcdef" for _ in range(9)]
    folds = ["abcdef".index(speaker) for speaker in speakers]
    manifest = pd.DataFrame({"id": range(len(folds)), "speaker": speakers, "fold": folds})
    others = without(manifest, 2, step)
    assert others["id"].tolist() == [id_ for id_, speaker in enumerate(speakers) if speaker != "c"][::step]
    assert others.groupby("speaker")["fold"].nunique().eq(1).all()
    assert set(others["fold"]) == set(range(INNER_FOLDS))


def test_the_settings_that_are_tried_differ_and_are_valid() -> None:
    recipes = [load_config(VIEWS_RECIPE, Recipe, settings) for settings in SETTINGS]
    assert len({recipe.model_dump_json() for recipe in recipes}) == len(SETTINGS)
    assert load_config(VIEWS_RECIPE, Recipe) in recipes
    load_config(SEGMENT_RECIPE, Recipe, SEGMENT_SETTINGS)


@pytest.mark.parametrize("name", ["pretrained", "open_set_speech"])
def test_without_the_corpora_it_says_what_to_set(name: str) -> None:
    command = [sys.executable, ROOT / f"benchmarks/{name}.py"]
    done = subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 1
    assert "set STILLWAVE_CORPORA to the folder" in done.stderr
