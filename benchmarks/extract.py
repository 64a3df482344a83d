"""Extraction against the bare forward pass, and against typical scripts.

    [STILLWAVE_CORPORA=...] python benchmarks/extract.py [--backbone configs/backbones/wav2vec2.yaml]
        [--precision bf16] [--files 96] [--repeats 3] [--device auto] [--batch-frames auto]

EmoDB if available, else generated sound (synthetic.py).

Seeded random weights of the real size. The sides alternate; the fastest run of each counts.
  extract   `stillwave.extract`, from the planned rows to the complete store; without loading the model
  bare      model(batch) over the same batches, decoded and padded beforehand, in the same precision, one
            after the other with all of torch's threads
  side      the same, as many at once as extraction computes, each with one thread    (CPU only)
  one       one file at a time, fp32: decode, forward, np.save; with transformers' own model for wav2vec 2.0,
            ours for the others, over the first 96 files
  padded    the same in batches of 16 in file order, zero-padded
  workers   one process of one thread, and two such processes, on Dask                    (CPU only)
Speed is in seconds of audio (tokens for text) per second. Ends with one line of JSON.
"""

import argparse
import json
import math
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from naive import Naive  # next to this file
from synthetic import synthetic
from torch.autograd import DeviceType
from torch.utils.flop_counter import FlopCounterMode

from stillwave.cache import Spec
from stillwave.cache.batches import pad
from stillwave.cache.layout import plan_units
from stillwave.pipeline.backbones import BackboneConfig, build_backbone, load_backbone
from stillwave.pipeline.backbones.device import pick_device
from stillwave.pipeline.config.base import load_config
from stillwave.pipeline.corpora import CorpusConfig
from stillwave.pipeline.corpora.manifest import read_manifest
from stillwave.pipeline.corpora.prepare import prepare
from stillwave.pipeline.extract.engine import Engine
from stillwave.pipeline.extract.rows import load, plan_rows
from stillwave.pipeline.extract.stage import extract

CONFIGS = Path(__file__).parents[1] / "configs"
SHARD_FRAMES = 1024  # so that a small corpus has several units; on a GPU the default, as shards limit batches
NAIVE_FILES = 96  # for the sides that take files one by one; on a GPU a third, which suffices


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
    config = load_backbone(arguments.backbone, overrides)
    device = pick_device(arguments.device)
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(config, device, speech(arguments.files, Path(folder)), Path(folder))
        figures = bench.run(arguments.repeats, arguments.skip)
    print(json.dumps(figures))


