"""What headers promise: sizes of streams, sizes that are true, and formats that state them elsewhere."""

import struct

import numpy as np
import pytest
import soundfile

from stillwave.pipeline.audio.decode import BadAudio, decode, decode_noted
from stillwave.pipeline.audio.samples import NO_LENGTH, NOT_READ
from tests.zoo import RATE, encode, encode_av, tone

SIZES = [
    0,
    0x7FFFFF00,
    0x7FFFEFFF,
    2**31 - 1 - 36,
    2**31 - 1,
    2**31,
    2**32 - 1 - 36,
    2**32 - 1,
    2_000_000_000,
]
PLACES = {  # container: what the size stands behind, its format, and what it counts beside the samples
    "WAV": (b"data", "<I", 0),
    "WAVEX": (b"data", "<I", 0),
    "AIFF": (b"SSND", ">I", 8),
    "AU": (b".snd\0\0\0\x18", ">I", 0),
    "CAF": (b"data", ">Q", 4),
    "W64": (b"data\xf3\xac\xd3\x11\x8c\xd1\x00\xc0\x4f\x8e\xdb\x8a", "<Q", 24),
}


def resized(data: bytes, container: str, size: int) -> bytes:
    marker, size_format, _ = PLACES[container]
    at = data.index(marker) + len(marker)
    return data[:at] + struct.pack(size_format, size) + data[at + struct.calcsize(size_format) :]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("container", PLACES)
def test_the_size_of_a_stream_means_to_the_end(container: str, size: int) -> None:
    data = encode(tone(), format=container, subtype="PCM_16")
    audio = decode_noted(resized(data, container, size))
    np.testing.assert_array_equal(audio.waveform, decode(data)[0])
    assert (audio.decoder, audio.notes) == ("libsndfile", (NO_LENGTH,))


@pytest.mark.parametrize("size", [2**63 - 1, 2**64 - 1, 2**40 + 24])
@pytest.mark.parametrize("container", ["CAF", "W64"])
def test_so_does_a_size_of_64_bits_that_no_file_has(container: str, size: int) -> None:
    data = encode(tone(), format=container, subtype="PCM_16")
    audio = decode_noted(resized(data, container, size))
    assert (len(audio.waveform), audio.notes) == (RATE, (NO_LENGTH,))


@pytest.mark.parametrize("more", [2, 44, 70_000, 10**8, 10**9])
@pytest.mark.parametrize("container", PLACES)
def test_a_plausible_size_that_is_not_there_is_truncated(container: str, more: int) -> None:
    data = encode(tone(), format=container, subtype="PCM_16")
    size = 2 * RATE + more
    with pytest.raises(
        BadAudio, match=rf"truncated: the header promises {size} bytes of samples, the file holds 32000"
    ):
        decode(resized(data, container, size + PLACES[container][2]))


def test_a_size_of_zero_before_another_chunk_is_no_samples() -> None:
    data = encode(tone(0.0), format="WAV", subtype="PCM_16")
    with pytest.raises(BadAudio, match="zero_length: no samples"):
        decode(data + b"LIST" + struct.pack("<I", 4) + b"INFO")


def test_what_follows_the_samples_and_is_no_chunk_is_noted() -> None:
    data = encode(tone(), format="WAV", subtype="PCM_16")
    audio = decode_noted(resized(data, "WAV", 2000))
    assert (len(audio.waveform), audio.notes) == (1000, (NOT_READ,))
    for known in (b"LIST\4\0\0\0INFO", b"TAG" + b"x" * 125, bytes(500)):
        assert decode_noted(data + known).notes == ()


TAG = b"ID3\x03\0\0\0\0\x02\x2c" + bytes(300)


