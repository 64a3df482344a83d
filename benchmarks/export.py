"""An exported graph under onnxruntime against its run, on one clip of 3 s.

    python benchmarks/export.py [--repeats 20] [--threads 2] [--small]

wav2vec2-base with seeded weights and a segment head, trained for an epoch on clips of noise. The sides
alternate; the median of each counts.
  torch  the loaded Ensemble of `stillwave predict`, one model
  fp32   the graph of `stillwave export`
  int8   the same with 8-bit weights of its matrix products
Ends with one line of JSON: ms per clip, MiB, the times relative to torch's, and the largest differences of a
probability.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np
import onnxruntime
import pandas as pd
import soundfile
import torch
from numpy.typing import NDArray

from stillwave.pipeline.backbones.wav2vec2 import Wav2Vec2Config
from stillwave.pipeline.config.corpus import KFold
from stillwave.pipeline.config.recipe import Recipe
from stillwave.pipeline.corpora.manifest import read_manifest
from stillwave.pipeline.corpora.prepare import prepare
from stillwave.pipeline.corpora.table import Table
from stillwave.pipeline.extract.stage import extract
from stillwave.pipeline.predict.ensemble import Ensemble
from stillwave.pipeline.predict.export import export
from stillwave.pipeline.predict.reading import ClipInputs
from stillwave.pipeline.train.stage import train

RATE, CLIP_S = 16_000, 3


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--small", action="store_true", help="the tiny backbone, for a quick look")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    size = "tiny" if arguments.small else "base"
    figures: dict[str, object] = {"size": size, "threads": arguments.threads, "clip_s": CLIP_S}
    with tempfile.TemporaryDirectory() as name:
        run = noise_run(Path(name), size)
        plain, plain_difference = export(run, Path(name) / "fp32.onnx", fold=0)
        small, small_difference = export(run, Path(name) / "int8.onnx", fold=0, quantize="int8")
        ensemble = Ensemble(run, 0, device="cpu")
        clip = noise(CLIP_S * RATE, 99)
        turns = {
            "torch": lambda: ensemble([ClipInputs({"frames": clip})]),
            "fp32": runner(plain, clip, arguments.threads),
            "int8": runner(small, clip, arguments.threads),
        }
        seconds: dict[str, list[float]] = {side: [] for side in turns}
        for repeat in range(arguments.repeats + 2):  # the first two warm up
            for side, turn in turns.items():
                started = time.perf_counter()
                turn()
                if repeat >= 2:
                    seconds[side].append(time.perf_counter() - started)
        ms = {side: 1000 * median(times) for side, times in seconds.items()}
        figures |= {f"{side}_ms": round(value, 1) for side, value in ms.items()}
        figures |= {f"{side}_speedup": round(ms["torch"] / ms[side], 2) for side in ("fp32", "int8")}
        figures |= {
            f"{side}_mib": round(file.stat().st_size / 2**20, 1)
            for side, file in (("fp32", plain), ("int8", small))
        }
        figures |= {"fp32_difference": plain_difference, "int8_difference": small_difference}
    print(json.dumps(figures))


def runner(file: Path, clip: NDArray[np.float32], threads: int):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    inputs = {"waveform": clip[None], "lengths": np.array([len(clip)])}
    return lambda: session.run(["probabilities", "score"], inputs)


def noise_run(folder: Path, size: str) -> Path:
    """A run of one epoch on twelve clips of noise of two loudnesses."""
    for number in range(12):
        soundfile.write(folder / f"{number}.wav", noise(RATE, number) * (1 + number % 2), RATE)
    table = pd.DataFrame({"path": [f"{i}.wav" for i in range(12)], "loud": ["no", "yes"] * 6})
    table.to_csv(folder / "table.csv", index=False)
    corpus = Table(
        kind="table",
        table="table.csv",
        columns={"path": "path", "loud": "loud"},
        label="loud",
        split=KFold(kind="kfold", folds=2, group=None),
    )
    prepare(corpus, folder, folder / "manifest.parquet")
    manifest = read_manifest(folder / "manifest.parquet")
    backbone = Wav2Vec2Config(kind="wav2vec2", weights="random", size=size)  # type: ignore[arg-type]
    extract(backbone, manifest, folder / "e/wav2vec2.zarr")
    recipe = Recipe.model_validate(
        {"backbones": ["wav2vec2"], "label": "loud", "head": {"kind": "segment"}, "train": {"epochs": 1}}
    )
    return train(recipe, manifest, folder / "e", folder / "run", manifest_path=folder / "manifest.parquet")


def noise(samples: int, seed: int) -> NDArray[np.float32]:
    return (0.1 * np.random.default_rng(seed).standard_normal(samples)).astype(np.float32)


if __name__ == "__main__":
    main()
