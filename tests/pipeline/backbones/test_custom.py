"""Backbones of users' own, and which configs are taken from whom."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from stillwave.cache import EmbeddingStore
from stillwave.pipeline.audio.segments import load_waveform
from stillwave.pipeline.backbones import build_backbone, load_backbone, parse_backbone
from stillwave.pipeline.config.base import ConfigError
from stillwave.pipeline.corpora.manifest import read_manifest
from stillwave.pipeline.extract.stage import extract
from tests.fakes import write_speech

SOURCE = """
import torch
from pydantic import Field
from torch import nn

from stillwave.pipeline.backbones import Backbone, Frames
from stillwave.pipeline.backbones.config import CustomConfig


class LoudnessConfig(CustomConfig):
    window: int = Field(400, ge=2)


class Loudness(Backbone):
    config_type = LoudnessConfig
    modality = "audio"
    version = 3
    sample_rate = 16_000
    dim = 2
    first_centre = 200.0

    def __init__(self, config):
        super().__init__()
        self.config = config
        self.hop_length = config.window
        self.scale = nn.Parameter(torch.tensor([1.0, 2.0]))

    def num_frames(self, length):
        return length // self.config.window

    def forward(self, batch, lengths):
        windows = batch.unfold(1, self.config.window, self.config.window)
        frames = torch.stack([windows.abs().mean(-1), windows.std(-1)], dim=-1)
        return Frames(frames * self.scale, lengths // self.config.window)


class NoConfig(Backbone):
    pass


def function(config):
    pass
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a module outside the package that Python finds."""
    monkeypatch.syspath_prepend(tmp_path)
    name = "own_backbones_of_a_test"
    monkeypatch.delitem(sys.modules, name, raising=False)
    (tmp_path / f"{name}.py").write_text(SOURCE)
    return name


def test_a_backbone_from_outside_fills_a_store(module: str, tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text(f"kind: custom\nclass: {module}:Loudness\nwindow: 320\n")
    config = load_backbone(tmp_path / "own.yaml", ["window=160"])
    backbone = build_backbone(config)
    manifest = read_manifest(write_speech(tmp_path, count=6) / "manifest.parquet")
    extract(config, manifest, tmp_path / "own.zarr", device="cpu")
    store = EmbeddingStore(tmp_path / "own.zarr")
    assert store.ids.tolist() == manifest["id"].tolist()
    for i, path in enumerate(manifest["path"]):
        waveform = torch.from_numpy(load_waveform(path, 16_000))
        expected = backbone(waveform[None], torch.tensor([len(waveform)])).values[0]
        np.testing.assert_allclose(store[i], expected, rtol=2e-3, atol=1e-4)
    assert extract(config, manifest, tmp_path / "own.zarr", device="cpu").forwards == 0
    # What is kept of it is enough to build it again.
    again = parse_backbone(json.loads(json.dumps(store.made_with)), "store", trusted=True)
    assert again == config
    assert {key: store.fingerprint[key] for key in ("kind", "version", "config")} == {
        "kind": "custom",
        "version": 3,
        "config": {
            "storage_dtype": "float16", "kind": "custom", "class": f"{module}:Loudness",
            "precision": "fp32", "window": 160,
        },
    }  # fmt: skip
    with torch.no_grad():
        backbone.scale.mul_(2)
    assert backbone.fingerprint()["weights"] != store.fingerprint["weights"]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"class": "Loudness"}, "^own.yaml: `class` Loudness: write package.module:Name$"),
        ({"class": "no_such_module_at_all:X"}, "^own.yaml: `class` .* cannot be imported: .*PYTHONPATH"),
        ({"class": "{module}:Loud"}, "^own.yaml: `class` .*: the module .* has no Loud$"),
        ({"class": "{module}:function"}, "^own.yaml: `class` .*:function: not a subclass of Backbone"),
        ({"class": "{module}:LoudnessConfig"}, "not a subclass of Backbone"),
        ({"class": "{module}:NoConfig"}, "its `config_type` must be a subclass of CustomConfig"),
        ({"class": "stillwave.pipeline.backbones.fbank:Fbank"}, "must be a subclass of CustomConfig"),
        ({"class": "{module}:Loudness", "windw": 3}, r"^own.yaml: `windw`: Extra inputs .* \(got 3\)"),
        ({"class": "{module}:Loudness", "window": 1}, r"^own.yaml: `window`: .* greater .* \(got 1\)"),
        ({"class": "{module}:Loudness", "precision": "bf16"}, r"^own.yaml: `precision`: .*\(got 'bf16'\)"),
        ({}, r"^own.yaml: `class`: Field required"),
    ],
)
def test_what_is_wrong_with_a_class_is_said(module: str, fields: dict[str, Any], message: str) -> None:
    fields = {key: value.format(module=module) if key == "class" else value for key, value in fields.items()}
    with pytest.raises(ConfigError, match=message):
        parse_backbone({"kind": "custom", **fields}, "own.yaml", trusted=True)


RUNS = r", which runs code that the run's author chose\. If you trust .*, give --trust-run"
LOADS = r"would be downloaded\. If you trust .*, give --trust-run"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ({"kind": "custom", "class": "{module}:Loudness"}, f"kind custom imports {{module}}:Loudness{RUNS}"),
        ({"kind": "hear", "module": "{module}"}, f"kind hear imports {{module}}{RUNS}"),
        (
            {"kind": "fastconformer", "implementation": "nemo", "weights": "their.nemo"},
            f"implementation nemo builds the classes that their.nemo names{RUNS}",
        ),
        ({"kind": "wav2vec2", "weights": "https://host/x"}, f"`weights` https://host/x {LOADS}"),
        ({"kind": "wav2vec2", "weights": "nobody/has-this"}, f"`weights` nobody/has-this {LOADS}"),
        ({"kind": "encodec", "implementation": "encodec"}, f"`weights` published {LOADS}"),
    ],
)
def test_what_came_with_a_run_runs_no_code_and_downloads_nothing(
    module: str, data: dict[str, Any], reason: str
) -> None:
    data = {key: value.format(module=module) for key, value in data.items()}
    otherwise = r"\. Otherwise give a folder .* with --backbones"
    said = rf"^runs/a/config.json: {reason.format(module=module)}.*{otherwise}$"
    with pytest.raises(ValueError, match=said):
        parse_backbone(data, "runs/a/config.json", trusted=False)
    assert module not in sys.modules
    parse_backbone(data, "runs/a/config.json", trusted=True)


def test_what_is_at_hand_needs_no_trust(folders: dict[str, Path]) -> None:
    for data in (
        {"kind": "fbank"},
        {"kind": "cnn1d"},
        {"kind": "wav2vec2", "weights": "random", "size": "tiny"},
        {"kind": "fastconformer", "implementation": "nemo", "weights": "random", "size": "tiny"},
        {"kind": "wav2vec2", "weights": str(folders["group"])},
    ):
        given, found = (parse_backbone(data, "test", trusted=trusted) for trusted in (True, False))
        assert found.fingerprint_fields() == given.fingerprint_fields()
        assert getattr(found, "download", False) is False


def test_a_model_in_the_local_cache_needs_no_trust(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = tmp_path / "hub/models--some--model"
    (hub / "refs").mkdir(parents=True)
    (hub / "refs/main").write_text("c0ffee")
    (hub / "snapshots").mkdir()
    (hub / "snapshots/c0ffee").symlink_to(folders["group"])
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    config = parse_backbone({"kind": "wav2vec2", "weights": "some/model"}, "test", trusted=False)
    assert config.download is False  # type: ignore[attr-defined]


def test_a_config_loads_the_module_of_its_own_kind_alone() -> None:
    code = (
        "import sys; from stillwave.pipeline.backbones import load_backbone; "
        "load_backbone('configs/backbones/fbank.yaml'); "
        "print(*sorted(name for name in sys.modules if name.startswith('stillwave.pipeline.backbones.')))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    names = {name.removeprefix("stillwave.pipeline.backbones.") for name in done.stdout.split()}
    assert names == {"base", "config", "fbank", "numerics", "quiet", "weights"}
