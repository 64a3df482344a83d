"""Our backbones behind the HEAR API, held against the API's own checker."""

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor

from stillwave.pipeline.audio.decode import resample
from stillwave.pipeline.backbones import BACKBONES, build_backbone, load_backbone
from stillwave.pipeline.backbones import hear_api as hear
from stillwave.pipeline.backbones.fbank import FbankConfig

CONFIGS = Path(__file__).parents[3] / "configs" / "backbones"
TINY = {"weights": "random", "size": "tiny"}
AUDIO: dict[str, dict[str, Any]] = {
    "fbank": {"kind": "fbank"},
    "fbank-8k": {"kind": "fbank", "sample_rate": 8000, "num_mels": 40},
    "wav2vec2": {"kind": "wav2vec2", **TINY},
    "wav2vec2-all": {"kind": "wav2vec2", **TINY, "layers": "all"},
    "ast": {"kind": "ast", **TINY},
    "whisper": {"kind": "whisper", "window": "clip", **TINY},
    "encodec": {"kind": "encodec", **TINY},
    "encodec-stereo": {"kind": "encodec", "model": "48khz", **TINY},
    "fastconformer": {"kind": "fastconformer", **TINY},
    "cnn1d": {"kind": "cnn1d", "clip_s": None},
    "sanet": {"kind": "sanet", "size": "tiny", "clip_s": None},
    "hear": {"kind": "hear", "module": "stillwave.pipeline.backbones.hear_api"},
}
EVEN = sorted(set(AUDIO) - {"encodec-stereo"})  # whose segments overlap by half a frame's hop


