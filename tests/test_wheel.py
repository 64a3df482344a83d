"""The sdist, and the wheel from it: what is in them, and that it works in any folder of somebody else."""

import csv
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
from pathlib import Path
from zipfile import ZipFile

import pytest
import yaml

from stillwave.version import VERSION
from tests.imports import ROOT, TOPS

COMMANDS = """
run --corpus demo --recipe fbank_demo --out runs/first -S recipe.train.epochs=1
predict --run runs/first/run --out answers.jsonl data/corpora/demo/wav/de
analyze runs/first/embeddings/fbank.zarr --run runs/first/run --out looked -S umap=null -S tsne=null
explore looked --out explorer.html
report runs/first --out report.html
rapid words.csv --out runs/rapid
"""
# As somebody's script in that folder would, with the folder itself first on sys.path.
SCRIPT = """
import sys
import stillwave.pipeline.cli
assert sys.path[0] == ""
for command in sys.argv[1].strip().splitlines():
    print(command, flush=True)
    sys.argv = ["stillwave", *command.split()]
    try:
        stillwave.pipeline.cli.main()
    except SystemExit as stop:
        assert not stop.code, command
ours = [module for name, module in sys.modules.items() if name.partition(".")[0] == "stillwave"]
print(*{module.__file__ for module in ours}, sep="\\n", file=open("modules.txt", "w"))
"""


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What both are built from. In the checkout, setuptools would reuse what an older build/ holds."""
    folder = tmp_path_factory.mktemp("source")
    for name in (*TOPS, "configs", "src"):
        aside = shutil.ignore_patterns("__pycache__", "*.egg-info")
        shutil.copytree(ROOT / name, folder / name, symlinks=True, ignore=aside)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    return folder


@pytest.fixture(scope="module")
def sdist(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As `python -m build` makes it: by the hook of the build backend, in a process of its own."""
    folder = tmp_path_factory.mktemp("sdist")
    hook = "import sys; from setuptools.build_meta import build_sdist; build_sdist(sys.argv[1])"
    run(sys.executable, "-c", hook, folder, cwd=source)
    (sdist,) = folder.iterdir()
    return sdist


@pytest.fixture(scope="module")
def wheel(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    pip("wheel", sdist, "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", folder)
    (wheel,) = folder.glob("*.whl")
    return wheel


def pip(*arguments: str | Path) -> None:
    run(sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments)


def run(*command: str | Path, cwd: Path | None = None) -> str:
    """What the command prints; fails with all of it."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of a fresh environment: our wheel, and the packages that are installed here."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, symlinks=True)
    pip("--python", folder / "bin/python", "install", "--no-deps", "--no-index", wheel)
    (site,) = folder.glob("lib/python*/site-packages")
    # One folder more on the path: its own .pth files, the checkout's among them, are not read.
    (site / "packages.pth").write_text(sysconfig.get_path("purelib"))
    return folder / "bin/python"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Somebody's folder: modules with names that Stillwave once had, and shorter recipes for `rapid`."""
    for name in ("cache/__init__.py", "models/__init__.py", "configs/__init__.py", "analysis.py", "heads.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("raise ImportError('imported instead of ours')")
    (tmp_path / "pipeline").mkdir()
    (tmp_path / "configs/recipes").mkdir()
    for name in ("word_basic", "word_personalized"):
        recipe = yaml.safe_load((ROOT / f"configs/recipes/{name}.yaml").read_text())
        recipe["train"]["epochs"] = recipe["train"]["early_stopping"]["patience"] = 1
        (tmp_path / f"configs/recipes/{name}.yaml").write_text(yaml.safe_dump(recipe))
    return tmp_path


def words_of(demo: Path, table: Path) -> None:
    """A table for `rapid`: who is angry or sad in German, as if that were words."""
    rows = csv.DictReader((demo / "metadata.csv").read_text().splitlines())
    chosen = [row for row in rows if row["language"] == "de" and row["emotion"] in ("angry", "sad")]
    lines = [f"{demo / row['path']},{row['emotion']},{row['speaker']}" for row in chosen]
    table.write_text("\n".join(["file_path,word,speaker", *lines, ""]))


@pytest.fixture(scope="module")
def ours(source: Path) -> dict[str, bytes]:
    """Every file of Stillwave, by its path in a wheel."""
    below = {f"stillwave/{top}": source / top for top in (*TOPS, "configs")}
    below["stillwave"] = source / "src/stillwave"
    found = {
        f"{place}/{file.relative_to(folder).as_posix()}": file.read_bytes()
        for place, folder in below.items()
        for file in sorted(folder.rglob("*"))
        if file.is_file() and not {"notebooks", "__pycache__"} & {*file.parts}
    }
    for name in ("py.typed", "configs/recipes/fbank_demo.yaml", "analysis/report_page/report.css"):
        assert f"stillwave/{name}" in found
    return found


@pytest.mark.slow
def test_the_sdist_holds_files_in_place_of_the_links(sdist: Path, ours: dict[str, bytes]) -> None:
    found, meta = {}, set()
    with tarfile.open(sdist) as archive:
        for member in archive:
            assert member.isfile() or member.isdir(), member.name
            name = member.name.partition("/")[2]
            if name.startswith("src/stillwave/") and (file := archive.extractfile(member)):
                found[name.removeprefix("src/")] = file.read()
            elif member.isfile() and ".egg-info/" not in name:
                meta.add(name)
    assert found == ours
    assert meta == {"LICENSE", "PKG-INFO", "README.md", "pyproject.toml", "setup.cfg"}


@pytest.mark.slow
def test_the_wheel_from_the_sdist_holds_all_of_stillwave_and_nothing_else(
    wheel: Path, ours: dict[str, bytes]
) -> None:
    archive = ZipFile(wheel)
    names = {name for name in archive.namelist() if not name.startswith("stillwave-")}
    assert {name: archive.read(name) for name in names} == ours


@pytest.mark.slow
def test_the_wheel_works_in_a_folder_of_somebody_else(python: Path, folder: Path) -> None:
    assert run(python.with_name("stillwave"), "--version", cwd=folder).strip() == VERSION
    run(python, "-m", "stillwave", "demo", cwd=folder)
    words_of(folder / "data/corpora/demo", folder / "words.csv")
    run(python, "-c", SCRIPT, COMMANDS, cwd=folder)
    modules = (folder / "modules.txt").read_text().splitlines()
    assert len(modules) > 100
    assert [file for file in modules if not Path(file).is_relative_to(python.parents[1])] == []
    assert json.loads((folder / "runs/first/report/metrics.json").read_text())["n"] == 480
    (trained_on,) = json.loads((folder / "runs/first/run/environment.json").read_text())
    assert trained_on["git"] is None
    assert trained_on["libraries"]["stillwave"] == VERSION
    answers = [json.loads(line) for line in (folder / "answers.jsonl").read_text().splitlines()]
    assert len(answers) == 120
    assert (folder / "looked/pca_label.png").exists()
    summary = json.loads((folder / "runs/rapid/rapid_training_summary.json").read_text())
    assert summary["training_completed"]
    for page in ("explorer.html", "report.html"):
        assert "</html>" in (folder / page).read_text()
