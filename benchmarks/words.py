"""Words and their speakers: basic, personalised and enrolled models on FSDD, known and unknown speakers.

    STILLWAVE_CORPORA=... python benchmarks/words.py [--seeds 3] [--systems raw] [--splits random] [--control]

raw: configs/recipes/word_basic.yaml and word_personalized.yaml, from waveforms, as in `stillwave rapid`.
cached: fbank_words.yaml and fbank_words_personalized.yaml, on stored log-mel frames.
trained: whisper_statistics.yaml, on stored frames of Whisper tiny, and again with a vector per speaker.
random: a fifth of the rows is for testing, stratified by word; all speakers are known. speaker: each speaker
is held out once, and so unknown. Enrolment, for held-out speakers: each model gets two clips per word of the
speaker that it was not trained on, and is tested on the speaker's other clips, before and after. --control:
train the basic model further, like the personalised one but without speakers, to see the effect of more
epochs alone.

The baseline is openSMILE eGeMAPSv02 functionals -> StandardScaler -> SVC(C=1, class_weight="balanced") on the
same files: 0.914 random (five folds), 0.497 speaker. Prints a line per run, a table, and one line of JSON.
"""

import argparse
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from stillwave.pipeline.backbones import load_backbone
from stillwave.pipeline.config.base import load_config
from stillwave.pipeline.config.recipe import Recipe
from stillwave.pipeline.corpora import CorpusConfig
from stillwave.pipeline.corpora.manifest import read_manifest
from stillwave.pipeline.corpora.prepare import prepare
from stillwave.pipeline.evaluate.stage import evaluate
from stillwave.pipeline.extract.stage import extract
from stillwave.pipeline.predict.clips import read_sound
from stillwave.pipeline.predict.enroll import enroll
from stillwave.pipeline.predict.enrolled import load_speaker
from stillwave.pipeline.predict.ensemble import Ensemble
from stillwave.pipeline.predict.reading import Reader
from stillwave.pipeline.train.finetune import finetune
from stillwave.pipeline.train.stage import train

CONFIGS = Path(__file__).parents[1] / "configs"
WHISPER = ("whisper_statistics", ["label=word"])
PERSONAL = ["personalise={dim: 32, hidden: 64, unknown: 0.1}", "train.epochs=10", "train.learning_rate=3e-4"]
RECIPES: dict[str, tuple[tuple[str, list[str]], ...]] = {  # the basic one, the personalised one; what differs
    "raw": (("word_basic", []), ("word_personalized", [])),
    "cached": (("fbank_words", []), ("fbank_words_personalized", [])),
    "trained": (WHISPER, (WHISPER[0], [*WHISPER[1], *PERSONAL])),
}
BASELINE = {"random": 0.914, "speaker": 0.497}
CLIPS_PER_WORD = 2  # for enrolment


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--systems", nargs="+", choices=RECIPES, default=list(RECIPES))
    parser.add_argument("--splits", nargs="+", choices=BASELINE, default=list(BASELINE))
    parser.add_argument("--control", action="store_true")
    arguments = parser.parse_args()
    corpora = os.environ.get("STILLWAVE_CORPORA")
    if not corpora:
        raise SystemExit("set STILLWAVE_CORPORA to the folder that holds fsdd/")
    lines = []
    with tempfile.TemporaryDirectory() as name:
        for split in arguments.splits:
            for seed in range(arguments.seeds):
                manifest = Path(name, f"{split}_{seed}.parquet")
                prepare(corpus(split, seed), Path(corpora, "fsdd"), manifest)
                for system in arguments.systems:
                    held_out = split == "speaker"
                    found = measure(
                        system, manifest, seed, Path(name), held_out=held_out, control=arguments.control
                    )
                    print(f"{system} {split} seed {seed}: {found}", flush=True)
                    lines.append({"system": system, "split": split, "seed": seed, **found})
    table = pd.DataFrame(lines).drop(columns="seed").groupby(["system", "split"]).mean().round(4)
    table["baseline"] = [BASELINE[split] for _, split in table.index]
    print(table.to_string())
    print(json.dumps(lines))


