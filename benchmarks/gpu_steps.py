"""The steps of gpu.py: a process that reads their names, one per line, and answers each with a line of JSON.

python benchmarks/gpu_steps.py DEVICE FOLDER QUICK
"""

import gc
import json
import os
import re
import subprocess
import sys
import traceback
from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from extract import CONFIGS, Bench  # next to this file
from predict import corpus, made, warm
from retrain import compare
from synthetic import synthetic

from stillwave.pipeline.backbones import load_backbone
from stillwave.pipeline.backbones.sanet import SanetConfig
from stillwave.pipeline.backbones.wav2vec2 import Wav2Vec2Config
from stillwave.pipeline.config.base import load_config
from stillwave.pipeline.config.recipe import Recipe
from stillwave.pipeline.corpora.manifest import read_manifest, write_manifest
from stillwave.pipeline.predict.predictor import Predictor
from stillwave.pipeline.train.finetune import finetune

ROOT = Path(__file__).parents[1]
TESTS_AT_ONCE = 6
TESTS_S = 150  # limit for pytest; a little less than the step's, to report what was done
FILES, QUICK_FILES = 1500, 8  # 2.2 hours of sound: an H100 needs seconds for it
TRAINING_FILES = 750
# Step: the YAML of the backbone, overrides, and the number of clips to extract.
BACKBONES: dict[str, tuple[str, list[str], int]] = {
    "wav2vec2_base": ("wav2vec2", ["size=base"], FILES),
    "wav2vec2_large": ("wav2vec2_large", ["size=large"], 300),
    "fastconformer_large": ("fastconformer", ["implementation=custom", "size=large"], FILES),
    "encodec_24khz": ("encodec_24khz", ["size=base", "implementation=transformers"], 200),
    "mbert_base": ("mbert", ["size=base"], FILES),
    "ast_base": ("ast", ["size=base"], 300),
}


