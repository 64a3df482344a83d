"""The harness of the GPU benchmarks: a step that hangs, crashes or fails costs itself alone."""

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# A worker that does as the step's name says.
WORKER = """
import json, os, sys, time
for line in sys.stdin:
    name = line.strip()
    if name == "tests":
        time.sleep(60)
    if name == "retrain":
        os._exit(3)
    print(json.dumps({"error": "broken"} if name == "predict" else {"worker": os.getpid()}), flush=True)
    if name == "sanet":
        os._exit(4)  # only after its answer
"""


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> object:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import gpu  # type: ignore[import-not-found]

    monkeypatch.setitem(gpu.STEPS, "tests", 1)
    return gpu


@pytest.fixture
def start() -> Callable[[], "subprocess.Popen[str]"]:
    def start() -> "subprocess.Popen[str]":
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        return subprocess.Popen([sys.executable, "-c", WORKER], text=True, start_new_session=True, **pipes)

    return start


def test_a_step_that_hangs_crashes_or_fails_costs_itself_alone(gpu, start) -> None:  # type: ignore[no-untyped-def]
    names = ["ast_base", "tests", "mbert_base", "retrain", "sanet", "predict", "encodec_24khz", "ast_base"]
    found = []
    for found_now in gpu.run(names, start, time.monotonic() + 100):
        found.append(found_now)
        time.sleep(0.3)  # for the one that dies after its answer to be dead
    assert [name for name, _ in found] == names
    outcomes = [outcome for _, outcome in found]
    assert outcomes[1]["error"] == "took longer than its limit of 1 s"
    assert outcomes[3]["error"] == "the process ended with 3; see gpu.log"
    assert outcomes[5]["error"] == "broken"
    workers = [outcomes[i]["worker"] for i in (0, 2, 4, 6, 7)]
    assert len(set(workers)) == 4  # a new one after each of the three, and after one that died in silence
    assert workers[3] == workers[4]


def test_no_step_begins_after_the_deadline(gpu, start) -> None:  # type: ignore[no-untyped-def]
    assert list(gpu.run(["sanet"], start, time.monotonic() - 1)) == [("sanet", {"error": "no time was left"})]


def test_the_tables_name_what_failed(gpu) -> None:  # type: ignore[no-untyped-def]
    steps = {
        "tests": {"passed": 3, "error": "test_x"},
        "predict": {"bf16": {"warm_ms": 4.25, "bare_ms": 3.0}, "seconds": 2.0},
    }
    page = gpu.markdown({"machine": {"device": "H100", "driver": None}, "quick": False, "steps": steps})
    assert page.splitlines()[0] == "device H100."
    assert "Tests: 3 passed." in page
    assert "| bf16 | 4.25 | 3 |" in page
    assert "tests failed: test_x" in page


def test_without_such_a_device_one_line_and_exit_2(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "benchmarks/gpu.py"), "--device", "cuda:99", "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (2, "")
    assert done.stdout.count("\n") == 1
    assert "torch sees no device 'cuda:99' here" in done.stdout
