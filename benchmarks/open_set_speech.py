"""Real speech with classes that were never trained: how well each score detects them, speakers held out.

    STILLWAVE_CORPORA=... python benchmarks/open_set_speech.py [--recipe whisper_open] [--corpus fsdd]
        [--seeds 1] [--losses cross_entropy cac]

EmoDB: neutral, happy, sad and angry are known; fear, disgust and boredom are in the test rows only. One
model per held-out speaker on eight others, and one speaker to validate on (thresholds, temperature);
predictions of all folds pooled. The same as `stillwave run --corpus configs/corpora/emodb7.yaml --recipe
configs/recipes/fbank_open.yaml`, and again trained with the anchor loss instead of cross-entropy. FSDD: the
digits seven, eight and nine are unknown. Figures are means over the seeds; intervals, also those of
OpenMax's AUROC minus that of msp and of energy, are 95 % bootstraps by speakers, in which further seeds are
further rows of the same speakers. The baseline on EmoDB is openSMILE eGeMAPSv02 functionals ->
StandardScaler -> SVC(C=1, class_weight="balanced"), 1 - max probability, on the same files and folds. Ends
with one line of JSON.
"""

import argparse
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from speech import run_once  # next to this file

from stillwave.pipeline.scores.intervals import open_set_intervals, paired_auroc

BASELINE_AUROC = {"emodb": 0.635}
CORPORA = {  # config, folder, what differs from the recipe
    "emodb": ("emodb7", "emodb", []),
    "fsdd": ("fsdd", "fsdd", ["label=word", "classes=null", "open_set.unknown=[seven, eight, nine]"]),
}
LOSSES = {"cross_entropy": [], "cac": ["losses.cross_entropy=0", "losses.cac=1"]}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--recipe", choices=("fbank_open", "whisper_open"), default="fbank_open")
    parser.add_argument("--corpus", choices=CORPORA, default="emodb")
    parser.add_argument("--losses", nargs="+", choices=LOSSES, default=list(LOSSES))
    arguments = parser.parse_args()
    folder = os.environ.get("STILLWAVE_CORPORA")
    if not folder:
        raise SystemExit("set STILLWAVE_CORPORA to the folder that holds emodb/ and fsdd/")
    config, root, overrides = CORPORA[arguments.corpus]
    figures: dict[str, object] = {"baseline_auroc": BASELINE_AUROC.get(arguments.corpus)}
    with tempfile.TemporaryDirectory() as out:
        for loss in arguments.losses:
            each, tables = [], []
            for seed in range(arguments.seeds):
                settings = [*overrides, *LOSSES[loss], f"train.seed={seed}"]
                each.append(run_once(config, arguments.recipe, settings, Path(folder, root), Path(out)))
                tables.append(pd.read_parquet(Path(out, "report/predictions.parquet")))
            figures[loss] = summary = mean_of(each)
            table = pd.concat(tables, ignore_index=True)
            print(f"{loss}: UAR of known classes {summary['uar']:.3f}")
            for name, values in summary["scores"].items():
                values["interval"] = interval = interval_of(table, name)
                print(
                    f"  {name:12} AUROC {values['auroc']:.3f} ({interval[0]:.3f} to {interval[1]:.3f})  "
                    f"FPR95 {values['fpr_at_95_tpr']:.3f}",
                    flush=True,
                )
            for name in ("msp", "energy"):
                summary[f"openmax_minus_{name}"] = interval = openmax_minus(table, name)
                print(f"  openmax minus {name}: {interval[0]:+.3f} to {interval[1]:+.3f}", flush=True)
    print(json.dumps(figures))


def interval_of(table: pd.DataFrame, name: str) -> list[float]:
    """The interval of a score's AUROC, by speakers."""
    scored = table.assign(score=table[f"score_{name}"])
    found = open_set_intervals(scored, np.random.default_rng(0))["speakers"]["auroc"]
    return [round(value, 3) for value in found]


def openmax_minus(table: pd.DataFrame, name: str) -> list[float]:
    """The interval of OpenMax's AUROC minus that of a score, by speakers."""
    known, score, openmax = (table[key].to_numpy() for key in ("known", f"score_{name}", "score_openmax"))
    speakers = table["speaker"].astype(str).tolist()
    found, _ = paired_auroc(known, score, openmax, np.random.default_rng(0), groups=speakers)
    return [round(value, 3) for value in found]


def mean_of(each: list[dict[str, Any]]) -> dict[str, Any]:
    """Mean over seeds of the known classes' UAR, and of every score's figures."""
    scores = [metrics["open_set"]["scores"] for metrics in each]
    keys = ("auroc", "fpr_at_95_tpr", "aupr", "oscr")
    return {
        "uar": round(float(np.mean([metrics["uar"] for metrics in each])), 4),
        "scores": {
            name: {key: round(float(np.mean([one[name][key] for one in scores])), 4) for key in keys}
            for name in scores[0]
        },
    }


if __name__ == "__main__":
    main()
