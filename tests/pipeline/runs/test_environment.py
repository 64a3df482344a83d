"""What is noted of the place where a run was trained."""

import subprocess
from pathlib import Path

import numpy
import pytest
import torch

from stillwave.pipeline.runs import environment

CPU = torch.device("cpu")


def test_it_names_the_machine_and_the_libraries() -> None:
    found = environment.environment(CPU)
    assert found["libraries"]["torch"] == torch.__version__
    assert found["libraries"]["numpy"] == numpy.__version__
    assert found["threads"] == torch.get_num_threads()
    assert (found["device"], found["gpu"]) == ("cpu", None)
    assert found == environment.environment(CPU)  # no time of day, no draw


def test_a_run_that_goes_on_elsewhere_has_both_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment.record(tmp_path, CPU)
    environment.record(tmp_path, CPU)
    (here,) = environment.read(tmp_path)
    monkeypatch.setattr(environment.platform, "python_version", lambda: "3.99.0")
    environment.record(tmp_path, CPU)
    monkeypatch.undo()
    environment.record(tmp_path, CPU)  # and back
    assert environment.read(tmp_path) == [here, here | {"python": "3.99.0"}, here]


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    assert environment.read(tmp_path) == []
    (tmp_path / "environment.json").write_text("[")
    with pytest.raises(ValueError, match=r"environment\.json: not JSON"):
        environment.read(tmp_path)


def test_the_commit_is_that_of_the_code_and_of_no_repository_around_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = tmp_path / "code.py"
    code.write_text("a = 1\n")
    monkeypatch.setattr(environment, "SOURCE", code)
    assert environment.environment(CPU)["git"] is None
    git(tmp_path, "init", "-q")
    (tmp_path / "other").touch()
    git(tmp_path, "add", "other")
    git(tmp_path, "commit", "-qm", "without the code")
    assert environment.environment(CPU)["git"] is None
    git(tmp_path, "add", "code.py")
    git(tmp_path, "commit", "-qm", "with it")
    commit = git(tmp_path, "rev-parse", "HEAD")
    assert environment.environment(CPU)["git"] == {"commit": commit, "dirty": False}
    code.write_text("a = 2\n")
    assert environment.environment(CPU)["git"] == {"commit": commit, "dirty": True}


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=test", "-c", "user.email=test@example.org"]
    done = subprocess.run(
        ["git", *identity, *arguments], cwd=folder, check=True, capture_output=True, text=True
    )
    return done.stdout.strip()
