"""GPU tests, then GPU benchmarks, most important first.

    make gpu
    python benchmarks/gpu.py [--device cuda] [--quick] [--minutes 9] [--out reports/gpu] [--only STEP ...]

Needs no network, no DVC and no installation of Stillwave: benchmarks/gpu_wheels.py lists the packages.
Weights are seeded, with the real sizes; the corpus is generated, 2 to 15 s per clip. Each step has its own
time limit, and all together --minutes; after each, gpu.json and gpu.md are rewritten in --out, so that no
measurement is lost. --quick: tiny models and a handful of clips, to check that everything runs; with --device
cpu this works everywhere. Exits with 2 if the device is missing, with 1 if a step failed.
"""

import argparse
import json
import os
import platform
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import IO, Any

from gpu_report import markdown  # next to this file

Worker = subprocess.Popen[str]
ROOT = Path(__file__).parents[1]
# In order of importance, with the most seconds each may take.
STEPS = {
    "tests": 180,
    "wav2vec2_base": 90,
    "retrain": 90,
    "predict": 45,
    "fastconformer_large": 60,
    "wav2vec2_large": 60,
    "encodec_24khz": 60,
    "mbert_base": 30,
    "ast_base": 60,
    "sanet": 60,
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--minutes", type=float, default=9.0)
    parser.add_argument("--out", type=Path, default=ROOT / "reports" / "gpu")
    parser.add_argument("--only", nargs="+", choices=STEPS, default=list(STEPS), metavar="STEP")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the worker is stopped, too
    machine = describe(arguments.device)
    if machine is None:
        print(f"make gpu: torch sees no device {arguments.device!r} here; run it on a machine with a GPU")
        sys.exit(2)
    arguments.out.mkdir(parents=True, exist_ok=True)
    results: dict[str, Any] = {"machine": machine, "quick": arguments.quick, "steps": {}}
    deadline = time.monotonic() + 60 * arguments.minutes
    with tempfile.TemporaryDirectory() as folder, (arguments.out / "gpu.log").open("w") as log:
        start_worker = partial(start, arguments.device, arguments.quick, Path(folder), log)
        for name, outcome in run(arguments.only, start_worker, deadline):
            results["steps"][name] = outcome
            (arguments.out / "gpu.json").write_text(json.dumps(results, indent=1) + "\n")
            (arguments.out / "gpu.md").write_text(markdown(results))
            print(f"{name}: {json.dumps(outcome)}", flush=True)
    print(markdown(results))
    sys.exit(any("error" in outcome for outcome in results["steps"].values()))


def describe(device: str) -> dict[str, Any] | None:
    """Card, driver and versions, or None if there is no such device."""
    try:
        versions = {"python": platform.python_version(), "torch": version("torch")}
    except PackageNotFoundError:
        return None
    found: dict[str, Any] = versions | {"cpus": os.cpu_count()}
    if not device.startswith("cuda"):
        return {"device": device} | found
    import torch  # here: importing takes seconds

    if not torch.cuda.is_available():
        return None
    card = torch.cuda.get_device_properties(torch.device(device))
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    driver = None
    if shutil.which(query[0]):
        shown = subprocess.run(query, capture_output=True, text=True, check=False, timeout=20).stdout
        driver = shown.partition("\n")[0]
    memory = f"{card.total_memory / 2**30:.0f} GiB"
    return {"device": card.name, "memory": memory, "driver": driver, "cuda": torch.version.cuda} | found


def run(
    names: list[str], start_worker: Callable[[], Worker], deadline: float
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each step's name and outcome, from one process that imports and starts CUDA once.

    A step that fails, or exceeds its limit, ends the process; the next one gets a new process.
    """
    worker = None
    try:
        for name in names:
            started = time.monotonic()
            limit = min(STEPS[name], deadline - started)
            if limit <= 0:
                yield name, {"error": "no time was left"}
                continue
            if worker is not None and worker.poll() is not None:  # stopped after its last answer
                stop(worker)
                worker = None
            worker = worker or start_worker()
            outcome = ask(worker, name, limit)
            if "error" in outcome:
                stop(worker)
                worker = None
            yield name, outcome | {"seconds": round(time.monotonic() - started, 1)}
    finally:
        if worker is not None:
            stop(worker)


def start(device: str, quick: bool, folder: Path, log: IO[str]) -> Worker:
    """A process that reads names of steps and answers each with a line of JSON."""
    script = ROOT / "benchmarks" / "gpu_steps.py"
    environment = os.environ | {
        "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
        "HF_HUB_OFFLINE": "1",
        "PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT / "src"), os.environ.get("PYTHONPATH")))),
    }
    return subprocess.Popen(
        [sys.executable, str(script), device, str(folder), str(int(quick))],
        cwd=ROOT,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log,
        text=True,
        start_new_session=True,  # so that all its children can be stopped with it
    )


def ask(worker: Worker, name: str, limit: float) -> dict[str, Any]:
    """The worker's figures of a step, or an `error`."""
    assert worker.stdin is not None
    assert worker.stdout is not None
    try:
        worker.stdin.write(f"{name}\n")
        worker.stdin.flush()
    except OSError:
        return {"error": f"the process had ended with {worker.wait()} before it; see gpu.log"}
    with selectors.DefaultSelector() as selector:
        selector.register(worker.stdout, selectors.EVENT_READ)
        if not selector.select(limit):
            return {"error": f"took longer than its limit of {limit:.0f} s"}
    line = worker.stdout.readline()
    if not line:
        return {"error": f"the process ended with {worker.wait()}; see gpu.log"}
    answer: dict[str, Any] = json.loads(line)
    return answer


def stop(worker: Worker) -> None:
    """Stop the worker and all its children."""
    with suppress(ProcessLookupError):
        os.killpg(worker.pid, signal.SIGKILL)
    worker.wait()
    for pipe in (worker.stdin, worker.stdout):
        if pipe is not None:
            with suppress(OSError):  # it may not have read its last input
                pipe.close()


if __name__ == "__main__":
    main()
