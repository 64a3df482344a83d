"""PCM, FLAC and Vorbis keep their numbers, and their keys in stores."""

import hashlib
import io
import json
import struct
import tracemalloc

import numpy as np
import pytest
import soundfile

from stillwave.pipeline.audio import sndfile
from stillwave.pipeline.audio.decode import BadAudio, content_key, decode, decode_noted
from stillwave.pipeline.audio.samples import MOST_SAMPLES, Samples
from stillwave.pipeline.backbones.fbank import Fbank, FbankConfig
from stillwave.pipeline.backbones.fingerprint import fingerprint
from tests.zoo import encode, tone


def noise(channels: int, bits: int) -> np.ndarray:
    """Integers of so many bits, in the upper ones of 32: the same on every machine."""
    values = np.arange(3000 * channels, dtype=np.int64) * 2_654_435_761 % 2**32
    return (((values >> (32 - bits)) << (32 - bits)) - 2**31).astype(np.int32).reshape(-1, channels)


# sha256 of what decode(..., channels) gave before FFmpeg read anything. Stores are full of these numbers.
DIGESTS = [
    ("WAV", "PCM_16", 1, 1, "ec9d3c1a84fb6e78"),
    ("WAV", "PCM_16", 2, 1, "e14bd49fb4ea067c"),
    ("WAV", "PCM_16", 2, 2, "22c6968075705e78"),
    ("WAV", "PCM_24", 2, 1, "42c670c7014f712a"),
    ("WAV", "PCM_U8", 1, 1, "bcd601679cdb5d0f"),
    ("WAV", "ULAW", 1, 1, "a3f395c40148a0bb"),
    ("AIFF", "PCM_16", 6, 1, "d1b9484aa7fdff92"),
    ("FLAC", "PCM_16", 1, 1, "ec9d3c1a84fb6e78"),
    ("FLAC", "PCM_16", 2, 1, "e14bd49fb4ea067c"),
    ("FLAC", "PCM_24", 6, 2, "743b1154e5172d15"),
]  # fmt: skip


def written(container: str, subtype: str, channels: int) -> bytes:
    bits = {"PCM_24": 24, "PCM_U8": 8}.get(subtype, 16)
    return encode(noise(channels, bits), format=container, subtype=subtype)


@pytest.mark.parametrize(("container", "subtype", "recorded", "channels", "digest"), DIGESTS)
def test_the_numbers_of_pcm_and_flac_never_change(
    container: str, subtype: str, recorded: int, channels: int, digest: str
) -> None:
    waveform, _ = decode(written(container, subtype, recorded), channels=channels)
    assert hashlib.sha256(waveform.tobytes()).hexdigest()[:16] == digest


def test_a_block_at_a_time_gives_the_same_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    for container, subtype, channels in (
        ("WAV", "PCM_16", 6),
        ("FLAC", "PCM_16", 2),
        ("WAV", "IMA_ADPCM", 1),
    ):
        data = written(container, subtype, channels)
        monkeypatch.setattr(sndfile, "_BLOCK", 2**22)
        whole, _ = decode(data)
        monkeypatch.setattr(sndfile, "_BLOCK", 701)
        np.testing.assert_array_equal(decode(data)[0], whole)


def test_the_key_and_the_fingerprint_of_a_wav_never_change() -> None:
    audio = decode_noted(written("WAV", "PCM_16", 1))
    assert (audio.decoder, audio.notes) == ("libsndfile", ())
    assert content_key("ab" * 32, audio.decoder) == "ab" * 32
    made_by = fingerprint(Fbank(FbankConfig(kind="fbank")))
    made_by["libraries"] = sorted(made_by["libraries"])  # their versions are the machine's
    text = json.dumps(made_by, sort_keys=True)
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == "7c9824bc3743195c"


def test_vorbis_is_libsndfiles_which_counts_it_exactly() -> None:
    # FFmpeg decodes 31,744 and 8,192 samples of these.
    for seconds in (2.0, 0.5):
        audio = decode_noted(encode(tone(seconds), format="OGG", subtype="VORBIS"))
        assert (audio.decoder, len(audio.waveform)) == ("libsndfile", 16_000 * seconds)


@pytest.mark.parametrize("rate", [999, 1_000_001])
def test_a_rate_beyond_sound_is_refused(rate: int) -> None:
    data = encode(tone(0.1), format="WAV", subtype="PCM_16")
    at = data.index(b"fmt ") + 12
    with pytest.raises(
        BadAudio, match=rf"unsupported: a sample rate of {rate} Hz; 1,000 to 1,000,000 Hz are read"
    ):
        decode(data[:at] + struct.pack("<I", rate) + data[at + 4 :])


def test_hours_in_a_small_file_are_mixed_block_by_block() -> None:
    """One minute of 8 channels at 48 kHz is 92 MB of floats, and 11.5 MB when mixed."""
    buffer = io.BytesIO()
    with soundfile.SoundFile(buffer, "w", 48_000, 8, format="FLAC", subtype="PCM_16") as file:
        for _ in range(60):
            file.write(np.zeros((48_000, 8), dtype=np.int16))
    data = buffer.getvalue()
    assert len(data) < 2**20
    tracemalloc.start()
    waveform, _ = decode(data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(waveform) == 60 * 48_000
    assert peak < 60e6
    with pytest.raises(BadAudio, match=r"too_long: 60\.000 s; at most max_duration_s = 30 s"):
        decode(data, max_duration_s=30.0)


def test_more_than_memory_should_hold_is_refused_before_it_is_decoded() -> None:
    samples = Samples()
    samples.expect(MOST_SAMPLES, 16_000)
    with pytest.raises(BadAudio, match="too_long: more than 1,073,741,824 samples; cut the recording"):
        samples.expect(MOST_SAMPLES + 1, 16_000)
