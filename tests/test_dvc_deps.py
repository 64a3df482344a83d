"""The files that dvc.yaml lists for extraction are those that its numbers come from."""

import ast
from pathlib import Path

import yaml

from pipeline.config.base import load_config
from pipeline.config.recipe import Recipe

ROOT = Path(__file__).parents[1]
# Modules that extraction imports and that change no frame: bookkeeping, checks, and where things lie.
NO_NUMBERS = {
    "pipeline/backbones/__init__.py", "pipeline/backbones/base.py", "pipeline/containers.py",
    "pipeline/device.py", "pipeline/extract.py", "pipeline/files.py", "pipeline/fingerprint.py",
    "pipeline/manifest.py", "pipeline/memory.py", "pipeline/quarantine.py", "pipeline/quiet.py",
    "pipeline/scale.py", "pipeline/splits.py",
}  # fmt: skip


def imported(start: Path) -> set[str]:
    """Our modules that `start` imports, directly or not, whether at the top or within functions."""
    seen: set[str] = set()
    waiting = [start]
    while waiting:
        path = waiting.pop()
        name = str(path.relative_to(ROOT))
        if name in seen:
            continue
        seen.add(name)
        for node in ast.walk(ast.parse(path.read_text())):
            names = [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            for module in names:
                file = ROOT / (module.replace(".", "/") + ".py")
                folder = ROOT / module.replace(".", "/") / "__init__.py"
                waiting += [found for found in (file, folder) if found.exists()]
    return seen


# What training imports beyond extraction, and that changes no number.
NO_NUMBERS_OF_TRAINING = {
    "cache/", "heads/outputs.py", "pipeline/backbones/", "pipeline/checkpoint.py", "pipeline/config/",
    "pipeline/device.py", "pipeline/files.py", "pipeline/quarantine.py", "pipeline/quiet.py",
    "pipeline/run_folder.py",
}  # fmt: skip
# What evaluation imports for fine-tuned runs, whose weights are in the run.
LIVE = {
    "pipeline/audio.py", "pipeline/augment.py", "pipeline/live.py", "pipeline/live_data.py",
    "pipeline/rows.py", "pipeline/unfreeze.py", "pipeline/waveforms.py",
}  # fmt: skip


def test_every_module_that_trains_is_a_dependency_of_train() -> None:
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    listed = {name for name in stages["train"]["do"]["deps"] if name.endswith(".py")}
    modules = {
        name
        for name in imported(ROOT / "pipeline" / "train.py")
        if not name.startswith(tuple(NO_NUMBERS_OF_TRAINING))
    }
    assert "heads/openmax.py" in modules
    assert modules == listed - {"cache/batches.py"}
    scored = {name for name in stages["evaluate"]["do"]["deps"] if name.endswith(".py")}
    further = imported(ROOT / "pipeline" / "evaluate.py") - imported(ROOT / "pipeline" / "train.py")
    further = {name for name in further if not name.startswith("pipeline/backbones/")}
    assert scored == further - NO_NUMBERS - LIVE | {"pipeline/metrics.py"}
    again = {name for name in stages["evaluate_finetuned"]["do"]["deps"] if name.endswith(".py")}
    assert again == scored


def test_every_module_that_fine_tunes_is_a_dependency_of_finetune() -> None:
    stage = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]["finetune"]["do"]
    listed = {name for name in stage["deps"] if name.endswith(".py")}
    aside = tuple(NO_NUMBERS_OF_TRAINING - {"pipeline/backbones/"})
    modules = {
        name for name in imported(ROOT / "pipeline" / "finetune.py") if not name.startswith(aside)
    } - NO_NUMBERS
    assert {"pipeline/unfreeze.py", "pipeline/backbones/cnn1d.py", "heads/personal.py"} <= modules
    modules |= {"pipeline/hear.py", "pipeline/splits.py"}
    assert modules == listed - {"cache/batches.py"}


def test_every_module_that_makes_numbers_is_a_dependency_of_extract() -> None:
    stage = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]["extract"]
    listed = {name for name in stage["deps"] if name.endswith(".py")}
    modules = {
        name
        for name in imported(ROOT / "pipeline" / "extract.py")
        if name.startswith("pipeline/") and not name.startswith("pipeline/config/")
    }
    assert "pipeline/backbones/encodec_models.py" in modules
    modules.add("pipeline/hear.py")  # what configs/backbones/hear.yaml names
    assert modules - NO_NUMBERS == {name for name in listed if name.startswith("pipeline/")}
    assert {name for name in listed if not name.startswith("pipeline/")} == {
        "cache/batches.py",
        "heads/masks.py",
    }


def test_params_name_the_stores_that_each_recipe_reads() -> None:
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    for name, stores in params["recipes"].items():
        recipe = load_config(ROOT / f"configs/recipes/{name}.yaml", Recipe)
        read = list(recipe.stores().values())
        assert stores == (read if len(read) == 2 else 2 * read), name
        assert set(stores) <= set(params["backbones"])
    for name, item in params["finetune"].items():
        recipe = load_config(ROOT / f"configs/recipes/{name}.yaml", Recipe)
        assert recipe.finetune is not None
        assert recipe.backbones == [item["backbone"]]
        assert item["after"] in (item["options"].removeprefix("--start "), "data/manifest.parquet")
