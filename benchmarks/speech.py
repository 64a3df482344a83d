"""Real speech, speakers held out: the scores in the README.

    STILLWAVE_CORPORA=... python benchmarks/speech.py [--corpora emodb emodb7 fsdd] [--seeds 3]

For each corpus config and seed: prepare, extract, train one model per held-out speaker, evaluate; the same as
`stillwave run --corpus configs/corpora/<name>.yaml --recipe ... -S recipe.train.seed=<seed>`. The baseline is
openSMILE eGeMAPSv02 functionals -> StandardScaler -> SVC(C=1, class_weight="balanced") on the same files and
folds. Ends with one line of JSON.
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
from stillwave.pipeline.config.base import load_config
from stillwave.pipeline.config.recipe import Recipe
from stillwave.pipeline.corpora import CorpusConfig
from stillwave.pipeline.run import run

CONFIGS = Path(__file__).parents[1] / "configs"
BASELINE_UAR = {"emodb": 0.749, "emodb7": 0.588, "fsdd": 0.497}
RECIPES = {"emodb": "fbank_segment", "emodb7": "fbank_segment", "fsdd": "fbank_words"}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--corpora", nargs="+", choices=RECIPES, default=list(RECIPES))
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    folder = os.environ.get("STILLWAVE_CORPORA")
    if not folder:
        raise SystemExit("set STILLWAVE_CORPORA to the folder that holds emodb/ and fsdd/")
    figures: dict[str, object] = {}
    with tempfile.TemporaryDirectory() as out:
        for name in arguments.corpora:
            uars, minutes = [], []
            for seed in range(arguments.seeds):
                started = time.monotonic()
                root = Path(folder, name.rstrip("7"))
                metrics = run_once(name, RECIPES[name], [f"train.seed={seed}"], root, Path(out, name))
                minutes.append((time.monotonic() - started) / 60)
                uars.append(metrics["uar"])
                scores = ", ".join(f"{key} {metrics[key]:.3f}" for key in ("uar", "weighted_f1", "accuracy"))
                print(
                    f"{name} seed {seed}: {scores}, {metrics['n']} rows, {minutes[-1]:.1f} minutes",
                    flush=True,
                )
            mean = float(np.mean(uars))
            print(f"{name}: UAR {mean:.3f} (baseline {BASELINE_UAR[name]:.3f}), mean of {len(uars)} seeds")
            figures[name] = {
                "uar": round(mean, 4),
                "uar_by_seed": [round(uar, 4) for uar in uars],
                "baseline_uar": BASELINE_UAR[name],
                "minutes_by_seed": [round(value, 1) for value in minutes],
            }
    print(json.dumps(figures))


def run_once(name: str, recipe: str, overrides: list[str], root: Path, out: Path) -> dict[str, Any]:
    """`stillwave run` with the configs of these names; frames are shared between runs in the same `out`."""
    corpus = load_config(CONFIGS / "corpora" / f"{name}.yaml", CorpusConfig)
    head = load_config(CONFIGS / "recipes" / f"{recipe}.yaml", Recipe, overrides)
    backbones = {
        store: load_backbone(CONFIGS / "backbones" / f"{store}.yaml") for store in head.stores().values()
    }
    return run(corpus, backbones, head, out, root=root)


if __name__ == "__main__":
    main()
