"""What is noted of samples: on both sides of each bound, by either decoder, in one block or many."""

import io

import numpy as np
import pytest
import soundfile

from stillwave.pipeline.audio import sndfile
from stillwave.pipeline.audio.decode import BadAudio, decode_noted
from stillwave.pipeline.audio.levels import (
    CHANNELS_CANCEL,
    CONSTANT,
    HAS_OFFSET,
    IS_CLIPPED,
    SILENT,
)
from stillwave.pipeline.audio.samples import joined_notes
from stillwave.pipeline.predict.clips import sound_of
from tests.zoo import RATE, encode, encode_av, tone

SPEECH = (tone(1.0) * np.linspace(0.1, 1, RATE)).astype(np.float32)
FULL = (SPEECH / np.abs(SPEECH).max()).astype(np.float32)  # one peak reaches full scale
BEYOND = np.random.default_rng(0).normal(0, 0.4, RATE).astype(np.float32)  # with peaks of 1.6


def stereo(share: float) -> np.ndarray:
    """Antiphase, but for a share of the amplitude that is left in the mix."""
    return np.stack([SPEECH, -(1 - 2 * share) * SPEECH], axis=1)


MADE: dict[str, tuple[np.ndarray, tuple[str, ...]]] = {
    "speech": (SPEECH, ()),
    "antiphase": (stereo(0.0), (CHANNELS_CANCEL,)),
    "mix 20.1 dB below": (stereo(0.0895), (CHANNELS_CANCEL,)),  # the right channel is softer, too
    "mix 19.8 dB below": (stereo(0.0925), ()),
    "one channel of eight": (np.stack([SPEECH, *[0 * SPEECH] * 7], axis=1), ()),
    "zeros": (np.zeros(800), (SILENT,)),
    "zeros in stereo": (np.zeros((800, 2)), (SILENT,)),
    "one step of 16 bits": (np.array([0.0, 2**-15, 0.0]), ()),
    "constant": (np.full(800, 0.25), (CONSTANT,)),
    "constant of full scale": (np.full(800, -1.0), (CONSTANT,)),
    "offset of 0.06": (0.5 * SPEECH + 0.06, (HAS_OFFSET,)),
    "offset of -0.06": (0.5 * SPEECH - 0.06, (HAS_OFFSET,)),
    "offset of 0.04": (0.5 * SPEECH + 0.04, ()),
    "clipped": (np.clip(3 * SPEECH, -1, 1), (IS_CLIPPED,)),
    "clipped in one channel": (np.stack([np.clip(3 * SPEECH, -1, 1), SPEECH], axis=1), (IS_CLIPPED,)),
    "clipped below full scale": (np.clip(3 * SPEECH, -0.9, 0.9), ()),  # may be a limiter
    "peak of 1.0": (FULL, ()),
    "clipped with an offset": (np.clip(3 * SPEECH + 0.3, -1, 1), (HAS_OFFSET, IS_CLIPPED)),
}


@pytest.mark.parametrize("subtype", ["PCM_16", "FLOAT"])
@pytest.mark.parametrize("name", MADE)
def test_a_note_says_what_is_unusual(name: str, subtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    samples, expected = MADE[name]
    data = encode(samples, format="WAV", subtype=subtype)
    assert decode_noted(data).notes == expected
    monkeypatch.setattr(sndfile, "_BLOCK", 500)
    assert decode_noted(data).notes == expected
    assert sound_of(samples.astype(np.float32), RATE).note == joined_notes(expected)  # arrays, too


@pytest.mark.parametrize("name", ["speech", "zeros", "clipped", "peak of 1.0", "offset of 0.06"])
def test_ffmpegs_samples_are_noted_alike(name: str) -> None:
    samples, expected = MADE[name]
    audio = decode_noted(encode_av(samples, "alac", "ipod"))
    assert (audio.decoder, audio.notes) == ("ffmpeg", expected)


def test_channels_are_not_mixed_for_a_model_of_two() -> None:
    data = encode(stereo(0.0), format="WAV")
    assert decode_noted(data, channels=2).notes == ()
    six = encode(np.tile(stereo(0.0), 3), format="WAV")
    assert decode_noted(six, channels=2).notes == (CHANNELS_CANCEL,)


def test_floats_beyond_full_scale_are_samples_and_integers_are_none() -> None:
    for scale in (1.0, 1.5, 50.0):
        data = encode(BEYOND / np.abs(BEYOND).max() * scale, format="WAV", subtype="FLOAT")
        assert decode_noted(data).notes == ()
    clipped = encode(np.clip(6 * SPEECH, -1.5, 1.5), format="WAV", subtype="FLOAT")
    assert decode_noted(clipped).notes == (IS_CLIPPED,)
    message = r"too_loud: samples reach 1e\+04, but full scale is 1; at most 100 is read: divide 16-bit"
    for samples in (1e4 * FULL, np.stack([1e4 * FULL, -1e4 * FULL], axis=1)):
        for subtype in ("FLOAT", "DOUBLE"):
            with pytest.raises(BadAudio, match=message):
                decode_noted(encode(samples, format="WAV", subtype=subtype))
        with pytest.raises(BadAudio, match=message):
            sound_of(samples, RATE)
    with pytest.raises(BadAudio, match="non_finite: 1 of 16000 samples"):  # the true reason of the two
        decode_noted(encode(np.append(1e4 * FULL[1:], np.nan), format="WAV", subtype="FLOAT"))


def test_sixteen_bits_become_the_numbers_of_libsndfile() -> None:
    every = np.arange(-(2**15), 2**15, dtype=np.int16)
    for container in ("WAV", "RF64", "W64", "AIFF", "CAF", "AU", "NIST", "FLAC"):
        data = encode(every, format=container, subtype="PCM_16")
        expected, _ = soundfile.read(io.BytesIO(data), dtype="float32")
        np.testing.assert_array_equal(decode_noted(data).waveform, expected)
