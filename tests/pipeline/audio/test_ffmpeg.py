"""What phones and browsers record, and files that libsndfile would read wrong."""

import contextlib
import re
import struct
from pathlib import Path

import av
import numpy as np
import pytest

from stillwave.pipeline.audio import ffmpeg
from stillwave.pipeline.audio.decode import BadAudio, content_key, decode, decode_noted
from stillwave.pipeline.audio.ffmpeg import VERSION
from stillwave.pipeline.audio.samples import DAMAGED, NO_LENGTH, Samples
from stillwave.pipeline.audio.segments import load_waveform
from tests.zoo import RATE, encode, encode_av, tone

KINDS = [  # codec, container, rate, and the most samples of silence that the encoder adds, at that rate
    ("aac", "ipod", 16_000, 2048),
    ("aac", "adts", 16_000, 2048),
    ("aac", "matroska", 16_000, 2048),
    ("alac", "ipod", 16_000, 0),
    ("libopus", "webm", 48_000, 0),
    ("libopus", "webm", 16_000, 0),
    ("libopus", "ogg", 48_000, 0),
    ("libopencore_amrnb", "amr", 8_000, 160),
    ("libopencore_amrnb", "3gp", 8_000, 160),
    ("libmp3lame", "mp3", 16_000, 0),
    ("libmp3lame", "wav", 16_000, 1728),
    ("mp2", "mp2", 16_000, 1152),
    ("wavpack", "wv", 16_000, 0),
    ("tta", "tta", 16_000, 0),
    ("pcm_s16le", "mov", 16_000, 0),
    ("g722", "wav", 16_000, 0),
]


