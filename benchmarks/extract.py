"""Extraction against the bare forward pass, and against what users write today, over real speech.

    STILLWAVE_CORPORA=... python benchmarks/extract.py [--backbone configs/backbones/wav2vec2.yaml]
        [--precision bf16] [--files 96] [--repeats 3] [--device auto] [--batch-frames auto]

Seeded random weights of the true size. The sides take turns; each one's fastest turn counts.
  extract   `pipeline.extract`, from the planned rows to the complete store; loading the model is left out
  bare      model(batch) over the same batches, decoded and padded beforehand, in the same precision, one
            after the other with all of torch's threads
  side      the same, as many at once as extraction computes, each with one thread    (CPU only)
  one       transformers, one file at a time, fp32: decode, normalise, forward, np.save   (wav2vec2 only)
  padded    transformers, batches of 16 in the order of the files, zero-padded, fp32      (wav2vec2 only)
  workers   one process of one thread, and two such processes, on Dask                    (CPU only)
Speed is in seconds of audio (tokens for text) per second. Ends with one line of JSON.
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import soundfile
import soxr
import torch
from torch.utils.flop_counter import FlopCounterMode

from cache import Spec
from cache.batches import pad
from cache.layout import plan_units
from pipeline.backbones import build_backbone
from pipeline.backbones.weights import random_weights
from pipeline.config.backbone import BackboneConfig
from pipeline.config.base import load_config
from pipeline.config.corpus import CorpusConfig
from pipeline.device import pick_device
from pipeline.engine import Engine
from pipeline.extract import extract
from pipeline.manifest import read_manifest
from pipeline.prepare import prepare
from pipeline.rows import load, plan_rows

CONFIGS = Path(__file__).parents[1] / "configs"
SHARD_FRAMES = 1024  # so that a small corpus has several units


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--backbone", type=Path, default=CONFIGS / "backbones" / "wav2vec2.yaml")
    parser.add_argument("-S", dest="overrides", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--precision", choices=("fp32", "bf16", "fp16"), default="bf16")
    parser.add_argument("--files", type=int, default=96)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--batch-frames", default="auto")
    parser.add_argument("--skip", nargs="*", choices=("users", "workers"), default=[])
    arguments = parser.parse_args()
    overrides = ["weights=random", f"precision={arguments.precision}", *arguments.overrides]
    overrides.append(f"max_batch_frames={arguments.batch_frames}")
    config = load_config(arguments.backbone, BackboneConfig, overrides)
    device = pick_device(arguments.device)
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(config, device, speech(arguments.files, Path(folder)), Path(folder))
        figures = bench.run(arguments.repeats, arguments.skip)
    print(json.dumps(figures))


def speech(files: int, folder: Path) -> pd.DataFrame:
    """A manifest of `files` clips of EmoDB, spread over its speakers; its copy here is 2 s a clip."""
    corpora = os.environ.get("STILLWAVE_CORPORA")
    if not corpora:
        raise SystemExit("set STILLWAVE_CORPORA to the folder that holds emodb/")
    corpus = load_config(CONFIGS / "corpora" / "emodb7.yaml", CorpusConfig)
    prepare(corpus, Path(corpora) / "emodb", folder / "manifest.parquet")
    manifest = read_manifest(folder / "manifest.parquet")
    manifest["text"] = [f"{id_} " * 12 for id_ in manifest["id"]]  # EmoDB has no transcripts
    chosen = np.linspace(0, len(manifest) - 1, min(files, len(manifest))).astype(int)
    return manifest.iloc[chosen].reset_index(drop=True)


class Bench:
    """The sides, over one corpus."""

    def __init__(
        self, config: BackboneConfig, device: torch.device, manifest: pd.DataFrame, folder: Path
    ) -> None:
        self.config, self.device, self.manifest, self.folder = config, device, manifest, folder
        self.audio_s = float(manifest["duration_s"].sum())
        self.model = build_backbone(config)
        self.runs = 0

    def run(self, repeats: int, skip: list[str]) -> dict[str, Any]:
        where = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else "CPU"
        threads = torch.get_num_threads()
        print(f"{self.config.kind} {self.config.precision} on {where}, {threads} threads, "
              f"{len(self.manifest)} files, {self.audio_s:.0f} s of speech")  # fmt: skip
        batches = self.batches()
        sides: dict[str, Callable[[], float]] = {"extract": self.extract, "bare": lambda: self.bare(batches)}
        if self.device.type == "cpu":
            sides["side"] = lambda: self.side_by_side(batches)
        users = self.config.kind == "wav2vec2" and "users" not in skip
        if users:
            sides |= {"one": self.one_at_a_time, "padded": self.padded}
        for side in sides.values():
            side()  # warms up
        seconds: dict[str, list[float]] = {name: [] for name in sides}
        for _ in range(repeats):
            for name, side in sides.items():
                seconds[name].append(side())
        best = {name: min(values) for name, values in seconds.items()}
        if self.device.type == "cpu" and "workers" not in skip:
            best |= {f"workers_{n}": self.on_workers(n) for n in (1, 2)}
        return self.report(best, seconds, batches, users)

    def extract(self, **options: Any) -> float:
        """Seconds from the first unit to the complete store."""
        self.runs += 1
        out = self.folder / f"{self.runs}.zarr"
        result = extract(
            self.config, self.manifest, out, device=str(self.device), shard_frames=SHARD_FRAMES, **options
        )
        assert result.rows == len(self.manifest)
        self.stages = result.seconds
        return result.seconds["wall"] - result.seconds["plan"]

    def batches(self) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """The very batches of an extraction, on the device."""
        rows, sources, _ = plan_rows(self.model, self.manifest, None)
        lengths = {row.item: row.length for row in rows}
        spec = Spec(dim=self.model.dim, layers=0, shard_frames=SHARD_FRAMES)
        units = plan_units(list(lengths), np.array(list(lengths.values())), spec.shard_frames)
        with Engine(self.model, self.config, self.device) as engine:
            print(f"batches of at most {engine.max_frames} frames, {engine.threads} at once")
            planned = [batch for unit in units for batch in engine.batches(unit)]
        arrays = [pad([np.asarray(load(self.model, sources[item])) for item in batch]) for batch in planned]
        return [(torch.from_numpy(a).to(self.device), torch.from_numpy(n).to(self.device)) for a, n in arrays]

    def bare(self, batches: list[tuple[torch.Tensor, torch.Tensor]]) -> float:
        """model(batch), with all of torch's threads and the weights held in the precision."""
        started = time.perf_counter()
        with torch.inference_mode():
            for batch in batches:
                self.model(*batch)
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - started

    def side_by_side(self, batches: list[tuple[torch.Tensor, torch.Tensor]]) -> float:
        """model(batch) in threads, as the engine does it, and nothing else."""

        def forward(batch: tuple[torch.Tensor, torch.Tensor]) -> None:
            with torch.inference_mode():
                self.model(*batch)

        threads = torch.get_num_threads()
        started = time.perf_counter()
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            list(pool.map(forward, batches))
        torch.set_num_threads(threads)
        return time.perf_counter() - started

    def gpu_busy(self) -> float:
        """Part of an extraction's time in which a kernel or a copy ran on the GPU."""
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
            seconds = self.extract()
        return min(1.0, sum(event.self_device_time_total for event in profile.key_averages()) / 1e6 / seconds)

    def one_at_a_time(self) -> float:
        """What is written first: a loop over the files."""
        model = self.transformers_model()
        (self.folder / "npy").mkdir(exist_ok=True)
        started = time.perf_counter()
        with torch.inference_mode():
            for path, id_ in zip(self.manifest["path"], self.manifest["id"], strict=True):
                values = torch.from_numpy(normalised(path))[None].to(self.device)
                frames = model(values).last_hidden_state[0].cpu().numpy()
                np.save(self.folder / "npy" / f"{Path(id_).name}.npy", frames)
        return time.perf_counter() - started

    def padded(self) -> float:
        """What is written next: batches of 16, zeros behind the shorter ones, no mask (as the model asks)."""
        model = self.transformers_model()
        paths = self.manifest["path"].tolist()
        started = time.perf_counter()
        with torch.inference_mode():
            for first in range(0, len(paths), 16):
                values, _ = pad([normalised(path) for path in paths[first : first + 16]])
                frames = model(torch.from_numpy(values).to(self.device)).last_hidden_state.cpu().numpy()
                for row, frame in enumerate(frames):
                    np.save(self.folder / "npy" / f"padded-{first + row}.npy", frame)
        return time.perf_counter() - started

    def transformers_model(self) -> Any:
        from transformers import Wav2Vec2Config, Wav2Vec2Model

        if not hasattr(self, "_theirs"):
            model = random_weights(0, lambda: Wav2Vec2Model(Wav2Vec2Config()))
            self._theirs = model.eval().to(self.device)
        return self._theirs

    def padding_error(self) -> float:
        """Mean relative error of a clip's frames when it is zero-padded by half, in transformers' model."""
        model, errors = self.transformers_model(), []
        with torch.inference_mode():
            for path in self.manifest["path"][:8]:
                alone = torch.from_numpy(normalised(path))[None].to(self.device)
                expected = model(alone).last_hidden_state[0]
                padded = torch.nn.functional.pad(alone, (0, alone.shape[1] // 2))
                frames = model(padded).last_hidden_state[0, : len(expected)]
                errors.append(float((frames - expected).norm() / expected.norm()))
        return float(np.mean(errors))

    def on_workers(self, count: int) -> float:
        """Seconds on `count` processes of one thread that have started and loaded the model."""
        from distributed import Client, LocalCluster

        options = {"threads_per_worker": 1, "processes": True, "dashboard_address": ":0", "memory_limit": 0}
        with LocalCluster(n_workers=count, **options) as cluster, Client(cluster):
            self.extract(scheduler=cluster.scheduler_address)
            return min(self.extract(scheduler=cluster.scheduler_address) for _ in range(2))

    def report(
        self,
        best: dict[str, float],
        seconds: dict[str, list[float]],
        batches: list[tuple[torch.Tensor, torch.Tensor]],
        users: bool,
    ) -> dict[str, Any]:
        amount = (
            self.audio_s if self.model.modality == "audio" else float(sum(int(n.sum()) for _, n in batches))
        )
        for name, value in best.items():
            turns = ", ".join(f"{turn:.2f}" for turn in seconds.get(name, []))
            print(f"{name:10} {value:8.2f} s  {amount / value:8.1f} /s  {turns}")
        stages = {name: round(value, 2) for name, value in self.stages.items()}
        print(f"stages of the last extraction, seconds of threads side by side: {stages}")
        flops = self.flops(batches)
        peak = matmul_peak(self.device)
        figures: dict[str, Any] = {
            "kind": self.config.kind,
            "precision": self.config.precision,
            "per_s": round(amount / best["extract"], 2),
            "extract_over_bare": round(best["extract"] / best["bare"], 3),
            "tflops": round(flops / best["extract"] / 1e12, 3),
            "bf16_matmul_peak_tflops": round(peak / 1e12, 3),
            "of_peak": round(flops / best["extract"] / peak, 3),
        }
        if "side" in best:
            figures["extract_over_side"] = round(best["extract"] / best["side"], 3)
        if self.device.type == "cuda":
            figures["gpu_busy"] = round(self.gpu_busy(), 3)
        if users:
            figures["one_over_extract"] = round(best["one"] / best["extract"], 3)
            figures["padded_over_extract"] = round(best["padded"] / best["extract"], 3)
            figures["padding_error"] = round(self.padding_error(), 3)
        if "workers_2" in best:
            figures["workers_1_over_2"] = round(best["workers_1"] / best["workers_2"], 3)
        return figures

    def flops(self, batches: list[tuple[torch.Tensor, torch.Tensor]]) -> float:
        """Multiplications and additions of all batches, padding included."""
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            for batch in batches:
                self.model(*batch)
        return float(counter.get_total_flops())


def normalised(path: str) -> np.ndarray:
    """A file as transformers' feature extractor hands it over: 16 kHz, zero mean, unit variance."""
    values, rate = soundfile.read(path, dtype="float32")
    values = soxr.resample(values, rate, 16_000) if rate != 16_000 else values
    return ((values - values.mean()) / np.sqrt(values.var() + 1e-7)).astype(np.float32)


def matmul_peak(device: torch.device) -> float:
    """Operations per second of a large bf16 matrix product on the device."""
    size = 8192 if device.type == "cuda" else 2048
    left = torch.randn(size, size, device=device).bfloat16()
    best = float("inf")
    for _ in range(5):
        started = time.perf_counter()
        left @ left
        if device.type == "cuda":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - started)
    return 2 * size**3 / best


if __name__ == "__main__":
    main()
