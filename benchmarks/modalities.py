"""Audio only, text only, both: the fusion head on the demo corpus, speakers held out.

    python benchmarks/modalities.py [--seeds 3] [--overrides head.dropout=0.3 ...]

configs/recipes/fbank_fusion.yaml with each setting of `modalities`, everything else equal; the same as
`stillwave run --corpus configs/corpora/demo.yaml --recipe ... -S recipe.modalities=[audio]`. Prints the UAR
of each with its 95 % interval, and the paired difference of both to the better single one (`stillwave
compare`), resampling rows, and resampling speakers. Ends with one line of JSON.
"""

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np
from speech import run_once  # next to this file

from stillwave.pipeline.evaluate.compare import compare

SIDES = {"audio": "[audio]", "text": "[text]", "both": "[audio, text]"}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--overrides", nargs="*", default=[])
    arguments = parser.parse_args()
    figures: dict[str, object] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        uar: dict[str, list[float]] = {side: [] for side in SIDES}
        for seed in range(arguments.seeds):
            for side, modalities in SIDES.items():
                overrides = [f"modalities={modalities}", f"train.seed={seed}", *arguments.overrides]
                metrics = run_once("demo", "fbank_fusion", overrides, folder / "demo", folder / "run")
                (folder / "run" / "report").rename(folder / f"{side}_{seed}")
                low, high = metrics["intervals"]["rows"]["uar"]
                uar[side].append(metrics["uar"])
                print(f"seed {seed} {side:6} UAR {metrics['uar']:.3f} ({low:.3f} to {high:.3f})", flush=True)
            best = max(("audio", "text"), key=lambda side: uar[side][-1])
            for group in (None, "speaker"):
                ours = compare(folder / f"{best}_{seed}", folder / f"both_{seed}", group=group)["metrics"][
                    "uar"
                ]
                low, high = ours["interval"]
                drawn = group or "row"
                print(
                    f"seed {seed} both - {best}: {ours['difference']:+.3f} ({low:+.3f} to {high:+.3f}, "
                    f"p {ours['p']:.4f}), by {drawn}s"
                )
                figures[f"both_over_best_{seed}_by_{drawn}"] = ours
    figures |= {side: round(float(np.mean(values)), 4) for side, values in uar.items()}
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