@pytest.fixture(scope="session")
def write(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    """`write(name)`: the path of a YAML with AUDIO[name]."""

    def write(name: str) -> str:
        path = tmp_path_factory.mktemp("hear") / f"{name}.yaml"
        path.write_text(yaml.safe_dump(AUDIO[name]))
        return str(path)

    return write


@pytest.fixture
def validator(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The API's checker. It imports tensorflow, of which it asks only whether a model is of it."""
    tensorflow = ModuleType("tensorflow")
    monkeypatch.setattr(tensorflow, "Module", type("Module", (), {}), raising=False)
    with monkeypatch.context() as during_import:
        during_import.setitem(sys.modules, "tensorflow", tensorflow)
        during_import.delitem(sys.modules, "hearvalidator.validate", raising=False)
        return importlib.import_module("hearvalidator.validate")


def noise(num_samples: int) -> Tensor:
    generator = torch.Generator().manual_seed(num_samples)
    return 0.1 * torch.randn(num_samples, generator=generator)


def test_every_audio_kind_is_tried() -> None:
    others = {"mbert", "onnx", "resemblyzer"}  # of text; of files that no config can replace
    assert {raw["kind"] for raw in AUDIO.values()} == set(BACKBONES) - others


# It warns where frames are more than 50 ms apart, which music transcription is too fine for.
@pytest.mark.filterwarnings("ignore:We suggest a interval between timestamps:UserWarning")
@pytest.mark.parametrize("name", EVEN)
def test_the_checker_of_the_api_agrees(name: str, write: Callable[[str], str], validator: Any) -> None:
    with torch.random.fork_rng(devices=[]):  # its noise is of the global generator
        validator.ValidateModel("stillwave.pipeline.backbones.hear_api", write(name), device="cpu")()


def test_the_checker_can_disagree(validator: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def uneven(audio: Tensor, model: hear.HearModel) -> tuple[Tensor, Tensor]:
        embeddings, timestamps = right(audio, model)
        return embeddings, timestamps.sqrt()

    right = hear.get_timestamp_embeddings
    monkeypatch.setattr(hear, "get_timestamp_embeddings", uneven)
    with torch.random.fork_rng(devices=[]), pytest.raises(validator.ModelError, match="regular intervals"):
        validator.ValidateModel("stillwave.pipeline.backbones.hear_api", "", device="cpu")()


@pytest.mark.parametrize("name", AUDIO)
def test_embeddings_are_the_backbones_frames(name: str, write: Callable[[str], str]) -> None:
    model = hear.load_model(write(name))
    backbone = build_backbone(load_backbone(write(name)))
    rate = backbone.sample_rate
    assert rate is not None
    audio = torch.stack([noise(model.sample_rate + 77), 3 * noise(model.sample_rate + 77)])
    embeddings, timestamps = hear.get_timestamp_embeddings(audio, model)
    ours = torch.stack([torch.from_numpy(resample(a.numpy(), model.sample_rate, rate)) for a in audio])
    batch = torch.stack([ours, ours], dim=2) if backbone.channels == 2 else ours
    expected = backbone(batch, torch.tensor([ours.shape[1]] * 2)).values.flatten(2)
    torch.testing.assert_close(embeddings, expected)
    assert embeddings.shape == (2, backbone.num_frames(ours.shape[1]), model.timestamp_embedding_size)
    assert timestamps.shape == embeddings.shape[:2]
    torch.testing.assert_close(timestamps[1].double() / 1000, backbone.frame_times(embeddings.shape[1]))
    scenes = hear.get_scene_embeddings(audio, model)
    torch.testing.assert_close(scenes, expected.mean(1))
    assert scenes.shape == (2, model.scene_embedding_size)


def test_numbers_of_the_default() -> None:
    model = hear.load_model()
    assert (model.sample_rate, model.timestamp_embedding_size, model.scene_embedding_size) == (
        16000,
        240,
        240,
    )
    _, timestamps = hear.get_timestamp_embeddings(torch.zeros(1, 720), model)
    assert timestamps.tolist() == [[12.5, 22.5, 32.5]]
    wav2vec2 = hear.load_model(str(CONFIGS / "wav2vec2_tiny.yaml"))
    assert not any(parameter.requires_grad for parameter in wav2vec2.parameters())
    _, timestamps = hear.get_timestamp_embeddings(torch.zeros(1, 1040), wav2vec2)
    assert timestamps.tolist() == [[12.5, 32.5, 52.5]]


def test_layers_lie_side_by_side(write: Callable[[str], str]) -> None:
    audio = noise(2000)[None]
    every, _ = hear.get_timestamp_embeddings(audio, hear.load_model(write("wav2vec2-all")))
    last, _ = hear.get_timestamp_embeddings(audio, hear.load_model(write("wav2vec2")))
    assert every.shape[2] == 4 * 96
    assert torch.equal(every[:, :, 3 * 96 :], last)


def test_too_short_a_sound_is_padded() -> None:
    model = hear.load_model()
    short = noise(123)[None]
    embeddings, timestamps = hear.get_timestamp_embeddings(short, model)
    padded = torch.nn.functional.pad(short, (0, 277))
    assert torch.equal(embeddings, hear.get_timestamp_embeddings(padded, model)[0])
    assert timestamps.tolist() == [[12.5]]


def test_what_hear_cannot_take_is_refused(write: Callable[[str], str]) -> None:
    with pytest.raises(ValueError, match="Mbert encodes text; a HEAR module needs an audio backbone"):
        hear.load_model(str(CONFIGS / "mbert_tiny.yaml"))
    with pytest.raises(ValueError, match=r"`sample_rate` 96000 Hz: a HEAR module has at most 48000 Hz"):
        hear.HearModel(build_backbone(FbankConfig(kind="fbank", sample_rate=96000)))
    with pytest.raises(
        ValueError, match=r"audio of shape \(5,\): a HEAR module takes \(n_sounds, n_samples\)"
    ):
        hear.get_timestamp_embeddings(torch.zeros(5), hear.load_model())
    with pytest.raises(ValueError, match="model is a Linear: pass what load_model of this module returned"):
        hear.get_timestamp_embeddings(torch.zeros(1, 500), torch.nn.Linear(1, 1))  # type: ignore[arg-type]
