"""What a store's fingerprint names beside the backbone."""

import re
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import pytest
import soundfile

from stillwave.cache.differences import differences
from stillwave.pipeline.backbones import Backbone, build_backbone
from stillwave.pipeline.backbones import fingerprint as module
from stillwave.pipeline.backbones.fingerprint import fingerprint, layer_numbers


def test_every_library_that_makes_the_numbers_is_named_with_its_version(backbone: Backbone) -> None:
    named = fingerprint(backbone)["libraries"]
    audio = {"soxr", "libsndfile"} if backbone.modality == "audio" else set()
    assert named.keys() == {*backbone.libraries} | audio
    library = "onnxruntime" if backbone.config.kind == "onnx" else "torch"
    assert named[library] == ".".join(version(library).split(".")[:2])
    assert all(re.fullmatch(r"\d+\.\d+\w*", text) for text in named.values()), named
    if audio:
        assert soundfile.__libsndfile_version__.startswith(named["libsndfile"])


def test_another_way_of_reading_audio_makes_another_store(
    configure: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    speech, text = (build_backbone(configure(name)) for name in ("fbank", "mbert-tiny"))
    before = fingerprint(speech)
    assert "audio_version" not in fingerprint(text)
    monkeypatch.setattr(module, "AUDIO_VERSION", module.AUDIO_VERSION + 1)
    old, new = module.AUDIO_VERSION - 1, module.AUDIO_VERSION
    assert differences(before, fingerprint(speech)) == [f"audio_version: stored {old}, now {new}"]


def test_a_library_of_another_minor_version_makes_another_store(
    configure: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    speech = build_backbone(configure("fbank"))
    before = fingerprint(speech)
    monkeypatch.setattr(module, "version", lambda name: "99.1.7" if name == "torch" else version(name))
    (found,) = differences(before, fingerprint(speech))
    assert found.startswith("libraries.torch: stored ")
    assert found.endswith("now '99.1'")


def test_layers_have_the_numbers_of_the_backbones_config_if_it_has_any(
    configure: Callable[..., Any],
) -> None:
    config = configure("mbert-tiny").model_copy(update={"layers": (2, 0, -1)})
    assert layer_numbers(fingerprint(build_backbone(config)), 3) == [2, 0, 3]
    assert layer_numbers(fingerprint(build_backbone(configure("fbank"))), 1) == [0]
    assert layer_numbers({"config": {"layers": 2}}, 2) == [0, 1]  # a field of somebody else's backbone
    assert layer_numbers({"config": {"layers": [7, 8, 9]}}, 2) == [0, 1]
