"""One clip: the command from a cold start, and a loaded Predictor next to its backbone's bare forward pass.

    python benchmarks/predict.py [--repeats 20] [--size base] [--folds 1]

The runs are made here, in a temporary folder: log-mel frames, and wav2vec 2.0 with seeded weights of that
size, in fp32 and bf16; a head trained for an epoch on clips of noise, because its numbers do not affect the
time.
  cold  wall seconds of `stillwave predict --run RUN clip.wav` for the log-mel run, including the
        interpreter's start
  warm  ms of `predictor(samples, 16000)` for one clip of 3 s: resampling, backbone, every fold's head,
        calibration and open-set score. If there is a GPU, the first one is measured, too
  bare  ms of the same backbone's forward pass on the same tensor
Medians. Ends with one line of JSON.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch

from stillwave.pipeline.backbones.fbank import FbankConfig
from stillwave.pipeline.backbones.wav2vec2 import Wav2Vec2Config
from stillwave.pipeline.config.corpus import KFold
from stillwave.pipeline.config.recipe import Recipe
from stillwave.pipeline.corpora.manifest import read_manifest
from stillwave.pipeline.corpora.prepare import prepare
from stillwave.pipeline.corpora.table import Table
from stillwave.pipeline.extract.stage import extract
from stillwave.pipeline.predict.predictor import Predictor
from stillwave.pipeline.train.stage import train

RATE, SECONDS = 16_000, 3.0


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--size", choices=("tiny", "base", "large"), default="base")
    parser.add_argument("--folds", type=int, default=1, help="number of the run's models")
    arguments = parser.parse_args()
    figures: dict[str, object] = {"size": arguments.size, "threads": torch.get_num_threads()}
    with tempfile.TemporaryDirectory() as name:
        folder = corpus(Path(name), max(2, arguments.folds))
        run = made(folder, "fbank", FbankConfig(kind="fbank"))
        seconds = [cold(run, folder / "wav/00.wav") for _ in range(5)]
        figures["cold_s"] = round(float(np.median(seconds)), 2)
        print(f"cold start of the command, log-mel run: {figures['cold_s']} s ({min(seconds):.2f} at best)")
        for precision in ("fp32", "bf16"):
            config = Wav2Vec2Config(
                kind="wav2vec2", weights="random", size=arguments.size, precision=precision
            )
            run = made(folder, precision, config)
            for device in ("cpu", *(["cuda"] if torch.cuda.is_available() else [])):
                fold = 0 if arguments.folds == 1 else None
                warm_ms, bare_ms = warm(Predictor.load(run, fold, device=device), arguments.repeats)
                figures[f"{device}_{precision}"] = {
                    "warm_ms": round(warm_ms, 2),
                    "bare_ms": round(bare_ms, 2),
                    "ratio": round(warm_ms / bare_ms, 3),
                }
                print(f"{device} {precision}: warm {warm_ms:.2f} ms, bare {bare_ms:.2f} ms", flush=True)
    print(json.dumps(figures))


def corpus(folder: Path, folds: int) -> Path:
    """Clips of noise of two labels and as many speakers as folds, and their manifest."""
    rng = np.random.default_rng(0)
    (folder / "wav").mkdir()
    lines = ["path,emotion,speaker"]
    for i in range(4 * folds):
        noise = 0.1 * rng.standard_normal(int(SECONDS * RATE))
        soundfile.write(folder / "wav" / f"{i:02d}.wav", noise, RATE)
        lines.append(f"wav/{i:02d}.wav,e{i % 2},s{i // 4}")
    (folder / "table.csv").write_text("\n".join([*lines, ""]))
    columns = {name: name for name in ("path", "emotion", "speaker")}
    split = KFold(kind="kfold", folds=folds)
    prepare(
        Table(kind="table", table="table.csv", columns=columns, split=split),
        folder,
        folder / "manifest.parquet",
    )
    return folder


def made(folder: Path, name: str, config: Any) -> Path:
    """A run on the frames of a backbone."""
    manifest = read_manifest(folder / "manifest.parquet")
    extract(config, manifest, folder / f"{name}.zarr")
    head = {"kind": "segment", "num_heads": 8}
    recipe = Recipe.model_validate({"backbones": [name], "head": head, "train": {"epochs": 1}})
    return train(recipe, manifest, folder, folder / f"run_{name}", manifest_path=folder / "manifest.parquet")


def cold(run: Path, clip: Path) -> float:
    """Wall seconds of the command."""
    command = [
        sys.executable,
        "-m",
        "stillwave.pipeline.cli",
        "predict",
        "--run",
        str(run),
        "--device",
        "cpu",
        str(clip),
    ]
    started = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - started


def warm(predictor: Predictor, repeats: int) -> tuple[float, float]:
    """Median ms of a prediction for a clip, and of the bare forward pass; alternating."""
    device, encoder = predictor.models.device, predictor.models.encoders["frames"]
    samples = np.random.default_rng(1).normal(0, 0.1, int(SECONDS * RATE)).astype(np.float32)
    batch = torch.from_numpy(samples)[None].to(device)
    lengths = torch.tensor([len(samples)])

    def bare() -> None:
        with torch.inference_mode():
            encoder(batch, lengths)

    def answer() -> None:
        predictor(samples, RATE)

    times: dict[Callable[[], None], list[float]] = {answer: [], bare: []}
    for turn in range(repeats + 3):
        for side, found in times.items():
            started = time.perf_counter()
            side()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            if turn >= 3:  # the first turns allocate and tune
                found.append(1000 * (time.perf_counter() - started))
    return float(np.median(times[answer])), float(np.median(times[bare]))


if __name__ == "__main__":
    main()
