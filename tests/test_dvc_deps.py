"""The files that dvc.yaml lists for a stage are those that its numbers come from."""

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
    "pipeline/manifest.py", "pipeline/memory.py", "pipeline/packages.py", "pipeline/quarantine.py",
    "pipeline/quiet.py", "pipeline/scale.py", "pipeline/splits.py", "pipeline/transfer.py",
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
            if isinstance(node, ast.ImportFrom) and node.module:  # what is taken from it may be a module, too
                names += [f"{node.module}.{alias.name}" for alias in node.names]
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            for module in names:
                file = ROOT / (module.replace(".", "/") + ".py")
                folder = ROOT / module.replace(".", "/") / "__init__.py"
                waiting += [found for found in (file, folder) if found.exists()]
    return seen


# What training imports beyond extraction, and that changes no number.
NO_NUMBERS_OF_TRAINING = {
    "cache/", "heads/outputs.py", "pipeline/backbones/", "pipeline/checkpoint.py", "pipeline/config/",
    "pipeline/device.py", "pipeline/environment.py", "pipeline/files.py", "pipeline/packages.py",
    "pipeline/quarantine.py", "pipeline/quiet.py", "pipeline/run_folder.py", "pipeline/version.py",
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


# What an analysis imports that changes nothing in it: reading, checking, and what only --run asks for.
NO_NUMBERS_OF_ANALYSIS = ("analysis/__init__.py", "cache/", "heads/", "pipeline/")
NUMBERS_OF_ANALYSIS = {
    "cache/batches.py", "heads/global_pooling.py", "heads/masks.py", "pipeline/metrics.py",
    "pipeline/plots.py",
}  # fmt: skip


def test_every_module_that_analyses_is_a_dependency_of_analyze() -> None:
    stage = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]["analyze"]
    listed = {name for name in stage["deps"] if name.endswith(".py")}
    modules = imported(ROOT / "analysis" / "analyze.py")
    assert modules >= NUMBERS_OF_ANALYSIS | {"analysis/measures.py", "analysis/probes.py"}
    own = {name for name in modules if not name.startswith(NO_NUMBERS_OF_ANALYSIS)}
    assert own | NUMBERS_OF_ANALYSIS == listed


def test_every_module_that_makes_the_explorer_is_a_dependency_of_it() -> None:
    stage = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]["explorer"]
    modules = imported(ROOT / "analysis" / "explorer.py")
    own = {name for name in modules if name.startswith("analysis/")} - {"analysis/__init__.py"}
    assert set(stage["deps"]) == own | {"analysis/explorer_page", "pipeline/plots.py", "reports/analysis"}


def test_every_module_that_makes_the_page_is_a_dependency_of_report() -> None:
    stage = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]["report"]
    listed = {name for name in stage["deps"] if name.endswith(".py")}
    trained = imported(ROOT / "pipeline" / "train.py")
    evaluated = imported(ROOT / "pipeline" / "evaluate.py")
    further = imported(ROOT / "analysis" / "report.py") - evaluated - trained
    drawn = imported(ROOT / "pipeline" / "report.py") - trained
    assert listed == further | drawn | {"pipeline/metrics.py"}
    assert "analysis/report_page" in stage["deps"]


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
