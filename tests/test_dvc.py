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
    "transcribe": [],
    "manifest": "data/manifest.parquet",
    "backbones": ["fbank", "mbert_tiny"],
    "recipes": {
        "tones": ["fbank", "fbank", "fbank"],
        "both": ["fbank", "mbert_tiny", "mbert_tiny"],
    },
    "finetune": {"tuned": {"backbone": "cnn1d", "options": "", "after": "data/manifest.parquet"}},
}
TONES = {
    "backbones": ["fbank"],
    "label": "word",
    "head": {"kind": "segment", "num_heads": 4, "hidden": 16},
    "train": {"epochs": 2, "batch_size": 8},
}

FUSION = {
    "backbones": ["fbank", "mbert_tiny"],
    "modalities": ["audio", "text"],
    "label": "word",
    "head": {"kind": "fusion_openmax", "shared_dim": 8, "num_heads": 2, "depth": 2, "base_dim": 16},
    "losses": {"focal": 0.3},
    "train": {"epochs": 2, "batch_size": 8},
}

TUNED = {
    "backbones": ["cnn1d"],
    "label": "word",
    "head": {"kind": "pooled", "hidden": [8]},
    "finetune": {"unfreeze": "all", "learning_rate": 1e-3},
    "train": {"epochs": 1, "batch_size": 12},
}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A DVC repository with this project's dvc.yaml and code, and a corpus and recipes of its own."""
    for name in ("analysis", "pipeline", "heads", "cache"):
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
        "configs/recipes/tones.yaml": yaml.safe_dump(TONES),
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
    wanted = ("evaluate@tones", "evaluate@both", "evaluate_finetuned@tuned")
    everything = dvc(project, "repro", *wanted, "report")
    assert set(stages_run(everything)) == {
        "prepare", "extract@fbank", "extract@mbert_tiny", "train@tones", "train@both", "finetune@tuned",
        *wanted, "report",
    }  # fmt: skip
    assert "reports/runs/tones/summary.json" in dvc(project, "metrics", "show")
    page = (project / "reports/index.html").read_text()
    assert [f"<h2>{run}</h2>" in page for run in ("both", "tones", "tuned")] == 3 * [True]
    dvc(project, "plots", "show", "-o", "plots")
    assert (project / "plots/index.html").exists()
    shown = {file.name for file in (project / "plots/static").iterdir()}
    for run, pictures in {"tones": "confusion reliability curves per_speaker", "both": "losses"}.items():
        for name in pictures.split():
            assert f"workspace_reports_runs_{run}_plots_{name}.png" in shown
    assert (project / "runs/tones/fold_0/live/plots/metrics/train_loss.tsv").exists()

    (project / "configs/recipes/tuned.yaml").write_text(yaml.safe_dump(TUNED | {"classes": ["high", "low"]}))
    assert stages_run(dvc(project, "repro", *wanted)) == ["finetune@tuned", "evaluate_finetuned@tuned"]

    assert "Split and leaks" in (project / "data/corpus.html").read_text()
    style = project / "analysis/corpus_page/corpus.css"
    style.write_text(style.read_text() + "p { color: red; }\n")
    assert stages_run(dvc(project, "repro", *wanted)) == ["prepare"]  # its manifest stays the same

    config = project / "configs/backbones/mbert_tiny.yaml"
    config.write_text(config.read_text().replace("seed: 0", "seed: 1"))
    other_text = stages_run(dvc(project, "repro", *wanted))
    assert other_text == ["extract@mbert_tiny", "train@both", "evaluate@both"]

    with (project / "speech/table.csv").open("a") as table:
        for i in range(10):
            write_wave(project / f"speech/wav/new{i}.wav", 0.6, 130 + 10 * i, seed=500 + i)
            table.write(f"wav/new{i}.wav,low,s{i % 6},a new sentence\n")
    added = dvc(project, "repro", "evaluate@tones")
    assert stages_run(added) == ["prepare", "extract@fbank", "train@tones", "evaluate@tones"]
    assert "extract fbank: 46 rows, 10 computed" in added
