"""Decoding, resampling, and every reason to refuse a file."""

import hashlib
import pickle
import struct
from fractions import Fraction
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stillwave.pipeline.audio.decode import (
    REASONS,
    BadAudio,
    decode,
    resample,
    resampled_length,
)
from stillwave.pipeline.audio.segments import load_waveform
from tests.zoo import RATE, encode, tone


def reason(source: bytes | Path, **limits: Any) -> str:
    with pytest.raises(BadAudio) as caught:
        decode(source, **limits)
    assert caught.value.reason in REASONS
    return caught.value.reason


LOSSLESS = [  # format, subtype, largest error in units of full scale
    ("WAV", "PCM_U8", 1 / 128),
    ("WAV", "PCM_16", 1 / 32768),
    ("WAV", "PCM_24", 1e-6),
    ("WAV", "PCM_32", 1e-6),
    ("WAV", "FLOAT", 0),
    ("WAV", "DOUBLE", 0),
    ("WAV", "ULAW", 1 / 32),
    ("WAV", "ALAW", 1 / 32),
    ("WAVEX", "PCM_16", 1 / 32768),
    ("RF64", "PCM_16", 1 / 32768),
    ("W64", "PCM_16", 1 / 32768),
    ("AIFF", "PCM_16", 1 / 32768),
    ("CAF", "PCM_16", 1 / 32768),
    ("AU", "PCM_16", 1 / 32768),
    ("FLAC", "PCM_16", 1 / 32768),
    ("FLAC", "PCM_24", 1e-6),
    ("OGG", "VORBIS", 0.05),
]


@pytest.mark.parametrize(("container", "subtype", "error"), LOSSLESS)
def test_a_format_round_trips_within_its_quantisation(container: str, subtype: str, error: float) -> None:
    samples = tone()
    decoded, rate = decode(encode(samples, format=container, subtype=subtype))
    assert decoded.dtype == np.float32
    assert rate == RATE
    assert decoded.shape == samples.shape
    assert np.abs(decoded - samples).max() <= error


def test_a_codec_that_cannot_seek_is_read_all_the_same() -> None:
    samples = tone(1.0, rate=8000)
    decoded, _ = decode(encode(samples, 8000, format="WAV", subtype="GSM610"))
    assert abs(len(decoded) - len(samples)) <= 320  # whole blocks
    assert np.corrcoef(decoded[: len(samples)], samples[: len(decoded)])[0, 1] > 0.9


def test_mp3_keeps_length_level_and_pitch() -> None:
    samples = tone(2.0)
    decoded, rate = decode(encode(samples, format="MP3", subtype="MPEG_LAYER_III"))
    assert rate == RATE
    assert abs(len(decoded) - len(samples)) <= 1152
    middle = decoded[4000:28000]
    assert np.sqrt(np.mean(middle**2)) == pytest.approx(0.5 / np.sqrt(2), rel=0.02)
    assert np.abs(np.fft.rfft(middle)).argmax() == round(440 * len(middle) / RATE)


def test_channels_are_averaged() -> None:
    left, right = tone(hz=300), tone(hz=500)
    decoded, _ = decode(encode(np.stack([left, right, -left], axis=1), format="WAV", subtype="FLOAT"))
    np.testing.assert_allclose(decoded, right / 3, atol=1e-7)


def test_two_channels_are_kept_and_any_other_number_becomes_two_equal_ones() -> None:
    left, right = tone(hz=300), tone(hz=500)
    wav: dict[str, Any] = {"format": "WAV", "subtype": "FLOAT"}
    stereo, rate = decode(encode(np.stack([left, right], axis=1), **wav), channels=2)
    assert (stereo.dtype, rate) == (np.float32, RATE)
    np.testing.assert_array_equal(stereo, np.stack([left, right], axis=1))
    mono, _ = decode(encode(left, **wav), channels=2)
    np.testing.assert_array_equal(mono, np.stack([left, left], axis=1))
    three, _ = decode(encode(np.stack([left, right, -left], axis=1), **wav), channels=2)
    np.testing.assert_allclose(three, np.stack([right, right], axis=1) / 3, atol=1e-7)


