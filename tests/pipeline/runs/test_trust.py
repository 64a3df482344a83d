"""Somebody else's run: nothing that its config.json names is imported, fetched or followed."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from stillwave.pipeline.config.backbone import FbankConfig
from stillwave.pipeline.config.recipe import Recipe
from stillwave.pipeline.corpora.manifest import read_manifest, write_manifest
from stillwave.pipeline.evaluate.stage import evaluate
from stillwave.pipeline.extract.stage import extract
from stillwave.pipeline.predict.enroll import enroll
from stillwave.pipeline.predict.export import export
from stillwave.pipeline.predict.predictor import Predictor
from stillwave.pipeline.runs.run import Run
from stillwave.pipeline.runs.trust import without_consequences
from stillwave.pipeline.train.stage import train
from tests.fakes import write_speech

MODULE = "somebodys_module"


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on fbank frames."""
    root = tmp_path_factory.mktemp("trust")
    write_speech(root, count=12)
    manifest = read_manifest(root / "manifest.parquet")
    extract(FbankConfig(kind="fbank", deltas=0), manifest, root / "fbank.zarr")
    recipe = Recipe.model_validate(
        {
            "backbones": ["fbank"],
            "label": "word",
            "head": {"kind": "pooled", "hidden": [4]},
            "train": {"epochs": 1, "valid_fraction": 0.3},
        }
    )
    return train(recipe, manifest, root, root / "run", manifest_path=root / "manifest.parquet", device="cpu")


@pytest.fixture
def changed(own: Path) -> Callable[..., Path]:
    """The run with other values in its config.json; as it was, for the next test."""
    file = own / "config.json"
    before = file.read_text()

    def change(**values: object) -> Path:
        file.write_text(json.dumps(json.loads(before) | values))
        return own

    yield change
    file.write_text(before)


@pytest.fixture
def trap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A module that leaves a file when it is imported; returns that file."""
    trace = tmp_path / "was-imported"
    (tmp_path / f"{MODULE}.py").write_text(f"open({str(trace)!r}, 'w').close()\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, MODULE, raising=False)
    return trace


@pytest.mark.parametrize("settings", [{"kind": "hear", "module": MODULE}])
def test_a_module_that_a_run_names_is_not_imported(
    settings: dict[str, str], changed: Callable[..., Path], trap: Path, tmp_path: Path
) -> None:
    run = changed(backbones={"frames": settings})
    clip = run.parent / "wav" / "00.wav"
    for use in (
        lambda: Predictor.load(run),
        lambda: enroll(run, "ann", [(clip, "low"), (clip, "high")]),
        lambda: export(run, tmp_path / "a.onnx"),
        lambda: Run.open(run).encoders(),
    ):
        with pytest.raises(ValueError, match=rf"backbones.frames: kind hear imports {MODULE}.*--trust-run"):
            use()
    assert not trap.exists()
    with pytest.raises(ValueError, match=MODULE):  # which is no HEAR module
        Predictor.load(Run.open(run, trusted=True))
    assert trap.exists()


def test_a_url_that_a_run_names_is_not_followed(own: Path, changed: Callable[..., Path]) -> None:
    url = "memory://somebody/manifest.parquet"
    write_manifest(read_manifest(own.parent / "manifest.parquet"), url)
    run = changed(manifest=url)
    with pytest.raises(ValueError, match=f"manifest is the URL {url}, which is not followed.*--manifest"):
        evaluate(run, device="cpu")
    evaluate(run, device="cpu", manifest=url)
    assert evaluate(Run.open(run, trusted=True), device="cpu")["run"]["manifest"] == url
    run = changed(embeddings="memory://somebody/stores")
    with pytest.raises(ValueError, match=r"embeddings is the URL memory://somebody/stores.*--trust-run"):
        evaluate(run, device="cpu")


def test_nothing_is_downloaded_for_a_run() -> None:
    settings = {"kind": "wav2vec2", "weights": "somebody/model", "download": True}
    assert without_consequences(settings, "config.json")["download"] is False
    nemo = {"kind": "fastconformer", "weights": "a.nemo", "implementation": "nemo"}
    with pytest.raises(ValueError, match=r"implementation nemo builds the classes that a\.nemo names"):
        without_consequences(nemo, "config.json")
    with pytest.raises(ValueError, match=r"kind custom imports bad\.module:Bad"):
        without_consequences({"kind": "custom", "class": "bad.module:Bad"}, "config.json")
