"""How smooth the explorer is: frames per second while a real drag pans 20,000 points in headless Chromium.

    python benchmarks/explorer.py [--rows 20000] [--seconds 5]

Writes an analysis of made-up rows (12 classes, so that markers differ too), its page, and opens it from the
file system. The mouse is pressed in the plot and moved in circles; a frame counts if the points have moved
since the one before. Both of Bokeh's backends are measured. Without a graphics card, as in a container,
Chromium draws everything in software, including WebGL, and the page then chooses the canvas. `load` is the
machine's load average: other work on its processors affects the figures. Ends with one line of JSON.
"""

import argparse
import json
import math
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service

from stillwave.analysis.explorer import write_explorer

CLASSES, SPEAKERS = 12, 80
OPTIONS = (
    "--headless=new", "--no-sandbox", "--no-first-run", "--disable-background-networking",
    "--hide-scrollbars", "--window-size=1400,900",
)  # fmt: skip
BACKENDS = {
    "canvas": ("--disable-gpu",),
    "webgl": ("--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--screenshot", type=Path, help="Keep a picture of the page here.")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        page = Path(scratch) / "explorer.html"
        folder = write_rows(Path(scratch) / "made_up", arguments.rows)
        started = time.perf_counter()
        write_explorer([folder], page)
        figures: dict[str, Any] = {
            "rows": arguments.rows,
            "page_mb": round(page.stat().st_size / 1e6, 2),
            "write_s": round(time.perf_counter() - started, 2),
            "load": round(os.getloadavg()[0], 1),
            "processors": os.cpu_count(),
        }
        print(f"{arguments.rows} rows: {figures['page_mb']} MB, written in {figures['write_s']} s")
        for backend, options in BACKENDS.items():
            with browser(Path(scratch) / backend, options) as driver:
                found = measure(driver, f"{page.as_uri()}#{backend}", arguments.seconds)
                if arguments.screenshot and backend == "webgl":
                    driver.save_screenshot(str(arguments.screenshot))
            figures[backend] = found
            print(f"{backend}: " + ", ".join(f"{name} {value}" for name, value in found.items()))
    print(json.dumps(figures))


def write_rows(folder: Path, rows: int) -> Path:
    """An analysis folder with two projections; its neighbours are random, at the same cost for the page."""
    rng = np.random.default_rng(0)
    folder.mkdir()
    label, speaker = rng.integers(0, CLASSES, rows), rng.integers(0, SPEAKERS, rows)
    angle = 2 * np.pi * label / CLASSES
    table = pd.DataFrame(
        {
            "id": [f"corpus/speaker_{s:03d}/utterance_{i:05d}" for i, s in enumerate(speaker)],
            "path": "",
            "label": [f"class {i}" for i in label],
            "speaker": [f"speaker {i}" for i in speaker],
            "language": np.where(speaker % 2, "de", "en"),
            "text": [f"this is the sentence that was said in utterance {i}" for i in range(rows)],
            "duration_s": rng.uniform(1, 9, rows),
            "confidence": rng.uniform(0, 1, rows),
        }
    )
    for name, spread in (("tsne", 2.5), ("pca", 6.0)):
        table[f"{name}_x"] = (10 * np.cos(angle) + spread * rng.standard_normal(rows)).astype(np.float32)
        table[f"{name}_y"] = (10 * np.sin(angle) + spread * rng.standard_normal(rows)).astype(np.float32)
    table.to_parquet(folder / "rows.parquet")
    np.save(folder / "neighbours_cosine.npy", rng.integers(0, rows, (rows, 10), dtype=np.int32))
    (folder / "analysis.json").write_text(json.dumps({"store": "made up", "dim": 768, "label": "label"}))
    return folder


@contextmanager
def browser(profile: Path, further: Sequence[str]) -> Iterator[Any]:
    found = {name: shutil.which(name) for name in ("chromium", "chromedriver")}
    if None in found.values():
        raise SystemExit("needs Chromium and its driver: apt-get install chromium chromium-driver")
    options = ChromeOptions()
    options.binary_location = str(found["chromium"])
    for option in (*OPTIONS, *further, f"--user-data-dir={profile}"):
        options.add_argument(option)
    driver = Chrome(options=options, service=Service(found["chromedriver"]))
    try:
        yield driver
    finally:
        driver.quit()


def measure(driver: Any, address: str, seconds: float) -> dict[str, Any]:
    """Load the page, pan it for `seconds`, filter it once."""
    started = time.perf_counter()
    driver.get(address)
    while not driver.execute_script("return document.documentElement.dataset.ready"):
        time.sleep(0.01)
    loaded = time.perf_counter() - started
    time.sleep(1)
    box = driver.execute_script("return document.getElementById('plot').getBoundingClientRect().toJSON()")
    middle = (box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)

    def mouse(kind: str, x: float, y: float) -> None:
        event = {"type": kind, "x": x, "y": y, "button": "left", "buttons": 1, "clickCount": 1}
        driver.execute_cdp_cmd("Input.dispatchMouseEvent", event)

    driver.execute_script(
        "window.ticks = [];"
        "const tick = (now) => { ticks.push([now, Bokeh.index.roots[0].model.x_range.start]);"
        "  requestAnimationFrame(tick) };"
        "requestAnimationFrame(tick); window.before = Bokeh.index.roots[0].model.x_range.start"
    )
    for _ in range(10):  # a press held before moving does not pan
        mouse("mousePressed", *middle)
        mouse("mouseMoved", middle[0] + 40, middle[1])
        if driver.execute_script("return Bokeh.index.roots[0].model.x_range.start !== before"):
            break
        mouse("mouseReleased", *middle)
    began, moves = time.perf_counter(), 0
    while (passed := time.perf_counter() - began) < seconds:
        mouse(
            "mouseMoved", middle[0] + 150 * math.sin(4 * passed), middle[1] + 90 * math.cos(4 * passed) - 90
        )
        moves += 1
    ticks = driver.execute_script("return ticks")
    mouse("mouseReleased", *middle)
    # frames that had to be drawn, because the view changed since the frame before
    triples = zip(ticks, ticks[1:], ticks[2:], strict=False)
    steps = sorted(after[0] - drawn[0] for before, drawn, after in triples if drawn[1] != before[1])
    if len(steps) < moves / 4:
        raise SystemExit(f"{moves} moves gave {len(steps)} views: the drag does not pan")
    time.sleep(0.5)
    filtered = driver.execute_async_script(
        "const done = arguments[0], s = document.getElementById('filter-label'), t = performance.now();"
        "s.value = '=class 1'; s.dispatchEvent(new Event('change'));"
        "requestAnimationFrame(() => requestAnimationFrame(() => done(performance.now() - t)))"
    )
    return {
        "load_s": round(loaded, 2),
        "fps_median": round(1000 / statistics.median(steps), 1),
        "frame_p95_ms": round(steps[int(0.95 * len(steps))], 1),
        "drawn": len(steps),
        "filter_ms": round(filtered),
    }


if __name__ == "__main__":
    main()
