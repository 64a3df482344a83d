"""The notebooks: nothing of a run is in git, and each runs top to bottom in a fresh copy of the project."""

import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any

import nbformat
import pytest

PROJECT = Path(__file__).parents[2]
NOTEBOOKS = sorted((PROJECT / "analysis/notebooks").glob("*.ipynb"))
PICTURES = {
    "1_look_at_embeddings": 6,
    "2_retrain_heads": 3,
    "3_open_set_and_calibration": 3,
    "4_finetune_against_frozen": 1,
}


def test_every_notebook_is_tested() -> None:
    assert [file.stem for file in NOTEBOOKS] == list(PICTURES)


@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)
def test_nothing_of_a_run_is_kept(file: Path) -> None:
    notebook = nbformat.read(file, as_version=4)
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "python3"
    assert set(notebook.metadata) == {"kernelspec", "language_info"}
    assert notebook.metadata.language_info == {"name": "python"}
    for cell in notebook.cells:
        assert not cell.metadata
        if cell.cell_type == "code":
            assert (cell.outputs, cell.execution_count) == ([], None)


@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)
def test_every_notebook_explains_and_checks_itself(file: Path) -> None:
    cells = nbformat.read(file, as_version=4).cells
    assert cells[0].source.startswith("# ")
    code = [cell.source for cell in cells if cell.cell_type == "code"]
    assert sum(source.count("assert ") for source in code) >= 5
    kinds = [cell.cell_type for cell in cells]
    together = [pair for pair in pairwise(kinds) if pair == ("code", "code")]
    assert len(together) <= len(code) / 2, "text between the cells"


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a clone of the project has of code, and no data: the notebooks share what they make of it."""
    folder = tmp_path_factory.mktemp("clone")
    for name in ("analysis", "cache", "configs", "heads", "models", "pipeline"):
        shutil.copytree(PROJECT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", PICTURES)
def test_a_notebook_runs_top_to_bottom(clone: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    nbclient = pytest.importorskip("nbclient")
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    before = outside(clone)
    notebook: Any = nbformat.read(clone / f"analysis/notebooks/{name}.ipynb", as_version=4)
    at = {"metadata": {"path": str(clone / "analysis/notebooks")}}
    nbclient.NotebookClient(notebook, timeout=600, kernel_name="python3", resources=at).execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert sum("image/png" in output.get("data", {}) for output in outputs) == PICTURES[name]
    said = [output.text for output in outputs if output.output_type == "stream" and output.name == "stderr"]
    # tqdm misses ipywidgets, which no notebook needs.
    assert not [text for text in said if "Warning" in text.replace("TqdmWarning: IProgress", "")]
    assert outside(clone) == before, "notebooks write to data/ only"


def outside(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.relative_to(folder).parts[0] != "data"}
