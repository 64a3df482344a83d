"""The house: which room may import which, without cycles, and one name for every module."""

import re
import subprocess
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from tests.imports import ROOT, TOPS, Import, all_imports, modules

# Each room imports those before it alone. What is in no room's folder is a room of its own.
ORDER = (
    "version", "cache", "heads", "pipeline.config", "pipeline.audio", "pipeline.corpora",
    "pipeline.backbones", "pipeline.transcribe", "pipeline.extract", "pipeline.scores", "pipeline.runs",
    "pipeline.train", "pipeline.evaluate", "pipeline.predict", "pipeline.run", "analysis",
    "models", "pipeline.commands", "pipeline.cli", "__main__",
)  # fmt: skip


def room(module: str) -> str | None:
    """The room that a module is in; None for `stillwave` and `pipeline` themselves, which load nothing."""
    name = module.removeprefix("stillwave").removeprefix(".")
    return (
        None
        if name in ("", "pipeline")
        else max((r for r in ORDER if f"{name}.".startswith(f"{r}.")), key=len)
    )


def upward(imports: list[Import]) -> list[Import]:
    rooms = ((found, room(found.importer), room(found.imported)) for found in imports)
    return [
        found for found, importer, imported in rooms
        if importer and imported and ORDER.index(imported) > ORDER.index(importer)
    ]  # fmt: skip


def cycle(imports: list[Import]) -> list[str]:
    """The modules of a cycle, or none."""
    sorter: TopologicalSorter[str] = TopologicalSorter()
    for found in imports:
        if found.importer != found.imported:
            sorter.add(found.importer, found.imported)
    try:
        sorter.prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


@pytest.fixture(scope="module")
def imports() -> list[Import]:
    return all_imports()


def test_no_import_points_upward(imports: list[Import]) -> None:
    assert len({found[:2] for found in imports}) > 300
    assert upward(imports) == []


def test_no_modules_import_each_other(imports: list[Import]) -> None:
    assert cycle(imports) == []


@pytest.mark.parametrize(
    ("path", "planted"),
    [
        ("heads/masks.py", "from stillwave.pipeline.config.base import Config\n"),
        ("pipeline/audio/decode.py", "def late() -> None:\n    import stillwave.pipeline.predict.clips\n"),
        ("pipeline/runs/head.py", "from stillwave.pipeline.train import stage\n"),
        ("cache/layout.py", "def late() -> None:\n    from stillwave import Predictor\n"),
        ("pipeline/config/base.py", "from ..runs import head\n"),
        ("analysis/names.py", "from stillwave.models import word_table\n"),
    ],
)
def test_a_planted_import_upward_is_found(path: str, planted: str, tmp_path: Path) -> None:
    assert [found.importer for found in upward(planted_in(path, planted, tmp_path))] == [
        f"stillwave.{path[:-3].replace('/', '.')}"
    ]


@pytest.mark.parametrize(
    ("path", "planted"),
    [
        ("cache/layout.py", "from stillwave.cache.store import EmbeddingStore\n"),
        ("heads/masks.py", "def late() -> None:\n    from stillwave.heads import pooling\n"),
    ],
)
def test_a_planted_cycle_is_found(path: str, planted: str, tmp_path: Path) -> None:
    assert f"stillwave.{path[:-3].replace('/', '.')}" in cycle(planted_in(path, planted, tmp_path))


def planted_in(path: str, text: str, root: Path) -> list[Import]:
    """The imports of our modules, with `text` behind one of them; only their imports are copied."""
    for source in modules().values():
        copy = root / source.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(source.read_text() + (text if copy == root / path else ""))
    return all_imports(root)


def test_nothing_is_imported_by_its_old_name() -> None:
    """`import cache` may find somebody else's folder, or ours a second time."""
    names = "|".join((*TOPS, "configs"))
    start = r"""(?m)(?:^|["'`;>])[ \t]*"""
    old = re.compile(rf"{start}(?:from (?:{names})(?:\.\w+)* import |import (?:{names})\b)")
    for text in (
        "from cache import EmbeddingStore",
        "    import pipeline.cli",
        "-c 'import heads'",
        ">>> import cache",
    ):
        assert old.search(text), text
    files = subprocess.run(["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True)
    kinds = (".py", ".md", ".ipynb", ".toml", ".yaml", ".sh")
    aside = ("tests/test_imports.py", "CHANGELOG.md")  # this list, and how to move from the old names
    found = {
        name: hits
        for name in files.stdout.split()
        if name.endswith(kinds) and name not in aside and (hits := old.findall((ROOT / name).read_text()))
    }
    assert found == {}