@pytest.mark.parametrize(("codec", "container", "rate", "added"), KINDS)
def test_a_recording_of_another_kind_is_read_whole(codec: str, container: str, rate: int, added: int) -> None:
    samples = tone(2.0)
    audio = decode_noted(encode_av(samples, codec, container, rate))
    expected = 48_000 if codec == "libopus" else rate
    assert (audio.decoder, audio.sample_rate, audio.notes) == ("ffmpeg", expected, ())
    assert 0 <= len(audio.waveform) - 2 * expected <= added
    assert audio.waveform.dtype == np.float32
    middle = audio.waveform[expected // 2 : 3 * expected // 2]
    assert np.sqrt(np.mean(middle**2)) == pytest.approx(0.5 / np.sqrt(2), rel=0.15)
    assert np.abs(np.fft.rfft(middle)).argmax() == 440


@pytest.mark.parametrize("keep", [0.2, 0.6, 0.9, 0.97])
@pytest.mark.parametrize(("codec", "container", "rate", "added"), KINDS[:8] + KINDS[9:11])
def test_one_that_was_cut_is_truncated(
    codec: str, container: str, rate: int, added: int, keep: float
) -> None:
    data = encode_av(tone(2.0), codec, container, rate)
    with pytest.raises(BadAudio) as caught:
        decode(data[: int(keep * len(data))])
    assert caught.value.reason == "truncated"


def test_an_mp3_without_a_stated_length_is_read_to_its_end() -> None:
    samples = tone(5.0)
    whole = encode_av(samples, "libmp3lame", "mp3", write_xing="0")
    assert b"Xing" not in whole
    assert b"Info" not in whole
    waveform, _ = decode(whole)
    assert 0 <= len(waveform) - len(samples) <= 3 * 576  # the encoder's delay and its last frame
    with pytest.raises(BadAudio, match=r"truncated: the file ends inside a packet, after 3\.\d+ s"):
        decode(whole[: int(0.7 * len(whole)) + 7])


def test_an_mp3_that_lost_whole_frames_breaks_its_headers_promise() -> None:
    data = encode_av(tone(5.0), "libmp3lame", "mp3")
    frames = [found.start() for found in re.finditer(rb"\xff\xf3[\x18-\xe8][\xc0-\xcf]", data)]
    cut = data[: frames[len(frames) // 2]]
    with pytest.raises(BadAudio, match=r"truncated: \d+ MP3 frames promised, \d+ found"):
        decode(cut)


def test_joined_mp3s_are_all_read() -> None:
    one, two = (encode_av(tone(seconds), "libmp3lame", "mp3") for seconds in (2.0, 3.0))
    audio = decode_noted(one + two)
    assert 5 * RATE <= len(audio.waveform) <= 5 * RATE + 6 * 576


@pytest.mark.parametrize("before", [bytes(1000), bytes(70_000), b"ABCDEFG%" * 100], ids=len)
def test_padding_before_an_mp3_is_skipped(before: bytes) -> None:
    audio = decode_noted(before + encode_av(tone(2.0), "libmp3lame", "mp3", write_xing="0"))
    assert 2 * RATE <= len(audio.waveform) <= 2 * RATE + 3 * 576


@pytest.mark.parametrize("after", [b"TAG" + bytes(125), b"APETAGEX" + bytes(300)], ids=len)
def test_tags_after_an_mp3_are_no_cut(after: bytes) -> None:
    data = encode_av(tone(2.0), "libmp3lame", "mp3")
    np.testing.assert_array_equal(decode(data + after)[0], decode(data)[0])


def test_zeros_after_an_mp3_are_no_cut() -> None:
    audio = decode_noted(encode_av(tone(2.0), "libmp3lame", "mp3") + bytes(500))
    assert 0 <= len(audio.waveform) - 2 * RATE <= 576
    assert audio.notes == (DAMAGED,)


def test_a_damaged_packet_is_left_out_and_noted() -> None:
    data = encode_av(tone(3.0), "aac", "adts")
    second = data.index(b"\xff\xf1", data.index(b"\xff\xf1", len(data) // 2) + 2)
    spoiled = data[: second + 7] + b"\xff" * 60 + data[second + 67 :]
    audio = decode_noted(spoiled)
    assert audio.notes == (DAMAGED,)
    assert 0 < len(decode(data)[0]) - len(audio.waveform) <= 4 * 1024


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
def test_chained_ogg_is_all_read(subtype: str) -> None:
    one, two = (encode(tone(s), format="OGG", subtype=subtype) for s in (2.0, 3.0))
    waveform, rate = decode(one + two)
    assert len(waveform) == 5 * rate
    np.testing.assert_array_equal(waveform, np.concatenate([decode(one)[0], decode(two)[0]]))
    with pytest.raises(BadAudio, match="truncated: the OGG page at byte"):
        decode(one + two[:-50])


def test_chained_recordings_of_two_rates_are_refused_by_that_reason() -> None:
    one = encode(tone(2.0), format="OGG", subtype="VORBIS")
    two = encode(tone(2.0, rate=8000), 8000, format="OGG", subtype="VORBIS")
    with pytest.raises(
        BadAudio, match=r"unsupported: the sample rate changes from 16000 to 8000 Hz after 2\.000 s"
    ):
        decode(one + two)


def test_an_mp3_whose_header_counts_more_than_the_file_can_hold_is_read_to_its_end() -> None:
    data = encode_av(tone(2.0), "libmp3lame", "mp3")
    at = data.index(b"Info") + 8
    audio = decode_noted(data[:at] + b"\x7f\xff\xff\xff" + data[at + 4 :])
    assert 0 <= len(audio.waveform) - 2 * RATE <= 2 * 1152  # without what the true number would trim
    assert audio.notes == (NO_LENGTH,)


def _checked(data: bytes, bits: int, polynomial: int) -> bytes:
    """`data` and its CRC of so many bits."""
    remainder = 0
    for byte in data:
        remainder ^= byte << bits - 8
        for _ in range(8):
            remainder = remainder << 1 ^ (polynomial if remainder >> bits - 1 else 0)
            remainder &= 2**bits - 1
    return data + remainder.to_bytes(bits // 8, "big")


def _flac(samples: np.ndarray, bits: int) -> bytes:
    """A FLAC of one frame, its samples as they are (RFC 9639); libsndfile writes no such sample sizes."""
    info = RATE << 44 | (bits - 1) << 36 | len(samples)
    size = struct.pack(">H", len(samples))
    streaminfo = size + size + bytes(6) + info.to_bytes(8, "big") + bytes(16)
    code = {8: 1, 12: 2, 16: 4, 20: 5, 24: 6}[bits]
    header = _checked(b"\xff\xf8\x75" + bytes([code << 1, 0]) + struct.pack(">H", len(samples) - 1), 8, 0x07)
    body = 1  # bits, behind a leading one
    body = body << 8 | 0b10  # a subframe of verbatim samples
    for sample in samples.tolist():
        body = body << bits | sample & 2**bits - 1
    length = body.bit_length() - 1
    padded = (body & (1 << length) - 1) << -length % 8
    frame = _checked(header + padded.to_bytes(-(-length // 8), "big"), 16, 0x8005)
    return b"fLaC\x80\x00\x00\x22" + streaminfo + frame


@pytest.mark.parametrize(
    ("bits", "decoder"), [(12, "ffmpeg"), (16, "libsndfile"), (20, "ffmpeg"), (24, "libsndfile")]
)
def test_flac_of_any_sample_size_is_exact(bits: int, decoder: str) -> None:
    samples = np.round(tone(0.25) * 2 ** (bits - 1)).astype(np.int64)
    audio = decode_noted(_flac(samples, bits))
    assert (audio.decoder, audio.sample_rate) == (decoder, RATE)
    np.testing.assert_array_equal(audio.waveform, (samples / 2 ** (bits - 1)).astype(np.float32))


@pytest.mark.parametrize("stated", [0, 2**36 - 1])
@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24"])
def test_a_flac_that_states_no_length_or_an_absurd_one_is_read_to_its_end(stated: int, subtype: str) -> None:
    data = encode(tone(3.0), format="FLAC", subtype=subtype)
    odd = data[:21] + ((data[21] >> 4 << 36) + stated).to_bytes(5, "big") + data[26:]
    audio = decode_noted(odd)
    np.testing.assert_array_equal(audio.waveform, decode(data)[0])
    assert audio.notes == (NO_LENGTH,)
    with pytest.raises(BadAudio, match="truncated"):
        decode(odd[: len(odd) * 2 // 3])
    with pytest.raises(BadAudio, match="too_long"):
        decode(odd, max_duration_s=2.0)


def test_webm_under_another_name_and_in_a_manifest(tmp_path: Path) -> None:
    path = tmp_path / "voice.wav"
    path.write_bytes(encode_av(tone(2.0), "libopus", "webm", 48_000))
    assert load_waveform(path, RATE, decoder="ffmpeg").shape == (2 * RATE,)
    with pytest.raises(BadAudio, match=r"changed: .*voice\.wav: read by ffmpeg, and by libsndfile when"):
        load_waveform(path, RATE, decoder="libsndfile")


def test_ffmpegs_version_is_in_the_keys_of_what_it_reads() -> None:
    sha256 = "0" * 64
    assert content_key(sha256, None) == content_key(sha256, "libsndfile") == sha256
    key = content_key(sha256, "ffmpeg")
    assert key != sha256
    assert len(key) == 64
    assert av.library_versions["libavcodec"][:2] == tuple(map(int, VERSION.split(".")))


def test_a_playlist_opens_no_other_file(tmp_path: Path) -> None:
    other = tmp_path / "other.wav"
    other.write_bytes(encode(tone(), format="WAV"))
    for text in (
        f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{other}\n#EXT-X-ENDLIST\n",
        f"ffconcat version 1.0\nfile '{other}'\n",
    ):
        with pytest.raises(BadAudio) as caught:
            decode(text.encode())
        assert caught.value.reason == "not_audio"


SHORTENED = b"NIST_1A\n   1024\nsample_coding -s26 pcm,embedded-shorten-v2.00\nend_head\n".ljust(
    1024
) + bytes(500)
NAMED = [
    (b"version https://git-lfs.github.com/spec/v1\n", "not_audio: a Git LFS pointer: run `git lfs pull`"),
    (b"#EXTM3U\nhttp://radio.example/live\n", "not_audio: a playlist: give the files that it names"),
    (b"PK\x03\x04" + bytes(200), "not_audio: a ZIP archive: unpack it"),
    (b"\r\n<!DOCTYPE html><title>404</title>", "not_audio: a web page or XML: download the recording itself"),
    (b"ajkg\x02" + bytes(300), r"not_audio: Shorten \(.shn\): convert it to FLAC"),
    (SHORTENED, "unsupported: NIST SPHERE compressed by Shorten: unpack it with `sph2pipe -f wav`"),
    (b"\0\0\0\x18ftypM4A " + bytes(12), r"truncated: MP4 without its index \(moov\)"),
]  # fmt: skip


@pytest.mark.parametrize(("data", "message"), NAMED, ids=[message[:30] for _, message in NAMED])
def test_what_cannot_be_read_is_named_by_its_bytes(data: bytes, message: str) -> None:
    with pytest.raises(BadAudio, match=message):
        decode(data)


def test_nothing_is_written_to_stderr(capfd: pytest.CaptureFixture[str]) -> None:
    data = encode_av(tone(2.0), "libmp3lame", "mp3")
    for bad in (data[:500], data[:-77], b"\xff\xfb" * 300, data[:700] + bytes(300) + data[1000:]):
        with contextlib.suppress(BadAudio):
            decode(bad)
    assert capfd.readouterr() == ("", "")


def test_a_damaged_rate_is_refused_at_the_first_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    """FFmpeg makes a frame of each sample then: all of them were kept, and their sizes added up for each."""
    frames: list[object] = []
    floats = ffmpeg._floats

    def counted(frame: object) -> np.ndarray:
        frames.append(frame)
        return floats(frame)

    monkeypatch.setattr(ffmpeg, "_floats", counted)
    data = encode(tone(), format="NIST", subtype="PCM_16").replace(
        b"-i 16000\nsample_n", b"-i 1    \nsample_n"
    )
    with pytest.raises(BadAudio, match="unsupported: a sample rate of 1 Hz; 1,000 to 1,000,000 Hz are read"):
        ffmpeg.read(data, Samples(), RATE)
    assert len(frames) == 1
