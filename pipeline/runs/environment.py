"""What a run was trained on: the machine, the versions of libraries, the commit of the code."""

import json
import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from stillwave.pipeline.audio.files import write_if_changed
from stillwave.version import VERSION

FILE = "environment.json"
LIBRARIES = (
    "torch", "numpy", "scikit-learn", "transformers", "safetensors", "zarr", "accelerate", "soundfile",
    "soxr",
)  # fmt: skip
SOURCE = Path(__file__)


def environment(device: torch.device) -> dict[str, Any]:
    """What a run on `device` may depend on beside its config; JSON-ready, and without the time of day.

    `git` is the commit of Stillwave's own code, and whether tracked files differ from it; null where the code
    is not in a work tree. `gpu` is null where a CPU computes.
    """
    gpu = torch.cuda.get_device_properties(device) if device.type == "cuda" else None
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu": _processor(),
        "cpu_count": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": str(device),
        "gpu": gpu and {"name": gpu.name, "memory_gib": round(gpu.total_memory / 2**30, 1)},
        "cuda": torch.version.cuda,
        "libraries": {"stillwave": VERSION} | {name: _version(name) for name in LIBRARIES},
        "git": _commit(),
    }


def record(run: Path, device: torch.device) -> None:
    """Note in `<run>/environment.json` that this process trains the run.

    The file is a list: a run that resumes elsewhere, after a kill, was trained in several environments, and
    has them in order. One that resumes where it was adds nothing.
    """
    file, now = run / FILE, environment(device)
    before = read(run)
    if before[-1:] == [now]:
        return
    write_if_changed(file, (json.dumps([*before, now], indent=1) + "\n").encode())


def read(run: Path) -> list[dict[str, Any]]:
    """The environments that a run was trained in; empty where none was noted."""
    file = run / FILE
    if not file.exists():
        return []
    try:
        found: list[dict[str, Any]] = json.loads(file.read_text())
    except ValueError as error:
        raise ValueError(f"{file}: not JSON ({error}); delete it, or train the run again") from None
    return found


def _processor() -> str | None:
    """The model of the CPU, which Linux tells in a file only."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or None)


def _version(library: str) -> str | None:
    try:
        return version(library)
    except PackageNotFoundError:
        return None


def _commit() -> dict[str, Any] | None:
    """Asked of this very file: an environment within somebody's repository is not of that repository."""
    try:
        _git("ls-files", "--error-unmatch", SOURCE.name)
        changed = _git("status", "--porcelain", "--untracked-files=no", ":/")
        return {"commit": _git("rev-parse", "HEAD"), "dirty": bool(changed)}
    except (OSError, subprocess.SubprocessError):
        return None


def _git(*arguments: str) -> str:
    # No optional locks: training must not be in the way of a commit.
    command = ["git", "--no-optional-locks", *arguments]
    done = subprocess.run(command, cwd=SOURCE.parent, capture_output=True, text=True, check=True, timeout=20)
    return done.stdout.strip()
