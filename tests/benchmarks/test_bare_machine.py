"""The GPU benchmarks on a machine that has no more than benchmarks/gpu_wheels.py names."""

import os
import subprocess
import sys
import venv
from collections.abc import Iterable
from importlib.metadata import distribution, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from benchmarks.gpu_wheels import BUILT, IMAGE, WHEELS
from stillwave.version import VERSION

ROOT = Path(__file__).parents[2]
OURS = (
    "analysis", "benchmarks", "cache", "configs", "heads", "models", "pipeline", "pyproject.toml",
    "src/stillwave", "tests",
)  # fmt: skip
OF_3_11 = ("importlib-metadata", "lazy-importer", "zipp")  # what dask needs before Python 3.12
# Asks for all the models that the backbones' GPU tests write themselves.
MODELS = "tests/pipeline/backbones/test_contract_devices.py::test_what_has_no_other_precision_than_fp32"
COMMAND = ("benchmarks/gpu.py", "--device", "cpu", "--quick", "--out")


class Machine:
    """A checkout of ours that is not installed, and a Python that finds nothing beside it but `packages`.

    The packages are links to those that are installed here: so imports, versions, plugins, and all that the
    processes it starts ask for, agree on what is there.
    """

    def __init__(self, folder: Path, packages: Iterable[str]) -> None:
        venv.create(folder, symlinks=True)
        self.python, self.checkout = folder / "bin" / "python", folder / "checkout"
        (self.checkout / "src").mkdir(parents=True)
        for name in OURS:
            (self.checkout / name).symlink_to(ROOT / name)
        (site,) = folder.glob("lib/python*/site-packages")
        for package in map(distribution, packages):
            for name in {file.parts[0] for file in package.files or ()} - {"..", "__pycache__"}:
                if not (site / name).is_symlink():
                    (site / name).symlink_to(str(package.locate_file(name)))

    def run(self, *arguments: str | Path) -> "subprocess.CompletedProcess[str]":
        environment = os.environ | {"PYTHONPATH": str(self.checkout / "src"), "HF_HUB_OFFLINE": "1"}
        command = [self.python, *arguments]
        return subprocess.run(command, cwd=self.checkout, env=environment, capture_output=True, text=True)


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Machine:
    older = OF_3_11 if sys.version_info < (3, 12) else ()
    return Machine(tmp_path_factory.mktemp("machine"), {*with_needs(IMAGE), *WHEELS, *BUILT, *older})


def with_needs(names: Iterable[str]) -> set[str]:
    """Packages and what they need here, but nothing that Stillwave itself asks for."""
    ours, found = needs("stillwave"), set[str]()
    waiting: list[str] = [canonicalize_name(name) for name in names]
    while waiting:
        found.add(name := waiting.pop())
        waiting += needs(name) - ours - found
    return found


def needs(name: str) -> set[str]:
    requirements = map(Requirement, requires(name) or ())
    return {
        canonicalize_name(needed.name)
        for needed in requirements
        if needed.marker is None or needed.marker.evaluate({"extra": ""})
    }


def test_only_what_the_lists_name_is_there(machine: Machine) -> None:
    assert machine.run("-c", "import torch, zarr, distributed, stillwave").returncode == 0
    for name in ("dvclive", "bokeh", "umap", "python_stretch", "espeakng_loader"):
        assert f"No module named '{name}'" in machine.run("-c", f"import {name}").stderr
    asked = machine.run("-c", "from importlib.metadata import version; version('stillwave')")
    assert "PackageNotFoundError" in asked.stderr
    assert machine.run("-m", "stillwave", "--version").stdout.strip() == VERSION


def test_the_models_of_the_gpu_tests_need_no_more(machine: Machine) -> None:
    done = machine.run("-m", "pytest", "-p", "no:cacheprovider", MODELS)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]


@pytest.mark.slow
def test_the_gpu_benchmarks_need_no_more(machine: Machine, tmp_path: Path) -> None:
    done = machine.run(*COMMAND, tmp_path)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
