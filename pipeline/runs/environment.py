"""The environment of a training: the machine, the versions of libraries, the commit of the code."""

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
    "soxr", "av",
)  # fmt: skip
SOURCE = Path(__file__)


def environment(device: torch.device) -> dict[str, Any]:
    """What a run on `device` may depend on in addition to its config; JSON-ready, without the time of day.

    `git` is the commit of Stillwave's own code, and whether tracked files differ from it; null if the code is
    not in a work tree. `gpu` is null if a CPU computes.
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
    """Record in `<run>/environment.json` that this process trains the run.

    The file is a list: a run that is killed and resumes on another machine was trained in several
    environments, listed in order. A run that resumes where it was adds nothing.
    """
    file, now = run / FILE, environment(device)
    before = read(run)
    if before[-1:] == [now]:
        return
    write_if_changed(file, (json.dumps([*before, now], indent=1) + "\n").encode())


def read(run: Path) -> list[dict[str, Any]]:
    """The environments that a run was trained in; empty if none was recorded."""
    file = run / FILE
    if not file.exists():
        return []
    try:
        found: list[dict[str, Any]] = json.loads(file.read_text())
    except ValueError as error:
        raise ValueError(f"{file}: not JSON ({error}); delete it, or train the run again") from None
    return found


def _processor() -> str | None:
    """The model of the CPU, which Linux gives only in a file."""
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
    """Checked for this file: a virtual environment inside another repository is not part of it."""
    try:
        _git("ls-files", "--error-unmatch", SOURCE.name)
        changed = _git("status", "--porcelain", "--untracked-files=no", ":/")
        return {"commit": _git("rev-parse", "HEAD"), "dirty": bool(changed)}
    except (OSError, subprocess.SubprocessError):
        return None


def _git(*arguments: str) -> str:
    # No optional locks: training must not block a commit.
    command = ["git", "--no-optional-locks", *arguments]
    done = subprocess.run(command, cwd=SOURCE.parent, capture_output=True, text=True, check=True, timeout=20)
    return done.stdout.strip()
