"""Real speech with classes that were never trained: how well each score detects them, speakers held out.

    STILLWAVE_CORPORA=... python benchmarks/open_set_speech.py [--recipe whisper_open] [--corpus fsdd]
        [--seeds 1] [--losses cross_entropy cac]

EmoDB: neutral, happy, sad and angry are known; fear, disgust and boredom are in the test rows only. One
model per held-out speaker on eight others, and one speaker to validate on (thresholds, temperature);
predictions of all folds pooled. The same as `stillwave run --corpus configs/corpora/emodb7.yaml --recipe
configs/recipes/fbank_open.yaml`, and again trained with the anchor loss instead of cross-entropy. FSDD: the
digits seven, eight and nine are unknown. Intervals, also that of OpenMax's AUROC minus msp's, are 95 %
bootstraps by speakers, of the first seed. The baseline on EmoDB is openSMILE eGeMAPSv02 functionals ->
StandardScaler -> SVC(C=1, class_weight="balanced"), 1 - max probability, on the same files and folds. Ends
with one line of JSON.
"""

import argparse
import json
import os
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
from speech import run_once  # next to this file

from stillwave.pipeline.scores.intervals import open_set_intervals, paired_auroc

BASELINE_AUROC = 0.635
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
    figures: dict[str, object] = {"baseline_auroc": BASELINE_AUROC}
    with tempfile.TemporaryDirectory() as out:
        for loss in arguments.losses:
            each, tables = [], []
            for seed in range(arguments.seeds):
                settings = [*overrides, *LOSSES[loss], f"train.seed={seed}"]
                each.append(run_once(config, arguments.recipe, settings, Path(folder, root), Path(out)))
                tables.append(pd.read_parquet(Path(out, "report/predictions.parquet")))
            figures[loss] = summary = mean_of(each)
            low, high = each[0]["intervals"]["speakers"]["uar"]
            print(f"{loss}: UAR of known classes {summary['uar']:.3f} ({low:.3f} to {high:.3f}, first seed)")
            for name, values in summary["scores"].items():
                low, high = open_set_intervals(
                    tables[0].assign(score=tables[0][f"score_{name}"]), np.random.default_rng(0)
                )["speakers"]["auroc"]
                print(
                    f"  {name:12} AUROC {values['auroc']:.3f} ({low:.3f} to {high:.3f})  "
                    f"FPR95 {values['fpr_at_95_tpr']:.3f}",
                    flush=True,
                )
            table = tables[0]
            known, msp, openmax = (table[name].to_numpy() for name in ("known", "score_msp", "score_openmax"))
            speakers = table["speaker"].astype(str).tolist()
            (low, high), _ = paired_auroc(known, msp, openmax, np.random.default_rng(0), groups=speakers)
            print(f"  openmax minus msp: {low:+.3f} to {high:+.3f}")
            figures[loss] = summary | {"openmax_minus_msp": [round(low, 3), round(high, 3)]}
    print(json.dumps(figures))


def mean_of(each: list[dict[str, object]]) -> dict[str, object]:
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