def test_stereo_is_refused_as_mono_is() -> None:
    samples = np.stack([tone(), tone(hz=500)], axis=1)
    samples[7] = np.nan
    samples[9, 1] = np.inf
    with pytest.raises(BadAudio, match="2 of 16000 samples are NaN or infinite"):
        decode(encode(samples, format="WAV", subtype="FLOAT"), channels=2)
    assert reason(encode(samples[:800], format="WAV"), min_duration_s=0.06, channels=2) == "too_short"
    with pytest.raises(ValueError, match="channels 3: waveforms have 1 or 2"):
        decode(encode(tone(), format="WAV"), channels=3)


CUTTABLE = [
    ("WAV", "PCM_16"),
    ("WAV", "DOUBLE"),
    ("WAV", "IMA_ADPCM"),
    ("WAVEX", "PCM_24"),
    ("RF64", "PCM_16"),
    ("W64", "PCM_16"),
    ("AIFF", "PCM_16"),
    ("CAF", "PCM_16"),
    ("AU", "PCM_16"),
    ("FLAC", "PCM_16"),
    ("OGG", "VORBIS"),
    ("OGG", "OPUS"),
    ("MP3", "MPEG_LAYER_III"),
]


@pytest.mark.parametrize("keep", [0.2, 0.5, 0.9])
@pytest.mark.parametrize(("container", "subtype"), CUTTABLE)
def test_a_file_cut_short_is_truncated(container: str, subtype: str, keep: float) -> None:
    data = encode(tone(3.0), format=container, subtype=subtype)
    decode(data)
    assert reason(data[: int(keep * len(data))]) == "truncated"


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
def test_an_ogg_without_its_last_page_is_truncated(subtype: str) -> None:
    data = encode(tone(3.0), format="OGG", subtype=subtype)
    assert reason(data[: data.rindex(b"OggS")]) == "truncated"


def test_one_missing_sample_of_a_wav_is_noticed() -> None:
    assert reason(encode(tone(), format="WAV", subtype="PCM_16")[:-2]) == "truncated"


@pytest.mark.parametrize("size", [0xFFFFFFFF, 0x7FFFFFFF])
def test_a_wav_streamed_to_a_pipe_has_no_promise_to_break(size: int) -> None:
    data = encode(tone(), format="WAV", subtype="PCM_16")
    start = data.index(b"data") + 4
    streamed = data[:start] + struct.pack("<I", size) + data[start + 4 :]
    decoded, _ = decode(streamed)
    np.testing.assert_array_equal(decoded, decode(data)[0])


def test_refusals(tmp_path: Path) -> None:
    wav: dict[str, Any] = {"format": "WAV", "subtype": "FLOAT"}
    broken = tone()
    broken[7] = np.nan
    endless = tone().astype(np.float64)
    endless[9] = np.inf
    huge = tone().astype(np.float64)
    huge[3] = 1e300  # finite in the file, infinite in float32
    assert reason(tmp_path / "nowhere.wav") == "missing"
    assert reason(tmp_path) == "missing"
    assert reason(b"") == "empty"
    assert reason(b"Dear diary, this is no sound at all. " * 50) == "not_audio"
    assert reason(b"RIFF\x10\x00\x00\x00AVI LIST" + bytes(100)) == "unsupported"
    assert reason(encode(broken, **wav)) == "non_finite"
    assert reason(encode(endless, format="WAV", subtype="DOUBLE")) == "non_finite"
    assert reason(encode(huge, format="WAV", subtype="DOUBLE")) == "non_finite"
    assert reason(encode(tone(0.0), **wav)) == "zero_length"
    assert reason(encode(tone(0.1), **wav), min_duration_s=0.2) == "too_short"
    assert reason(encode(tone(0.3), **wav), max_duration_s=0.2) == "too_long"


@given(
    st.binary(min_size=1, max_size=300),
    st.sampled_from(
        b"|RIFF|OggS|fLaC|caff|riff|.snd|NIST|Crea|MATL|PVF1|2BIT|\0\0\0\x18ftyp|\x1aE\xdf\xa3|#!AMR\n|"
        b"ID3\3\0\0\0\0\0\1|\xff\xfb\x90\0|wvPK".split(b"|")
    ),
)
def test_no_bytes_raise_anything_else(noise: bytes, magic: bytes) -> None:
    with pytest.raises(BadAudio):
        decode(magic + noise)