@pytest.mark.parametrize("front", [TAG, TAG + TAG, bytes(100) + TAG, bytes(40), bytes(3), TAG + bytes(9)])
@pytest.mark.parametrize("container", ["WAV", "AIFF", "FLAC", "MAT4", "ipod"])
def test_tags_and_zeros_in_front_move_nothing(container: str, front: bytes) -> None:
    if container.isupper():
        data = encode(tone(), format=container, subtype="PCM_16")
    else:
        data = encode_av(tone(), "aac", container)
    np.testing.assert_array_equal(decode(front + data)[0], decode(data)[0])


@pytest.mark.parametrize("behind", [b"TAGtitle".ljust(128), b"TAG".ljust(128, b"\0"), b"\x80" * 50])
def test_a_tag_behind_mp4_is_no_box(behind: bytes) -> None:
    data = encode_av(tone(), "aac", "ipod")
    np.testing.assert_array_equal(decode(data + behind)[0], decode(data)[0])


def test_a_tag_in_front_of_a_wav_moves_nothing() -> None:
    data = encode(tone(), format="WAV", subtype="PCM_16")
    tagged = b"ID3\x03\0\0\0\0\x02\x2c" + bytes(300) + data
    np.testing.assert_array_equal(decode(tagged)[0], decode(data)[0])
    with pytest.raises(BadAudio, match="truncated"):
        decode(tagged[:-2])


@pytest.mark.parametrize("container", ["W64", "CAF"])
def test_a_header_that_is_written_twice_is_refused_by_that_reason(container: str) -> None:
    data = encode(tone(), format=container, subtype="PCM_16")
    header = encode(tone(0.0), format=container, subtype="PCM_16")
    with pytest.raises(BadAudio, match="unsupported: its header is there again where samples should be"):
        decode(header + data)


UNSTATED = {"IRCAM", "PAF", "PVF", "XI"}  # state no length where they begin
HEADLESS = {"RAW", "SD2"}
FORMATS = sorted(soundfile.available_formats().keys() - UNSTATED - HEADLESS)
JOINED = sorted(set(FORMATS) - {"HTK", "MP3", "WVE"})  # WVE is of 8 kHz


