"""An epoch of training from the cache, against recomputing the frozen backbones, and against frames in RAM.

    [STILLWAVE_CORPORA=...] python benchmarks/retrain.py [--precision bf16] [--files 96] [--repeats 3]
        [--device auto] [--small]

wav2vec2-base and mBERT-base with seeded weights, over EmoDB, or over generated sound (synthetic.py); each
clip's transcript has 12 words. Heads and training steps are those of configs/recipes: wav2vec2_segment.yaml
and fusion_openmax.yaml, with the same batches in every epoch. The sides alternate; the fastest run of each
counts.
    recompute  every epoch computes the frames again: waveforms decoded, texts tokenised and batched by length
               beforehand (and copied to the GPU), on a CPU with as many batches at once as in extraction;
               then the same head and training step
  map        the store read through its memory map, batch by batch
  cache      the store held in memory as `stillwave train` holds it (fp16, padded batch by batch)
  ram        the batches already in RAM, padded, fp32
Ends with one line of JSON.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from extract import CONFIGS, speech  # next to this file
from numpy.typing import NDArray
from torch import Tensor

from stillwave.cache import EmbeddingStore
from stillwave.cache.batches import length_bucketed, pad
from stillwave.cache.resident import Resident
from stillwave.heads.augment import FrameAugment
from stillwave.pipeline.backbones import build_backbone, load_backbone
from stillwave.pipeline.backbones.device import pick_device
from stillwave.pipeline.config.base import load_config
from stillwave.pipeline.config.recipe import Recipe
from stillwave.pipeline.extract.engine import MAX_BATCH_ROWS, Engine
from stillwave.pipeline.extract.rows import load, plan_rows
from stillwave.pipeline.extract.stage import extract
from stillwave.pipeline.runs.features import CachedFeatures, Features, JoinedFeatures, valid_frames
from stillwave.pipeline.runs.head import build_head
from stillwave.pipeline.train.fit import fit

NUM_CLASSES = 4
HEADS = {"segment": "wav2vec2_segment", "fusion": "fusion_openmax"}
CHEAP_TURNS = 5  # for the sides that take a fraction of a second, per run of `recompute`


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--files", type=int, default=96)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--small", action="store_true", help="16 files, tiny backbones, one run: a look")
    arguments = parser.parse_args()
    files, repeats = (16, 1) if arguments.small else (arguments.files, arguments.repeats)
    size = "tiny" if arguments.small else "base"
    device = pick_device(arguments.device)
    with tempfile.TemporaryDirectory() as name:
        manifest = speech(files, Path(name))
        figures = compare(manifest, Path(name), size, arguments.precision, device, repeats)
    print(json.dumps({"precision": arguments.precision, "files": files, "size": size} | figures))


def compare(
    manifest: pd.DataFrame, folder: Path, size: str, precision: str, device: torch.device, repeats: int
) -> dict[str, object]:
    """The figures of both heads, over one corpus with transcripts."""
    figures: dict[str, object] = {}
    words = np.random.default_rng(0).integers(0, 5000, (len(manifest), 12))
    manifest["text"] = [" ".join(f"word{number}" for number in row) for row in words]
    overrides = [f"precision={precision}", f"size={size}"]
    frozen = [Frozen(name, manifest, folder, overrides, device) for name in ("wav2vec2", "mbert")]
    print(f"{len(manifest)} clips, {manifest['duration_s'].sum():.0f} s, {torch.get_num_threads()} threads")
    for head, recipe_name in HEADS.items():
        path = CONFIGS / "recipes" / f"{recipe_name}.yaml"
        recipe = load_config(path, Recipe, [f"train.precision={precision}", "train.epochs=1"])
        best = measure(recipe, frozen[: len(recipe.backbones)], device, repeats)
        for side, value in best.items():
            print(f"{head:8} {side:10} {value:8.3f} s an epoch  {value / best['cache']:8.2f} of cache")
        figures[head] = {f"{side}_s": round(value, 4) for side, value in best.items()} | {
            "recompute_over_cache": round(best["recompute"] / best["cache"], 1),
            "ram_over_cache": round(best["ram"] / best["cache"], 3),
        }
    return figures


class Frozen:
    """A backbone over the corpus: its store, and its inputs in the batches that it computes."""

    def __init__(
        self, name: str, manifest: pd.DataFrame, folder: Path, overrides: list[str], device: torch.device
    ) -> None:
        self.device = device
        path = CONFIGS / "backbones" / f"{name}.yaml"
        config = load_backbone(path, ["weights=random", *overrides])
        extract(config, manifest, folder / f"{name}.zarr", device=str(device))
        self.store = EmbeddingStore(folder / f"{name}.zarr")
        self.rows = self.store.rows(manifest["id"])
        self.model = build_backbone(config)
        _, sources, _ = plan_rows(self.model, manifest, None)
        loaded = [np.asarray(load(self.model, source)) for source in sources.values()]
        assert len(loaded) == len(manifest), "two clips are equal"
        sizes = np.array([self.model.num_frames(len(values)) for values in loaded])
        with Engine(self.model, config, device) as engine:
            self.threads, longest = engine.threads, engine.max_frames
        self.batches: list[tuple[list[int], Tensor, Tensor]] = []
        for rows in length_bucketed(sizes, max_rows=MAX_BATCH_ROWS, max_frames=longest):
            values, lengths = pad([loaded[row] for row in rows])
            on_device = torch.from_numpy(values).to(device)
            self.batches.append((rows.tolist(), on_device, torch.from_numpy(lengths)))

    def features(self) -> CachedFeatures:
        return CachedFeatures(self.store, self.rows, self.device)

    def mapped(self) -> CachedFeatures:
        features = self.features()
        features._resident = None  # as for a selection that does not fit
        return features

    def recomputed(self) -> Resident:
        """Frames of all rows, by a forward pass over each, as tensors in RAM or on the GPU."""

        def forward(batch: tuple[list[int], Tensor, Tensor]) -> list[tuple[int, Tensor]]:
            rows, values, lengths = batch
            with torch.inference_mode():
                frames = self.model(values, lengths).values.float()
            counts = [self.model.num_frames(length) for length in lengths.tolist()]
            return [(row, own[:count]) for row, own, count in zip(rows, frames, counts, strict=True)]

        threads = torch.get_num_threads()
        at_once = self.threads if self.device.type == "cpu" else 1  # one stream of kernels keeps a GPU busy
        with ThreadPoolExecutor(at_once, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            found = dict(item for batch in pool.map(forward, self.batches) for item in batch)
        torch.set_num_threads(threads)
        lengths = torch.tensor([len(found[row]) for row in range(len(found))])
        values = torch.cat([found[row] for row in range(len(found))])
        return Resident(values, lengths.cumsum(0) - lengths, lengths)


class InMemory:
    """Features of tensors that were just computed."""

    def __init__(self, parts: Sequence[Resident]) -> None:
        self.parts, self.device = parts, parts[0].values.device
        self.lengths = np.sum([part.lengths.numpy() for part in parts], axis=0)

    def of_epoch(self, epoch: int, seed: tuple[int, ...]) -> "InMemory":
        return self

    def batch(self, rows: NDArray[np.int64]) -> tuple[Tensor, ...]:
        chosen = torch.from_numpy(rows)
        return tuple(tensor for part in self.parts for tensor in part.batch(chosen))


class Padded:
    """Features whose batches are ready; the first epoch fills them in."""

    def __init__(self, features: Features) -> None:
        self.features, self.lengths, self.device = features, features.lengths, features.device
        self.ready: dict[bytes, tuple[Tensor, ...]] = {}

    def of_epoch(self, epoch: int, seed: tuple[int, ...]) -> "Padded":
        return self

    def batch(self, rows: NDArray[np.int64]) -> tuple[Tensor, ...]:
        if rows.tobytes() not in self.ready:
            found = self.features.batch(rows)
            self.ready[rows.tobytes()] = tuple(x.float() if x.is_floating_point() else x for x in found)
        return self.ready[rows.tobytes()]


def measure(recipe: Recipe, frozen: Sequence[Frozen], device: torch.device, repeats: int) -> dict[str, float]:
    """Fewest seconds of an epoch, by side."""

    def joined(parts: list[CachedFeatures]) -> Features:
        return parts[0] if len(parts) == 1 else JoinedFeatures(parts)

    cached = [part.features() for part in frozen]
    shapes = {name: part.frame_shape for name, part in zip(recipe.stores(), cached, strict=True)}
    labels = np.arange(len(cached[0].lengths)) % NUM_CLASSES
    head = build_head(recipe, shapes, NUM_CLASSES).to(device)
    for standardise, part in zip(head.standardisers, cached, strict=True):
        standardise.fit(valid_frames(part, np.arange(len(labels))))
    augment = FrameAugment(**recipe.augment.options()) if recipe.augment else None

    def epoch(features: Features) -> float:
        rows, nothing = np.arange(len(labels)), np.array([], dtype=np.int64)
        history = fit(
            head, features, labels, rows, nothing, recipe.train, losses=recipe.losses, augment=augment
        )
        return history[0]["seconds"]

    def recompute() -> float:
        started = time.perf_counter()
        features = InMemory([part.recomputed() for part in frozen])
        return time.perf_counter() - started + epoch(features)

    sides = {
        "map": joined([part.mapped() for part in frozen]),
        "cache": joined(cached),
        "ram": Padded(joined(cached)),
    }
    seconds: dict[str, list[float]] = {"recompute": [], **{name: [] for name in sides}}
    for features in sides.values():
        epoch(features)  # warms up
    for _ in range(repeats):
        seconds["recompute"].append(recompute())
        for _ in range(CHEAP_TURNS if device.type == "cpu" else 1):  # on a GPU they also take seconds
            for name, features in sides.items():
                seconds[name].append(epoch(features))
    return {name: min(values) for name, values in seconds.items()}


if __name__ == "__main__":
    main()
