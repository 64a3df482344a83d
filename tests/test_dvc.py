"""dvc.yaml as it stands, on a small corpus: what an edit re-runs, and what it does not."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.fakes import speech_config, write_speech, write_wave

PROJECT = Path(__file__).parents[1]
PARAMS = {
    "corpus": "tones",
    "root": "speech",
    "backbones": ["fbank", "mbert_tiny"],
    "recipes": {
        "tones": ["fbank", "fbank"],
        "words": ["mbert_tiny", "mbert_tiny"],
        "both": ["fbank", "mbert_tiny"],
    },
    "finetune": {"tuned": {"backbone": "cnn1d", "options": "", "after": "data/manifest.parquet"}},
}
HEAD = {"kind": "segment", "num_heads": 4, "hidden": 16}

FUSION = {
    "backbones": ["fbank", "mbert_tiny"],
    "modalities": ["audio", "text"],
    "label": "word",
    "head": {"kind": "fusion_openmax", "shared_dim": 8, "num_heads": 2, "depth": 2, "base_dim": 16},
    "train": {"epochs": 2, "batch_size": 8},
}


TUNED = {
    "backbones": ["cnn1d"],
    "label": "word",
    "head": {"kind": "pooled", "hidden": [8]},
    "finetune": {"unfreeze": "all", "learning_rate": 1e-3},
    "train": {"epochs": 1, "batch_size": 12},
}


def recipe(store: str, epochs: int = 2) -> str:
    return yaml.safe_dump(
        {"backbones": [store], "label": "word", "head": HEAD, "train": {"epochs": epochs, "batch_size": 8}}
    )


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A DVC repository with this project's dvc.yaml and code, and a corpus and recipes of its own."""
    for name in ("pipeline", "heads", "cache"):
        shutil.copytree(PROJECT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "configs").mkdir()
    shutil.copytree(PROJECT / "configs/backbones", tmp_path / "configs/backbones")
    shutil.copy(PROJECT / "dvc.yaml", tmp_path)
    write_speech(tmp_path / "speech")
    (tmp_path / "speech/manifest.parquet").unlink()
    (tmp_path / "speech/quarantine.csv").unlink()
    for file, text in {
        "params.yaml": yaml.safe_dump(PARAMS),
        "configs/corpora/tones.yaml": yaml.safe_dump(speech_config().model_dump(mode="json")),
        "configs/recipes/tones.yaml": recipe("fbank"),
        "configs/recipes/words.yaml": recipe("mbert_tiny"),
        "configs/recipes/both.yaml": yaml.safe_dump(FUSION),
        "configs/recipes/tuned.yaml": yaml.safe_dump(TUNED),
    }.items():
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text(text)
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    dvc(tmp_path, "init", "-q")
    identity = ["-c", "user.name=test", "-c", "user.email=test@example.org"]
    subprocess.run(["git", *identity, "commit", "-qm", "start"], cwd=tmp_path, check=True)
    return tmp_path


def dvc(project: Path, *arguments: str) -> str:
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "DVC_NO_ANALYTICS": "1",
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, "-m", "dvc", *arguments]
    done = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def stages_run(output: str) -> list[str]:
    return re.findall(r"Running stage '([^']+)'", output)


@pytest.mark.slow
def test_only_what_an_edit_concerns_runs_again(project: Path) -> None:
    wanted = ("evaluate@tones", "evaluate@words", "evaluate@both", "evaluate_finetuned@tuned")
    everything = dvc(project, "repro", *wanted)
    assert set(stages_run(everything)) == {
        "prepare", "extract@fbank", "extract@mbert_tiny", "train@tones", "train@words", "train@both",
        "finetune@tuned", *wanted,
    }  # fmt: skip
    assert stages_run(dvc(project, "repro", *wanted)) == []
    assert "reports/tones/summary.json" in dvc(project, "metrics", "show")
    dvc(project, "plots", "show", "-o", "plots")
    assert (project / "plots/index.html").exists()
    assert (project / "runs/tones/fold_0/live/plots/metrics/train_loss.tsv").exists()

    (project / "configs/recipes/words.yaml").write_text(recipe("mbert_tiny", epochs=3))
    (project / "configs/recipes/tuned.yaml").write_text(yaml.safe_dump(TUNED | {"classes": ["high", "low"]}))
    assert set(stages_run(dvc(project, "repro", *wanted))) == {
        "train@words", "evaluate@words", "finetune@tuned", "evaluate_finetuned@tuned",
    }  # fmt: skip

    config = project / "configs/backbones/mbert_tiny.yaml"
    config.write_text(config.read_text().replace("seed: 0", "seed: 1"))
    with (project / "speech/table.csv").open("a") as table:
        for i in range(10):
            write_wave(project / f"speech/wav/new{i}.wav", 0.6, 130 + 10 * i, seed=500 + i)
            table.write(f"wav/new{i}.wav,low,s{i % 6},a new sentence\n")
    changed = dvc(project, "repro", "evaluate@tones")
    assert stages_run(changed) == ["prepare", "extract@fbank", "train@tones", "evaluate@tones"]
    assert "extract fbank: 46 rows, 10 computed" in changed
    other_text = stages_run(dvc(project, "repro", "evaluate@tones", "evaluate@both"))
    assert other_text == ["extract@mbert_tiny", "train@both", "evaluate@both"]