def speech(files: int, folder: Path) -> pd.DataFrame:
    """A manifest of `files` clips of EmoDB, spread over its speakers, or of generated sound."""
    corpora = os.environ.get("STILLWAVE_CORPORA")
    if not corpora:
        return synthetic(folder, files)
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
        self.gpu = device.type == "cuda"
        self.shards: dict[str, int] = {} if self.gpu else {"shard_frames": SHARD_FRAMES}
        self.naive_files = NAIVE_FILES // 3 if self.gpu else NAIVE_FILES
        self.model = build_backbone(config)
        rows, self.sources, _ = plan_rows(self.model, manifest, None)
        self.lengths = {row.item: row.length for row in rows}
        self.runs = 0

    def run(self, repeats: int, skip: list[str]) -> dict[str, Any]:
        where = torch.cuda.get_device_name(self.device) if self.gpu else "CPU"
        threads = torch.get_num_threads()
        print(f"{self.config.kind} {self.config.precision} on {where}, {threads} threads, "
              f"{len(self.manifest)} files, {self.manifest['duration_s'].sum():.0f} s of speech")  # fmt: skip
        batches = self.batches()
        sides: dict[str, Callable[[], float]] = {"extract": self.extract, "bare": lambda: self.bare(batches)}
        if not self.gpu:
            sides["side"] = lambda: self.side_by_side(batches)
        naive = None
        if "users" not in skip:
            some = list(self.sources.values())[: self.naive_files]
            naive = Naive(self.config, self.model, some, self.device, self.folder / f"npy-{self.config.kind}")
            sides |= {"one": naive.one_at_a_time, "padded": naive.padded}
        seconds: dict[str, list[float]] = {}
        for name, side in sides.items():
            seconds[name] = [side()]
            print(f"{name} took {seconds[name][0]:.2f} s at first", flush=True)
        if repeats:
            seconds = {name: [] for name in sides}  # the first run warmed up
        for _ in range(repeats):
            for name, side in sides.items():
                seconds[name].append(side())
        best = {name: min(values) for name, values in seconds.items()}
        if not self.gpu and "workers" not in skip:
            best |= {f"workers_{n}": self.on_workers(n) for n in (1, 2)}
        return self.report(best, seconds, batches, naive)

    def extract(self, **options: Any) -> float:
        """Seconds from the first unit to the complete store."""
        self.runs += 1
        out = self.folder / f"{self.config.kind}-{self.runs}.zarr"
        self.result = extract(
            self.config, self.manifest, out, device=str(self.device), **self.shards, **options
        )
        assert self.result.rows == len(self.manifest)
        shutil.rmtree(out)
        return self.result.seconds["wall"] - self.result.seconds["plan"]

    def batches(self) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Exactly the batches of an extraction: values on the device, lengths on the host."""
        spec = Spec(dim=self.model.dim, layers=0, **self.shards)
        units = plan_units(list(self.lengths), np.array(list(self.lengths.values())), spec.shard_frames)
        with Engine(self.model, self.config, self.device) as engine:
            print(f"batches of at most {engine.max_frames} frames, {engine.threads} at once")
            planned = [batch for unit in units for batch in engine.batches(unit)]
        loaded = {item: np.asarray(load(self.model, source)) for item, source in self.sources.items()}
        arrays = [pad([loaded[item] for item in batch]) for batch in planned]
        return [(torch.from_numpy(a).to(self.device), torch.from_numpy(n)) for a, n in arrays]

    def bare(self, batches: list[tuple[torch.Tensor, torch.Tensor]]) -> float:
        """model(batch), with all of torch's threads with the weights in the precision."""
        started = time.perf_counter()
        with torch.inference_mode():
            for batch in batches:
                self.model(*batch)
        if self.gpu:
            torch.cuda.synchronize()
        return time.perf_counter() - started

    def side_by_side(self, batches: list[tuple[torch.Tensor, torch.Tensor]]) -> float:
        """Only model(batch) in threads, as in the engine."""

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
        """The fraction of an extraction's time in which a kernel or a copy ran on the GPU."""
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
            seconds = self.extract()
        table = profile.key_averages().table(sort_by="self_cuda_time_total", row_limit=12)
        print("kernels of an extraction:", table, sep="\n", flush=True)
        spans = sorted(
            (event.time_range.start, event.time_range.end)
            for event in profile.events()
            if event.device_type == DeviceType.CUDA
        )
        busy, reached = 0.0, -math.inf
        for start, end in spans:  # those of two streams overlap
            busy += max(0.0, end - max(start, reached))
            reached = max(reached, end)
        return busy / 1e6 / seconds

    def on_workers(self, count: int) -> float:
        """Seconds with `count` one-thread processes that have already loaded the model."""
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
        naive: Naive | None,
    ) -> dict[str, Any]:
        lengths = [source.length for source in self.sources.values()]
        whole, some = (
            sum(part) / (self.model.sample_rate or 1) for part in (lengths, lengths[: self.naive_files])
        )
        rate = {name: (some if name in ("one", "padded") else whole) / value for name, value in best.items()}
        for name, value in best.items():
            turns = ", ".join(f"{turn:.2f}" for turn in seconds.get(name, []))
            print(f"{name:10} {value:8.2f} s  {rate[name]:8.1f} /s  {turns}")
        stages = {name: round(value, 2) for name, value in self.result.seconds.items()}
        print(f"stages of the last extraction, seconds of threads side by side: {stages}")
        flops = self.flops(batches)
        peak = matmul_peak(self.device)
        figures: dict[str, Any] = {
            "kind": self.config.kind,
            "precision": self.config.precision,
            "per_s": round(rate["extract"], 2),
            "extract_over_bare": round(best["extract"] / best["bare"], 3),
            "padding": round(self.result.padding, 3),
            "tflops": round(flops / best["extract"] / 1e12, 3),
            "bf16_matmul_peak_tflops": round(peak / 1e12, 3),
            "of_peak": round(flops / best["extract"] / peak, 3),
            "bare_of_peak": round(flops / best["bare"] / peak, 3),
        }
        if "side" in best:
            figures["extract_over_side"] = round(best["extract"] / best["side"], 3)
        if self.gpu:
            figures["gpu_busy"] = round(self.gpu_busy(), 3)
        if naive is not None:
            figures["one_over_extract"] = round(rate["extract"] / rate["one"], 3)
            figures["padded_over_extract"] = round(rate["extract"] / rate["padded"], 3)
        if naive is not None and naive.theirs:
            figures["padding_error"] = round(naive.padding_error(), 3)
        if "workers_2" in best:
            figures["workers_1_over_2"] = round(best["workers_1"] / best["workers_2"], 3)
        return figures

    def flops(self, batches: list[tuple[torch.Tensor, torch.Tensor]]) -> float:
        """Multiplications and additions of all batches, padding included; an LSTM's are not counted."""
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            for batch in batches:
                self.model(*batch)
        return float(counter.get_total_flops())


@cache
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