class Steps:
    """The steps, over one corpus in `folder`."""

    def __init__(self, device: str, folder: Path, quick: bool) -> None:
        self.device, self.folder, self.quick = torch.device(device), folder, quick

    def __call__(self, name: str) -> dict[str, Any]:
        if name in BACKBONES:
            return self.extraction(*BACKBONES[name])
        figures: dict[str, Any] = getattr(self, name)()
        return figures

    def speech(self) -> pd.DataFrame:
        """The manifest of the corpus, made by the first step that needs it."""
        if ready := sorted(self.folder.glob("speech-*/manifest.parquet")):
            return read_manifest(ready[0])
        # Specific to this process: a killed one may have left half a corpus.
        return synthetic(self.folder / f"speech-{os.getpid()}", QUICK_FILES if self.quick else FILES)

    def own(self, name: str) -> Path:
        """A new folder for a step of this process."""
        folder = self.folder / f"{name}-{os.getpid()}"
        folder.mkdir()
        return folder

    def extraction(self, name: str, overrides: list[str], files: int) -> dict[str, Any]:
        """Figures of benchmarks/extract.py, in bf16."""
        precision = "fp32" if self.quick else "bf16"  # CPUs are slow in bf16
        settings = ["weights=random", f"precision={precision}", *overrides]
        settings += ["size=tiny"] if self.quick else []
        config = load_backbone(CONFIGS / "backbones" / f"{name}.yaml", settings)
        bench = Bench(config, self.device, self.speech()[:files], self.own(name))
        return bench.run(0 if self.quick else 1, ["workers"])

    def retrain(self) -> dict[str, Any]:
        """Figures of benchmarks/retrain.py, in bf16."""
        size, turns = ("tiny", 1) if self.quick else ("base", 2)
        speech = self.speech()[:TRAINING_FILES]
        return compare(speech, self.own("retrain"), size, "bf16", self.device, turns)

    def predict(self) -> dict[str, Any]:
        """Milliseconds of benchmarks/predict.py for a clip of 3 s."""
        folder = corpus(self.own("predict"), 2)
        figures: dict[str, Any] = {}
        size = "tiny" if self.quick else "base"
        for precision in ("bf16", "fp32"):
            config = Wav2Vec2Config(kind="wav2vec2", weights="random", size=size, precision=precision)
            run = made(folder, precision, config)
            warm_ms, bare_ms = warm(Predictor.load(run, 0, device=str(self.device)), 3 if self.quick else 50)
            figures[precision] = {"warm_ms": round(warm_ms, 2), "bare_ms": round(bare_ms, 2)}
        return figures

    def sanet(self) -> dict[str, Any]:
        """Seconds of an epoch of configs/recipes/sanet.yaml, at its real width."""
        recipe = load_config(
            CONFIGS / "recipes" / "sanet.yaml", Recipe, ["train.epochs=2", "train.precision=bf16"]
        )
        backbone = SanetConfig(kind="sanet", size="tiny" if self.quick else "base", clip_s=4.0)
        speech, out = self.speech()[:TRAINING_FILES], self.own("sanet") / "run"
        manifest = out.parent / "manifest.parquet"
        write_manifest(speech, manifest)
        finetune(recipe, speech, {"sanet": backbone}, out, manifest_path=manifest, device=str(self.device))
        history = pd.read_csv(next(out.glob("fold_*/history.csv")))
        rows = int((speech["split"] == "train").sum())
        return {"epoch_s": round(float(history["seconds"].iloc[-1]), 2), "clips": rows}

    def tests(self) -> dict[str, Any]:
        """The GPU tests, in parallel; on a CPU they are only collected."""
        files = sorted(str(file) for file in (ROOT / "tests").rglob("test_*_devices.py"))
        gpu = self.device.type == "cuda"
        options = ["-m", "gpu", "-p", "no:cacheprovider", "-o", "filterwarnings=default"]
        at_once = min(TESTS_AT_ONCE, os.cpu_count() or 1)
        options += ["-v", f"-n{at_once}", "--durations=15"] if gpu else ["--collect-only", "-q"]
        command = [sys.executable, "-m", "pytest", *options, *files]
        stopped = ""
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as pytest:
            try:
                out, _ = pytest.communicate(timeout=TESTS_S)
            except subprocess.TimeoutExpired:
                pytest.kill()
                out, _ = pytest.communicate()
                stopped = f"stopped after {TESTS_S} s"
        print(out, flush=True)
        if not gpu:
            count = {"collected": sum("::" in line for line in out.splitlines())}
            return count | ({"error": "pytest could not collect the tests"} if pytest.returncode else {})
        if pytest.returncode > 1 or pytest.returncode < 0:  # 1: some failed, which their lines say
            stopped = stopped or f"pytest ended with {pytest.returncode} after {out.splitlines()[-1:]}"
        found = re.findall(r"^\[gw\d+\] .*?(PASSED|FAILED|ERROR|SKIPPED) (\S+::.+?) *$", out, re.MULTILINE)
        figures: dict[str, Any] = dict(Counter(word.lower() for word, _ in found))
        bad = [stopped, *(test for word, test in found if word in ("FAILED", "ERROR"))]
        if any(bad) or not found:
            figures["error"] = "; ".join(filter(None, bad)) or "no test ran"
        return figures


def main() -> None:
    device, folder, quick = sys.argv[1:]
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what the benchmarks print goes to the log
    if quick == "1":
        torch.set_num_threads(1)  # models this small lose time to more
    steps = Steps(device, Path(folder), quick == "1")
    for line in sys.stdin:
        try:
            answer = json.dumps(steps(line.strip()))
            gc.collect()
            if steps.device.type == "cuda":
                torch.cuda.synchronize()  # earlier errors appear here
                torch.cuda.empty_cache()
        except Exception as error:
            traceback.print_exc()
            answer = json.dumps({"error": f"{type(error).__name__}: {error}"[:500]})
        answers.write(answer + "\n")


if __name__ == "__main__":
    main()