def corpus(split: str, seed: int) -> CorpusConfig:
    """FSDD's config; by default each speaker is held out once."""
    random = [f"split={{kind: holdout, group: null, valid: 0, test: 0.2, seed: {seed}}}"]
    config: CorpusConfig = load_config(
        CONFIGS / "corpora/fsdd.yaml", CorpusConfig, [] if split == "speaker" else random
    )
    return config


def measure(
    system: str, manifest: Path, seed: int, folder: Path, *, held_out: bool, control: bool
) -> dict[str, float]:
    """Accuracies of the basic run and the personalised one that starts from it, and minutes of training."""
    found: dict[str, float] = {}
    started, basic = time.monotonic(), folder / f"{system}_basic"
    (first, settings), (second, changes) = RECIPES[system]
    run_once(first, settings, manifest, seed, folder, basic, None)
    found["basic"] = evaluate(basic)["accuracy"]
    sides: dict[str, list[str]] = {"personalised": []} | (
        {"continued": ["personalise=null"]} if control else {}
    )
    for name, overrides in sides.items():
        out = folder / f"{system}_{name}"
        run_once(second, changes + overrides, manifest, seed, folder, out, basic)
        found[name] = evaluate(out)["accuracy"]
    found |= {
        "improvement": found["personalised"] - found["basic"],
        "minutes": (time.monotonic() - started) / 60,
    }
    if held_out:
        for name in ("basic", "personalised"):
            before, after = enrolled(folder / f"{system}_{name}", read_manifest(manifest))
            found |= {f"{name}_strangers": before, f"{name}_enrolled": after}
    return {name: round(value, 4) for name, value in found.items()}


def run_once(
    name: str, overrides: list[str], manifest: Path, seed: int, folder: Path, out: Path, start: Path | None
) -> None:
    """`stillwave finetune`, or extract and train, with the configs of these names."""
    # The random split has every speaker on both sides.
    file, seeded = CONFIGS / "recipes" / f"{name}.yaml", [f"train.seed={seed}", "train.group=null"]
    recipe: Recipe = load_config(file, Recipe, seeded + overrides)
    (store,) = recipe.stores().values()
    weights = [f"seed={seed}"] if recipe.finetune is not None else []
    backbone = load_backbone(CONFIGS / "backbones" / f"{store}.yaml", weights)
    rows = read_manifest(manifest, columns=["word", "speaker"])
    if recipe.finetune is not None:
        finetune(recipe, rows, {store: backbone}, out, manifest_path=manifest, start=start)
        return
    embeddings = folder / "embeddings"
    extract(backbone, rows, embeddings / f"{store}.zarr")
    train(recipe, rows, embeddings, out, manifest_path=manifest, start=start)


def enrolled(run: Path, rows: pd.DataFrame) -> tuple[float, float]:
    """Accuracy on clips of held-out speakers that were not enrolled, before and after: mean of the folds."""
    before, after = [], []
    for fold, part in rows.groupby("fold"):
        number, speaker = int(str(fold)), f"held_out_{fold}"
        given = part.groupby("word").head(CLIPS_PER_WORD)
        rest = part.drop(given.index)
        clips: list[Any] = list(zip(given["path"], given["word"], strict=True))
        enroll(run, speaker, clips, fold=number)
        models = Ensemble(run, number)
        before.append(accuracy(models, rest))
        models.enroll(load_speaker(run, speaker))
        after.append(accuracy(models, rest))
    return float(np.mean(before)), float(np.mean(after))


def accuracy(models: Ensemble, rows: pd.DataFrame) -> float:
    """Accuracy on the rows, with the speaker unknown."""
    reader = Reader(models.encoders)
    items = [reader.item(read_sound(path, 1), None, None) for path in rows["path"]]
    guesses = [
        models.classes[int(values["p"].argmax())]
        for first in range(0, len(items), 32)
        for values in models(items[first : first + 32])
    ]
    return float(np.mean(np.array(guesses) == rows["word"].to_numpy()))


if __name__ == "__main__":
    main()