def test_a_limit_is_itself_allowed() -> None:
    decoded, _ = decode(encode(tone(0.5)[:8000], format="WAV"), min_duration_s=0.5, max_duration_s=0.5)
    assert len(decoded) == 8000


def test_bad_audio_survives_pickling() -> None:
    error = pickle.loads(pickle.dumps(BadAudio("too_long", "31 s")))
    assert (error.reason, error.detail, str(error)) == ("too_long", "31 s", "too_long: 31 s")


@given(st.integers(0, 10**12), st.integers(1, 400_000), st.integers(1, 400_000))
def test_resampled_length_is_the_exact_ceiling(samples: int, rate_in: int, rate_out: int) -> None:
    assert resampled_length(samples, rate_in, rate_out) == ceil(Fraction(samples * rate_out, rate_in))


@given(
    st.integers(0, 5000),
    st.sampled_from([8000, 11025, 16000, 22050, 24000, 44100, 48000]),
    st.sampled_from([8000, 16000, 22050, 24000, 48000]),
)
def test_resampling_gives_the_planned_length(samples: int, rate_in: int, rate_out: int) -> None:
    resampled = resample(np.ones(samples, dtype=np.float32), rate_in, rate_out)
    assert resampled.shape == (resampled_length(samples, rate_in, rate_out),)
    assert resampled.dtype == np.float32


@pytest.mark.parametrize("rate_in", [8000, 11025, 22050, 44100, 48000])
def test_a_resampled_sine_keeps_frequency_amplitude_and_phase(rate_in: int) -> None:
    resampled = resample(tone(1.0, rate=rate_in), rate_in, RATE)
    middle = slice(RATE // 8, -RATE // 8)  # away from the filter's edges
    np.testing.assert_allclose(resampled[middle], tone(1.0)[middle], atol=2e-3)


@pytest.mark.parametrize("rate_in", [11025, 44100, 48000])
def test_channels_are_resampled_each_by_itself(rate_in: int) -> None:
    left, right = tone(0.31, rate=rate_in, hz=300), tone(0.31, rate=rate_in, hz=500)
    stereo = resample(np.stack([left, right], axis=1), rate_in, 24_000)
    assert stereo.shape == (resampled_length(len(left), rate_in, 24_000), 2)
    for channel, expected in zip(stereo.T, (left, right), strict=True):
        np.testing.assert_allclose(channel, resample(expected, rate_in, 24_000), atol=1e-6)


def test_resampling_removes_what_the_lower_rate_cannot_hold() -> None:
    resampled = resample(tone(1.0, rate=48_000, hz=15_000), 48_000, RATE)
    assert np.abs(resampled[RATE // 8 : -RATE // 8]).max() < 1e-3


def test_resampling_at_the_same_rate_changes_nothing() -> None:
    np.testing.assert_array_equal(resample(tone(), RATE, RATE), tone())


@pytest.mark.parametrize("arguments", [(-1, 8000, 16000), (1, 0, 16000), (1, 8000, 0)])
def test_resampled_length_refuses_nonsense(arguments: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="needs num_samples >= 0 and rates > 0"):
        resampled_length(*arguments)


def test_load_waveform_checks_that_the_file_is_the_manifests(tmp_path: Path) -> None:
    path = tmp_path / "tone.wav"
    path.write_bytes(encode(tone(1.0, rate=8000), 8000, format="WAV", subtype="PCM_16"))
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    waveform = load_waveform(path, RATE, sha256)
    assert waveform.shape == (16_000,)
    np.testing.assert_array_equal(waveform, load_waveform(path, RATE))
    np.testing.assert_array_equal(load_waveform(path, RATE, channels=2), np.stack([waveform] * 2, axis=1))
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    with pytest.raises(BadAudio, match=r"changed: .*tone\.wav.*run `stillwave prepare` again") as caught:
        load_waveform(path, RATE, sha256)
    assert caught.value.reason == "changed"