@pytest.mark.parametrize("container", JOINED)
def test_joined_files_are_all_read(container: str) -> None:
    subtype = "VORBIS" if container == "OGG" else "PCM_16"
    one, two = (encode(tone(seconds), format=container, subtype=subtype) for seconds in (1.0, 2.0))
    waveform, _ = decode(one + two + one)
    expected = [decode(one)[0], decode(two)[0], decode(one)[0]]
    np.testing.assert_array_equal(waveform, np.concatenate(expected))
    for cut in (one + two[: len(two) // 2], one[:-1001] + two):
        with pytest.raises(BadAudio, match="truncated"):
            decode(cut)
    other = encode(tone(1.0, 8000), 8000, format=container, subtype=subtype)
    with pytest.raises(
        BadAudio, match=r"unsupported: the sample rate changes from 16000 to 8000 Hz after 1\.000 s"
    ):
        decode(one + other)


@pytest.mark.parametrize("endian", ["LITTLE", "BIG"])
@pytest.mark.parametrize("container", [*sorted(UNSTATED), "AU", "MAT4", "WAV", "WVE"])
def test_so_are_those_that_state_no_length_and_both_orders_of_bytes(container: str, endian: str) -> None:
    subtype = {"XI": "DPCM_16", "WVE": "ALAW"}.get(container, "PCM_16")
    try:
        data = encode(tone(), 8000, format=container, subtype=subtype, endian=endian)
    except ValueError:
        pytest.skip("libsndfile does not write it")
    np.testing.assert_array_equal(decode(data + data)[0], np.tile(decode(data)[0], 2))


@pytest.mark.parametrize(
    ("codec", "container"),
    [("tta", "tta"), ("wavpack", "wv"), ("libopencore_amrnb", "amr"), ("aac", "adts")],
)
def test_so_are_those_that_ffmpeg_reads(codec: str, container: str) -> None:
    data = encode_av(tone(), codec, container, 8000 if container == "amr" else RATE)
    assert len(decode(data + data)[0]) == 2 * len(decode(data)[0])


def test_so_is_one_behind_an_empty_one() -> None:
    for container in ("WAV", "AIFF", "AU"):
        data, empty = (encode(tone(s), format=container, subtype="PCM_16") for s in (1.0, 0.0))
        assert len(decode(empty + data)[0]) == RATE


def test_so_are_streams() -> None:
    data = encode(tone(), format="WAV", subtype="PCM_16")
    stream = resized(data, "WAV", 2**32 - 1)
    audio = decode_noted(2 * (stream[:4] + b"\xff\xff\xff\xff" + stream[8:]))
    np.testing.assert_array_equal(audio.waveform, np.tile(decode(data)[0], 2))
    assert audio.notes == (NO_LENGTH,)


def test_joined_mp4_files_are_all_read() -> None:
    one, two = (encode_av(tone(seconds), "alac", "ipod") for seconds in (1.0, 2.0))
    assert len(decode(one + two)[0]) == 3 * RATE
    with pytest.raises(BadAudio, match="truncated: the MP4 box"):
        decode(one + two[:-100])


@pytest.mark.parametrize("container", FORMATS)
def test_every_format_that_states_its_length_is_truncated_when_cut(container: str) -> None:
    whole = 0
    for subtype in soundfile.available_subtypes(container):
        for samples in (tone(1.0, 8000), np.stack([tone(1.0, 8000), tone(1.0, 8000, 600)], axis=1)):
            if subtype.startswith(("DWVW", "MPEG_LAYER_I")) and subtype != "MPEG_LAYER_III":
                continue  # libsndfile cannot read back what it writes
            try:
                data = encode(samples, 8000, format=container, subtype=subtype)
            except (soundfile.LibsndfileError, ValueError):
                continue  # not with so many channels
            waveform, rate = decode(data)
            whole += 1
            assert 0 <= len(waveform) - rate <= 1152
            for keep in (0.3, 0.5, 0.9):
                with pytest.raises(BadAudio) as caught:
                    decode(data[: int(keep * len(data))])
                # A cut HTK file is not known as one: its only mark is its length.
                assert caught.value.reason == ("not_audio" if container == "HTK" else "truncated"), subtype
    assert whole


def test_a_little_endian_au_that_was_cut_is_truncated() -> None:
    data = encode(tone(), format="AU", subtype="PCM_16", endian="LITTLE")
    with pytest.raises(
        BadAudio, match="truncated: the header promises 32000 bytes of samples, the file holds 22000"
    ):
        decode(data[:-10_000])


@pytest.mark.parametrize("count", [RATE, 2**23 + RATE])  # of the second, 24 bits hold a part of the size
def test_a_voc_of_sox_whose_block_is_larger_than_it_says(count: int) -> None:
    data = encode(np.resize(tone(), count), format="VOC", subtype="PCM_16")
    size = (4 + 2 * count) % 2**24
    data = data[:27] + size.to_bytes(3, "little") + data[30:]
    audio = decode_noted(data)
    assert (len(audio.waveform), audio.decoder) == (count, "libsndfile")
    with pytest.raises(BadAudio, match="truncated"):
        decode(data[:-3000])


def test_a_voc_of_many_blocks_is_read_whole() -> None:
    """FFmpeg writes a block per packet; libsndfile read their headers as samples."""
    data = encode(tone(1.0, 8000), 8000, format="VOC", subtype="PCM_U8")
    at = 26
    first = data[at + 4 : at + 4 + 2]
    samples = data[at + 6 : at + 6 + 8000]
    blocks = b"".join(
        b"\x01" + (2 + 1000).to_bytes(3, "little") + first + samples[k : k + 1000]
        for k in range(0, 8000, 1000)
    )
    assert len(decode(data[:at] + blocks + b"\0")[0]) == 8000
    with pytest.raises(BadAudio, match="truncated: the header promises a file of"):
        decode(data[:at] + blocks[:-500])
