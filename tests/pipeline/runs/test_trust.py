"""Somebody else's run: nothing that its config.json names is imported, fetched or followed."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from stillwave.pipeline.backbones.fbank import FbankConfig
from stillwave.pipeline.config.recipe import Recipe
from stillwave.pipeline.corpora.manifest import read_manifest, write_manifest
from stillwave.pipeline.evaluate.stage import evaluate
from stillwave.pipeline.extract.stage import extract
from stillwave.pipeline.predict.enroll import enroll
from stillwave.pipeline.predict.export import export
from stillwave.pipeline.predict.predictor import Predictor
from stillwave.pipeline.runs.run import Run
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


@pytest.mark.parametrize(
    "settings",
    [
        {"kind": "hear", "module": MODULE},
        {"kind": "custom", "class": f"{MODULE}:Anything"},
        {"kind": "fastconformer", "weights": f"{MODULE}.nemo", "implementation": "nemo"},
    ],
)
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
        with pytest.raises(ValueError, match=rf"backbones.frames: .*{MODULE}.*--trust-run"):
            use()
    assert not trap.exists()
    with pytest.raises(ValueError, match=MODULE):  # which is neither
        Predictor.load(Run.open(run, trusted=True))
    assert trap.exists() == (settings["kind"] != "fastconformer")


def test_a_head_that_a_run_names_is_not_imported(
    own: Path, changed: Callable[..., Path], trap: Path, tmp_path: Path
) -> None:
    kept = json.loads((own / "config.json").read_text())["recipe"]
    run = changed(recipe=kept | {"head": {"kind": "custom", "class": f"{MODULE}:Head"}})
    for use in (
        lambda: Predictor.load(run),
        lambda: export(run, tmp_path / "a.onnx"),
        lambda: evaluate(run, device="cpu"),
        lambda: Run.open(run).model(0),
    ):
        with pytest.raises(
            ValueError, match=r"config.json: `head.class`: kind custom imports it.*--trust-run"
        ):
            use()
    assert Run.open(run).training_digest()  # what a report asks needs no head
    assert not trap.exists()
    with pytest.raises(ValueError, match=f"the module {MODULE} has no Head"):
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
    for place in ("memory://somebody/stores", "memory:/", "S3:"):
        run = changed(embeddings=place)
        with pytest.raises(ValueError, match=rf"embeddings is the URL {place}.*--trust-run"):
            evaluate(run, device="cpu")
    assert Run.open(changed(embeddings="file:///stores")).place("embeddings") == "file:///stores"


def test_a_run_names_no_file_among_ones_own_configs(
    own: Path, changed: Callable[..., Path], trap: Path
) -> None:
    """`--backbones FOLDER` is what to give for a run that is not trusted: the run may not lead out of it."""
    theirs, mine = own.parent / "theirs", own.parent / "mine"
    for folder in (theirs, mine):
        folder.mkdir(exist_ok=True)
    (theirs / "evil.yaml").write_text(f"kind: hear\nmodule: {MODULE}\n")
    recipe = json.loads((own / "config.json").read_text())["recipe"]
    for name in ("../theirs/evil", str(theirs / "evil"), "..", ".hidden"):
        run = changed(recipe=recipe | {"backbones": [name]})
        with pytest.raises(ValueError, match=r"config\.json: `recipe\.backbones|config\.json: `backbones"):
            Predictor.load(run, backbones=mine)
    assert not trap.exists()


def test_a_model_that_a_run_names_is_not_downloaded(changed: Callable[..., Path]) -> None:
    run = changed(backbones={"frames": {"kind": "wav2vec2", "weights": "somebody/model"}})
    with pytest.raises(ValueError, match=r"`weights` somebody/model would be downloaded.*--trust-run"):
        Predictor.load(run)
