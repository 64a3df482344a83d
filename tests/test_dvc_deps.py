"""What a stage of dvc.yaml imports lies in the rooms that it depends on."""

from pathlib import Path

import pytest
import yaml

from stillwave.pipeline.config.base import load_config
from stillwave.pipeline.config.recipe import Recipe
from tests.imports import files_imported_by

ROOT = Path(__file__).parents[1]
STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
ENTRIES = {
    "prepare": ("pipeline/corpora/prepare.py", "analysis/corpus.py"),
    "transcribe": ("pipeline/transcribe/stage.py",),
    "extract": ("pipeline/extract/stage.py",),
    "train": ("pipeline/train/stage.py",),
    "finetune": ("pipeline/train/finetune.py",),
    "evaluate": ("pipeline/evaluate/stage.py",),
    "analyze": ("analysis/analyze.py",),
    "explorer": ("analysis/explorer.py",),
    "report": ("analysis/report.py",),
}
# What changes no number of a stage. The store and its readers check bytes and make none; which rows there are
# and where they lie is in the manifest; the frames of a cached run are in the store, which is a dependency.
PLUMBING = ("src/", "cache/", "pipeline/corpora/manifest.py", "pipeline/corpora/quarantine.py")
OF_STORES = (
    "pipeline/audio/", "pipeline/backbones/", "pipeline/corpora/spelling.py", "pipeline/extract/",
)  # fmt: skip
OF_RUNS = ("pipeline/config/", "pipeline/corpora/leaks.py", "pipeline/corpora/splits.py")
OF_REPORTS = ("heads/", "pipeline/runs/", *OF_RUNS, *OF_STORES)
ASIDE: dict[str, tuple[str, ...]] = {
    "train": OF_STORES,
    "evaluate": OF_RUNS,
    "analyze": OF_REPORTS,
    "explorer": ("pipeline/", "heads/"),
    "report": OF_REPORTS,
}


TEMPLATES = ("analysis/corpus_page", "analysis/report_page")  # read, not imported


def needed_by(stage: str) -> set[str]:
    """Files that the stage's entries are or import."""
    return set().union(*map(files_imported_by, ENTRIES[stage]))


def stage_of(name: str) -> dict[str, object]:
    return STAGES[name].get("do", STAGES[name])


@pytest.mark.parametrize("stage", ENTRIES)
def test_what_a_stage_imports_lies_in_its_rooms(stage: str) -> None:
    needed = {name for name in needed_by(stage) if not name.startswith(PLUMBING)}
    rooms = [name for name in stage_of(stage)["deps"] if (ROOT / name).exists()]
    assert needed.issuperset(ENTRIES[stage])
    outside = {
        name for name in needed if not any(name == room or name.startswith(f"{room}/") for room in rooms)
    }
    assert sorted(name for name in outside if not name.startswith(ASIDE.get(stage, ()))) == []


@pytest.mark.parametrize("stage", ENTRIES)
def test_the_rooms_of_a_stage_are_there_and_needed(stage: str) -> None:
    needed = needed_by(stage) | {"heads/objective.py", *TEMPLATES}
    for room in stage_of(stage)["deps"]:
        if room.split("/")[0] in ("analysis", "cache", "heads", "pipeline"):
            assert (ROOT / room).exists(), room
            assert any(name == room or name.startswith(f"{room}/") for name in needed), room


def test_an_edited_loss_extracts_nothing() -> None:
    for edited in ("heads/losses.py", "pipeline/config/train.py", "pipeline/config/recipe.py"):
        rooms = stage_of("extract")["deps"]
        assert not [room for room in rooms if edited == room or edited.startswith(f"{room}/")], edited


def test_params_name_the_stores_that_each_recipe_reads() -> None:
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    for name, stores in params["recipes"].items():
        recipe = load_config(ROOT / f"configs/recipes/{name}.yaml", Recipe)
        read = list(recipe.stores().values())
        assert stores == (read + 2 * read[-1:])[:3], name
        assert set(stores) <= set(params["backbones"])
    for name, item in params["finetune"].items():
        recipe = load_config(ROOT / f"configs/recipes/{name}.yaml", Recipe)
        assert recipe.finetune is not None
        assert recipe.backbones == [item["backbone"]]
        assert item["after"] in (item["options"].removeprefix("--start "), "data/manifest.parquet")


def test_it_can_be_read_at_a_glance() -> None:
    assert len((ROOT / "dvc.yaml").read_text().splitlines()) < 170
