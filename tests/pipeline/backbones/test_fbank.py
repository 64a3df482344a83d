"""Filter bank numbers against Kaldi's own code, transformers' and a naive loop."""

from collections.abc import Callable
from typing import Any

import kaldi_native_fbank
import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import audio_utils

from stillwave.pipeline.backbones import parse_backbone
from stillwave.pipeline.backbones.fbank import LOG_FLOOR, Fbank, FbankConfig, deltas
from stillwave.pipeline.config.base import ConfigError


@pytest.mark.parametrize(
    ("settings", "num_samples"),
    [
        pytest.param({}, 48000, id="defaults"),
        pytest.param({}, 400, id="one frame"),
        pytest.param({"num_mels": 23, "low_hz": 64, "high_hz": 7600}, 16001, id="narrow band"),
        pytest.param({"sample_rate": 8000, "num_mels": 40}, 8000, id="telephone"),
        pytest.param({"num_mels": 40, "window_s": 0.032, "hop_s": 0.008}, 16000, id="long window"),
    ],
)
def test_kaldi_option_equals_kaldi(
    settings: dict[str, Any],
    num_samples: int,
    waveform: Callable[[int], Tensor],
    alone: Callable[..., Tensor],
) -> None:
    config = FbankConfig(kind="fbank", kaldi=True, deltas=0, **settings)
    ours = alone(Fbank(config), waveform(num_samples)).numpy()
    options = kaldi_native_fbank.FbankOptions()
    options.frame_opts.dither = 0
    options.frame_opts.samp_freq = config.sample_rate
    options.frame_opts.frame_length_ms = 1000 * config.window_s
    options.frame_opts.frame_shift_ms = 1000 * config.hop_s
    options.mel_opts.num_bins = config.num_mels
    options.mel_opts.low_freq = config.low_hz
    options.mel_opts.high_freq = config.high_hz or 0
    kaldi = kaldi_native_fbank.OnlineFbank(options)
    kaldi.accept_waveform(config.sample_rate, (waveform(num_samples) * 32768).tolist())
    kaldi.input_finished()
    theirs = np.stack([kaldi.get_frame(i) for i in range(kaldi.num_frames_ready)])
    assert ours.shape == theirs.shape
    # Natural logs. Both round in fp32, which shows where pre-emphasis leaves little energy.
    assert np.abs(ours - theirs).max() < 1e-3
    assert np.abs(ours - theirs).mean() < 1e-5


def test_default_equals_an_independent_reference(
    waveform: Callable[[int], Tensor], alone: Callable[..., Tensor]
) -> None:
    filters = audio_utils.mel_filter_bank(257, 80, 20, 8000, 16000, norm=None, mel_scale="htk")
    reference = audio_utils.spectrogram(
        waveform(16000).double().numpy(),
        audio_utils.window_function(400, "hann", periodic=True),
        frame_length=400,
        hop_length=160,
        fft_length=512,
        power=2.0,
        center=False,
        mel_filters=filters,
        mel_floor=LOG_FLOOR,
        log_mel="log",
    ).T
    ours = alone(Fbank(FbankConfig(kind="fbank", deltas=0)), waveform(16000)).numpy()
    assert ours.shape == reference.shape == (98, 80)
    assert np.abs(ours - reference).max() < 1e-3
    assert np.abs(ours - reference).mean() < 1e-5


def naive_deltas(frames: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """HTK Book eq. 5.16 as it is printed, in float64."""
    result = np.zeros(frames.shape)
    for t in range(len(frames)):
        for n in (1, 2):
            after, before = frames[min(t + n, len(frames) - 1)], frames[max(t - n, 0)]
            result[t] += n * (after - before) / (2 * (1**2 + 2**2))
    return result


@pytest.mark.parametrize("num_frames", [1, 2, 3, 7, 40])
def test_deltas_equal_a_naive_loop(num_frames: int) -> None:
    frames = torch.randn(num_frames, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    padded = torch.cat([frames, torch.full((4, 5), 1e6, dtype=torch.float64)])
    result = deltas(padded[None], torch.tensor([num_frames]))[0, :num_frames]
    np.testing.assert_allclose(result.numpy(), naive_deltas(frames.numpy()), atol=1e-12)


def test_frames_are_log_mel_then_deltas(
    waveform: Callable[[int], Tensor], alone: Callable[..., Tensor]
) -> None:
    values = alone(Fbank(FbankConfig(kind="fbank")), waveform(8000)).double().numpy()
    static, first, second = np.split(values, 3, axis=1)
    np.testing.assert_allclose(first, naive_deltas(static), atol=1e-5)
    np.testing.assert_allclose(second, naive_deltas(first), atol=1e-5)


@pytest.mark.parametrize("kaldi", [False, True])
def test_digital_silence_meets_the_floor(kaldi: bool, alone: Callable[..., Tensor]) -> None:
    values = alone(Fbank(FbankConfig(kind="fbank", kaldi=kaldi, deltas=0)), torch.zeros(800))
    floor = np.log(np.finfo(np.float32).eps if kaldi else LOG_FLOOR)
    np.testing.assert_allclose(values.numpy(), floor, rtol=1e-6)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        pytest.param({"low_hz": 5000, "high_hz": 4000}, r"low_hz 5000.* < high_hz <= 8000", id="band"),
        pytest.param({"high_hz": 9000}, r"high_hz 9000.* <= 8000.* \(half of sample_rate\)", id="nyquist"),
        pytest.param({"hop_s": 1e-6}, r"hop_s 1e-06 must span", id="hop"),
        pytest.param({"precision": "bf16"}, r"precision.*'fp32'", id="precision"),
        pytest.param({"num_mel": 80}, r"num_mel.*[Ee]xtra", id="typo"),
    ],
)
def test_config_errors_name_field_and_bound(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_backbone({"kind": "fbank", **settings}, "fbank.yaml", trusted=True)


def test_filters_finer_than_the_fft_are_refused() -> None:
    with pytest.raises(ValueError, match=r"`num_mels` 200: \d+ filters fall between bins of a 512-point FFT"):
        Fbank(FbankConfig(kind="fbank", num_mels=200))
