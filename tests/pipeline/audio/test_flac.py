"""FLAC files that hold more than their header says."""

import numpy as np
import pytest

from stillwave.pipeline.audio import flac
from stillwave.pipeline.audio.decode import decode, decode_noted, open_seekable
from stillwave.pipeline.audio.samples import NO_LENGTH
from tests.zoo import encode, encode_av

NOISE = np.random.default_rng(16).normal(0, 0.1, 160_000)


def stating(data: bytes, samples: int) -> bytes:
    packed = int.from_bytes(data[18:26], "big") >> 36 << 36 | samples
    return data[:18] + packed.to_bytes(8, "big") + data[26:]


@pytest.mark.parametrize("stated", [40_000, 40_960, 159_999])
def test_a_flac_that_states_too_few_samples_is_read_to_the_end(stated: int) -> None:
    data = encode(NOISE, format="FLAC", subtype="PCM_16")
    audio = decode_noted(stating(data, stated))
    np.testing.assert_array_equal(audio.waveform, decode(data)[0])
    assert (audio.decoder, audio.notes) == ("ffmpeg", (NO_LENGTH,))
    assert open_seekable(stating(data, stated)) is None


@pytest.mark.parametrize("behind", [b"", b"TAG".ljust(128), bytes(1000)])
@pytest.mark.parametrize("count", [1, 300, 4096, 70_000, 160_000])
def test_the_last_frame_ends_where_the_header_says(count: int, behind: bytes) -> None:
    for samples in (NOISE[:count], np.zeros(count), np.stack([NOISE[:count]] * 2, axis=1)):
        for rate in (16_000, 12_345):
            data = encode(samples, rate, format="FLAC", subtype="PCM_16") + behind
            assert flac.end_of_last_frame(data) == count
            assert decode_noted(data).decoder == "libsndfile"
    assert flac.end_of_last_frame(encode_av(NOISE[:count], "flac", "flac")) == count


def test_bytes_like_a_frame_are_none() -> None:
    data = encode(NOISE[:300], format="FLAC", subtype="PCM_16")
    start = data[data.rindex(b"\xff\xf8") :][:4]
    number = np.random.default_rng(0).integers(0, 256, (20_000, 8), dtype=np.uint8)
    number[:, :4] = np.frombuffer(start, np.uint8)
    number[:, 2] = (
        number[:, 2] & 15 | np.arange(20_000) % 16 << 4
    )  # any size of a block, the reserved one too
    number[:, 7] = 1
    flac.end_of_last_frame(data + number.tobytes())  # by chance, some have the right checksum
    number[:, 2] &= 15
    assert flac.end_of_last_frame(data + number.tobytes()) == 300


def test_no_frame_is_found_where_there_is_none() -> None:
    for data in (b"fLaC", b"fLaC" + bytes(100), encode(NOISE[:0], format="FLAC")):
        assert flac.end_of_last_frame(data) == 0
