"""Does it help to train the backbone, too? The same weights and head, with a frozen and a trained backbone.

    STILLWAVE_CORPORA=... python benchmarks/finetune.py [--seeds 3] [--folds 3]

FSDD, ten words, speakers held out. The backbone is our own FastConformer with seeded random weights, because
trained weights need a download. A frozen random backbone is the worst case for that side, so the figures show
that training the backbone works, and say little about pretrained weights. Sides, per seed:

frozen: stored frames -> segment head. tuned: the same head and schedule, the encoder trained from waveforms,
starting from the frozen side's head, fold by fold. Ends with one line of JSON.
"""

import argparse
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from stillwave.pipeline.backbones import load_backbone
from stillwave.pipeline.config.base import load_config, parse_config
from stillwave.pipeline.config.recipe import Recipe
from stillwave.pipeline.corpora import CorpusConfig
from stillwave.pipeline.run import run

CONFIGS = Path(__file__).parents[1] / "configs"
HEAD = {"kind": "segment", "num_heads": 4, "hidden": 64, "dropout": 0.3}
TRAIN = {"epochs": 12, "batch_size": 32, "learning_rate": 1e-3, "label_smoothing": 0.1}
FINETUNE = {"unfreeze": "all", "learning_rate": 1e-3, "layer_decay": 0.9}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--folds", type=int, default=3)
    parser.add_argument("--backbone", default="fastconformer_tiny")
    arguments = parser.parse_args()
    folder = os.environ.get("STILLWAVE_CORPORA")
    if not folder:
        raise SystemExit("set STILLWAVE_CORPORA to the folder that holds fsdd/")
    split = ["split.kind=kfold", f"split.folds={arguments.folds}"]
    corpus = load_config(CONFIGS / "corpora/fsdd.yaml", CorpusConfig, split)
    name = arguments.backbone
    backbones = {name: load_backbone(CONFIGS / f"backbones/{name}.yaml")}
    figures: dict[str, list[float]] = {"frozen": [], "tuned": []}
    seconds: dict[str, list[float]] = {"frozen": [], "tuned": []}
    with tempfile.TemporaryDirectory() as temporary:
        frozen, tuned = Path(temporary, "frozen"), Path(temporary, "tuned")
        for seed in range(arguments.seeds):
            start = None
            for side, out, settings in (("frozen", frozen, None), ("tuned", tuned, FINETUNE)):
                began = time.monotonic()
                recipe = recipe_of(name, seed, settings)
                metrics = run(corpus, backbones, recipe, out, root=Path(folder, "fsdd"), start=start)
                start = out / "run"
                figures[side].append(round(metrics["uar"], 4))
                seconds[side].append(round(time.monotonic() - began, 1))
                print(f"seed {seed} {side}: UAR {metrics['uar']:.3f}, {seconds[side][-1]} s", flush=True)
    means = {side: round(float(np.mean(values)), 4) for side, values in figures.items()}
    print(f"UAR frozen {means['frozen']:.3f}, tuned {means['tuned']:.3f}, mean of {arguments.seeds} seeds")
    print(json.dumps({"uar": means, "uar_by_seed": figures, "seconds": seconds}))


def recipe_of(backbone: str, seed: int, finetune: dict[str, Any] | None) -> Recipe:
    """The recipe of a side."""
    fields = {"backbones": [backbone], "label": "word", "head": HEAD, "train": TRAIN | {"seed": seed}}
    recipe: Recipe = parse_config(fields | {"finetune": finetune}, Recipe, source="benchmarks/finetune.py")
    return recipe


if __name__ == "__main__":
    main()
