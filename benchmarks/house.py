"""The code in figures: modules and lines per folder, and the modules that one extract and one train enter.

    python benchmarks/house.py

A module is entered when one of its functions runs. Ends with one line of JSON.
"""

import json
import statistics
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

ROOT = Path(__file__).parents[1]
TOPS = ("cache", "heads", "pipeline", "analysis", "models")


def rooms() -> dict[str, list[int]]:
    """The lines of every module but `__init__`, by folder."""
    found: dict[str, list[int]] = defaultdict(list)
    for top in TOPS:
        for file in (ROOT / top).rglob("*.py"):
            parts = file.relative_to(ROOT).parts[:-1]
            if file.name != "__init__.py":
                found["/".join(parts)].append(len(file.read_text().splitlines()))
    return dict(found)


def entered(work: Callable[[], Any]) -> set[str]:
    """The modules of Stillwave with a function that ran in this thread or in threads that it started."""
    import threading

    found: set[str] = set()

    def note(frame: FrameType, event: str, _: Any) -> None:
        if event == "call":
            found.add(frame.f_globals.get("__name__", ""))

    threading.setprofile(note)
    sys.setprofile(note)
    try:
        work()
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    tops = tuple(f"{prefix}{top}." for top in TOPS for prefix in ("stillwave.", ""))
    return {name for name in found if name.startswith(tops)}


def extract_and_train(folder: Path) -> tuple[set[str], set[str]]:
    """The modules entered for log-mel frames of eight clips of noise, and for a segment head."""
    from synthetic import synthetic  # next to this file

    from stillwave.pipeline.backbones.fbank import FbankConfig
    from stillwave.pipeline.config.recipe import Recipe
    from stillwave.pipeline.extract.stage import extract
    from stillwave.pipeline.train.stage import train

    manifest = synthetic(folder, 24)
    settings = {"head": {"kind": "segment"}, "train": {"epochs": 1}, "backbones": ["fbank"]}
    recipe = Recipe.model_validate({"label": "emotion", **settings})
    first = entered(lambda: extract(FbankConfig(kind="fbank"), manifest, folder / "fbank.zarr", device="cpu"))
    run = folder / "run"
    second = entered(lambda: train(recipe, manifest, folder, run, manifest_path="m", device="cpu"))
    return first, second


def main() -> None:
    found = rooms()
    for room, lines in sorted(found.items()):
        print(f"{room:32} {len(lines):3} modules {sum(lines):6} lines")
    every = [lines for room in found.values() for lines in room]
    with tempfile.TemporaryDirectory() as folder:
        first, second = extract_and_train(Path(folder))
    figures = {
        "modules": len(every),
        "lines": sum(every),
        "median": statistics.median(every),
        "most_in_a_room": max(map(len, found.values())),
        "extract_enters": len(first),
        "train_enters": len(second),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
