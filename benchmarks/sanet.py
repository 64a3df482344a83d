"""SANet from raw waveforms, trained from scratch: curves and scores.

    STILLWAVE_CORPORA=... python benchmarks/sanet.py [--corpora fsdd emodb] [--base] [--speakers]

fsdd: ten words in 1 s at 8 kHz, 20 % of the clips for testing and 10 % for validation, speakers on all sides.
emodb: four emotions, random pieces of 4 s in training, two of ten speakers for testing and one for
validation. Without --base both have a quarter of the published width, which two CPU cores can train in
minutes; --base is the whole model. --speakers tests each speaker once instead, on a GPU. The recipe is
configs/recipes/sanet.yaml with other epochs and rates. Ends with one line of JSON.
"""

import argparse
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import pandas as pd

from stillwave.pipeline.backbones import load_backbone
from stillwave.pipeline.config.base import load_config
from stillwave.pipeline.config.recipe import Recipe
from stillwave.pipeline.corpora import CorpusConfig
from stillwave.pipeline.run import run

CONFIGS = Path(__file__).parents[1] / "configs"
NARROW = ["channels=[16, 32, 64, 128]", "num_heads=4"]
SIDES: dict[str, dict[str, list[str]]] = {
    "fsdd": {
        "backbone": ["clip_s=1.0", "sample_rate=8000"],
        "split": ["split.kind=holdout", "split.group=null", "split.test=0.2", "split.valid=0.1"],
        "recipe": ["label=word", "train.epochs=12", "train.group=null", "finetune.crop_s=null",
                   "finetune.learning_rate=2e-3", "train.learning_rate=2e-3",
                   "finetune.augment={speed: {probability: 0.3}}"],
    },
    "emodb": {
        "backbone": ["clip_s=4.0"],
        "split": ["split.kind=holdout", "split.test=0.2", "split.valid=0.1"],
        "recipe": ["train.epochs=30", "train.batch_size=16", "finetune.learning_rate=2e-3",
                   "train.learning_rate=2e-3"],
    },
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--corpora", nargs="+", choices=SIDES, default=list(SIDES))
    parser.add_argument("--base", action="store_true")
    parser.add_argument("--speakers", action="store_true")
    arguments = parser.parse_args()
    folder = os.environ.get("STILLWAVE_CORPORA")
    if not folder:
        raise SystemExit("set STILLWAVE_CORPORA to the folder that holds emodb/ and fsdd/")
    with tempfile.TemporaryDirectory() as out:
        figures = {
            name: measure(name, arguments.base, arguments.speakers, Path(folder, name), Path(out, name))
            for name in arguments.corpora
        }
    print(json.dumps(figures))


def measure(name: str, base: bool, speakers: bool, root: Path, out: Path) -> dict[str, Any]:
    """Train, evaluate, and print the curves; returns the figures."""
    side = SIDES[name]
    corpus = load_config(CONFIGS / f"corpora/{name}.yaml", CorpusConfig, [] if speakers else side["split"])
    width = [] if base else NARROW
    backbone = load_backbone(CONFIGS / "backbones/sanet.yaml", side["backbone"] + width)
    recipe = load_config(CONFIGS / "recipes/sanet.yaml", Recipe, side["recipe"])
    started = time.monotonic()
    metrics = run(corpus, {"sanet": backbone}, recipe, out, root=root)
    curves = pd.read_csv(out / "report/curves.csv")
    shown = [column for column in ("fold", "epoch", "train_loss", "valid_uar", "seconds") if column in curves]
    print(f"{name}:\n{curves[shown].round(3).to_string(index=False)}")
    scores = {key: round(metrics[key], 4) for key in ("accuracy", "uar", "weighted_f1")}
    print(f"{name}: {scores}, {metrics['n']} rows", flush=True)
    minutes = round((time.monotonic() - started) / 60, 1)
    return scores | {
        "rows": metrics["n"],
        "minutes": minutes,
        "train_loss": curves["train_loss"].round(3).tolist(),
    }


if __name__ == "__main__":
    main()
