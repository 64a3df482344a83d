"""Bad and odd audio files, and what must become of each: its frames, or the reason for which it is refused.

ZOO: file name -> (its bytes, expectation). An expectation is the exact number of fbank frames (25 ms every
10 ms at 16 kHz), or the quarantine's "stage reason". Half a second of sound is 48 frames.
"""

import io
import struct
from typing import Any

import av
import numpy as np
import soundfile

RATE = 16_000


def tone(seconds: float = 1.0, rate: int = RATE, hz: float = 440.0, amplitude: float = 0.5) -> np.ndarray:
    return (amplitude * np.sin(2 * np.pi * hz * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def encode(samples: np.ndarray, rate: int = RATE, **options: Any) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, **options)
    return buffer.getvalue()


def encode_av(samples: np.ndarray, codec: str, container: str, rate: int = RATE, **options: str) -> bytes:
    """Mono samples as FFmpeg's libraries write them; `rate` is the codec's, to which 16 kHz is resampled."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container, options=options) as file:
        stream = file.add_stream(codec, rate=rate)
        stream.layout = "mono"
        resampler = av.AudioResampler(stream.codec_context.format, "mono", rate, stream.frame_size or 0)
        frame = av.AudioFrame.from_ndarray(samples[None].astype(np.float32), "fltp", "mono")
        frame.sample_rate = RATE
        for part in [*resampler.resample(frame), *resampler.resample(None), None]:
            file.mux(stream.encode(part))
    return buffer.getvalue()


def _half(hz: float, container: str = "WAV", subtype: str = "PCM_16", rate: int = RATE) -> bytes:
    """Half a second of a tone; every file has its own pitch, so that no two are equal."""
    return encode(tone(0.5, rate, hz), rate, format=container, subtype=subtype)


def _wav(samples: Any, rate: int = RATE, subtype: str = "FLOAT") -> bytes:
    return encode(np.asarray(samples), rate, format="WAV", subtype=subtype)


def _patched(data: bytes, marker: bytes, skip: int, value: bytes) -> bytes:
    """`value` written over the bytes that begin `skip` behind the first `marker`."""
    start = data.index(marker) + skip
    return data[:start] + value + data[start + len(value) :]


def _with_chunk(data: bytes, name: bytes, body: bytes) -> bytes:
    """A WAV with one more chunk before its samples; odd bodies are padded by a byte, as RIFF wants."""
    start = data.index(b"data")
    return data[:start] + name + struct.pack("<I", len(body)) + body + bytes(len(body) % 2) + data[start:]


def _id3(body: bytes) -> bytes:
    size = bytes((len(body) >> shift) & 0x7F for shift in (21, 14, 7, 0))
    return b"ID3\x03\x00\x00" + size + body


def _with(samples: np.ndarray, value: float) -> np.ndarray:
    changed = samples.astype(np.float64)
    changed[len(changed) // 2] = value
    return changed


NO_LENGTH = "states no length that can be true: read to the end"
U32 = struct.Struct("<I").pack
TWIN = _half(400)

FORMATS: dict[str, tuple[bytes, int | str]] = {
    "u8.wav": (_half(401, subtype="PCM_U8"), 48),
    "s16.wav": (_half(402), 48),
    "s24.wav": (_half(403, subtype="PCM_24"), 48),
    "s32.wav": (_half(404, subtype="PCM_32"), 48),
    "float.wav": (_half(405, subtype="FLOAT"), 48),
    "double.wav": (_half(406, subtype="DOUBLE"), 48),
    "ulaw.wav": (_half(407, subtype="ULAW"), 48),
    "alaw.wav": (_half(408, subtype="ALAW"), 48),
    "extensible.wav": (_half(409, "WAVEX", "PCM_24"), 48),
    "rf64.wav": (_half(410, "RF64"), 48),
    "sphere.wav": (_half(411, "NIST"), 48),
    "ima_adpcm.wav": (
        _half(412, subtype="IMA_ADPCM"),
        49,
    ),  # these three end with a whole block: 8,136 samples,
    "ms_adpcm.wav": (_half(413, subtype="MS_ADPCM"), 49),  # 8,096,
    "gsm610.wav": (_half(415, subtype="GSM610", rate=8000), 54),  # and 4,480 at 8 kHz
    "g721.wav": (_half(414, subtype="G721_32"), 48),
    "w64.w64": (_half(416, "W64"), 48),
    "aiff.aiff": (_half(417, "AIFF"), 48),
    "aiff_float.aif": (_half(418, "AIFF", "FLOAT"), 48),
    "caf.caf": (_half(419, "CAF"), 48),
    "alac.caf": (_half(420, "CAF", "ALAC_16"), 48),
    "au.au": (_half(421, "AU"), 48),
    "au_ulaw.au": (_half(422, "AU", "ULAW"), 48),
    "flac.flac": (_half(423, "FLAC"), 48),
    "flac24.flac": (_half(424, "FLAC", "PCM_24"), 48),
    "vorbis.ogg": (_half(425, "OGG", "VORBIS"), 48),
    "opus.opus": (_half(426, "OGG", "OPUS"), 48),
    "mp3.mp3": (_half(427, "MP3", "MPEG_LAYER_III"), 48),
    "aac_in_mp4.m4a": (
        encode_av(tone(0.5, hz=540), "aac", "ipod"),
        56,
    ),  # with the encoder's silence: 8,192 and
    "aac_alone.aac": (encode_av(tone(0.5, hz=541), "aac", "adts"), 56),  # encoder's silence: 9,216 samples
    "amr_alone.amr": (encode_av(tone(0.5, hz=542), "libopencore_amrnb", "amr", 8000), 50),
    "amr_in_3gp.3gp": (encode_av(tone(0.5, hz=543), "libopencore_amrnb", "3gp", 8000), 50),
    "opus_in_webm.webm": (encode_av(tone(0.5, hz=544), "libopus", "webm", 48_000), 48),
    "webm_inside.wav": (encode_av(tone(0.5, hz=545), "libopus", "webm", 48_000), 48),
    "mp3_inside.wav": (encode_av(tone(0.5, hz=546), "libmp3lame", "wav"), 56),
    "flac_inside.wav": (_half(428, "FLAC"), 48),
    "wav_inside.mp3": (_half(429), 48),
    "avr.avr": (_half(551, "AVR"), 48),
    "paf.paf": (_half(552, "PAF"), 48),
    "pvf.pvf": (_half(553, "PVF"), 48),
    "svx.8svx": (_half(554, "SVX", "PCM_S8"), 48),
    "psion.wve": (_half(555, "WVE", "ALAW", 8000), 48),
    "UPPER.WAV": (_half(430), 48),
    "u8.wave": (_half(431), 48),  # beside u8.wav: both keep their suffix in their ids
}

RATES_AND_CHANNELS: dict[str, tuple[bytes, int | str]] = {
    "7999_hz.wav": (_half(431, rate=7999), 48),
    "1000_hz.wav": (_half(100, rate=1000), 48),
    "11025_hz.wav": (_half(432, rate=11_025), 48),
    "44100_hz.flac": (_half(433, "FLAC", rate=44_100), 48),
    "192000_hz.wav": (_half(434, rate=192_000), 48),
    "stereo.wav": (_wav(np.stack([tone(0.5, hz=435), tone(0.5, hz=300)], axis=1)), 48),
    "channels_cancel.wav": (_wav(np.stack([tone(0.5, hz=436), -tone(0.5, hz=436)], axis=1)), 48),
    "eight_channels.wav": (_wav(np.stack([tone(0.5, hz=437 + k) for k in range(8)], axis=1)), 48),
}

CONTENT: dict[str, tuple[bytes, int | str]] = {
    "silence.wav": (_wav(np.zeros(8000), subtype="PCM_16"), 48),
    "dc.wav": (_wav(np.full(8000, 0.5), subtype="PCM_16"), 48),
    "clipped.wav": (_wav(np.clip(tone(0.5, hz=438, amplitude=9.0), -1, 1), subtype="PCM_16"), 48),
    "beyond_one.wav": (_wav(tone(0.5, hz=439, amplitude=4.0)), 48),
    "integers_as_floats.wav": (_wav(tone(0.5, hz=442, amplitude=1e4)), "decode too_loud"),
    "denormal.wav": (_wav(tone(0.5, hz=441, amplitude=1e-40)), 48),
    "one_frame.wav": (_wav(tone(0.5)[:400]), 1),
    "one_sample_less.wav": (_wav(tone(0.5)[:399]), "extract too_short"),
    "one_sample.wav": (_wav(tone(0.5)[1:2]), "extract too_short"),
    "no_samples.wav": (_wav(np.zeros(0)), "decode zero_length"),
    "nan.wav": (_wav(_with(tone(0.5), np.nan)), "decode non_finite"),
    "inf.wav": (_wav(_with(tone(0.5), np.inf)), "decode non_finite"),
    "beyond_float32.wav": (_wav(_with(tone(0.5), 1e300), subtype="DOUBLE"), "decode non_finite"),
    "too_long.wav": (_wav(np.zeros(3 * RATE), subtype="PCM_U8"), "decode too_long"),
}

HEADERS: dict[str, tuple[bytes, int | str]] = {
    "trailing_garbage.wav": (_half(442) + b"\xde\xad" * 500, 48),
    "size_unknown.wav": (_patched(_half(443), b"data", 4, U32(0xFFFFFFFF)), 48),
    "riff_size_zero.wav": (_patched(_half(444), b"RIFF", 4, U32(0)), 48),
    "riff_size_huge.wav": (_patched(_half(445), b"RIFF", 4, U32(0x7FFFFF00)), 48),
    "data_size_short.wav": (_patched(_half(446), b"data", 4, U32(8000)), 23),
    "data_size_huge.wav": (_patched(_half(447), b"data", 4, U32(0x70000000)), "decode truncated"),
    "data_size_one_more.wav": (_patched(_half(448), b"data", 4, U32(16_002)), "decode truncated"),
    "odd_chunk.wav": (_with_chunk(_half(449), b"junk", b"seven.."), 48),
    "list_chunk.wav": (_with_chunk(_half(450), b"LIST", b"INFOINAM\x04\x00\x00\x00song"), 48),
    "rate_zero.wav": (_patched(_half(451), b"fmt ", 12, U32(0)), "decode unsupported"),
    "rate_of_999.wav": (_half(100, rate=999), "decode unsupported"),
    "no_channels.wav": (_patched(_half(452), b"fmt ", 10, b"\0\0"), "decode unsupported"),
    "codec_unknown.wav": (_patched(_half(453), b"fmt ", 8, b"\xaa\xaa"), "decode unsupported"),
    "size_zero.wav": (_patched(_half(456), b"data", 4, U32(0)), 48),
    "size_two_billion.wav": (_patched(_half(457), b"data", 4, U32(2_000_000_000)), 48),
    "tag_before.wav": (_id3(bytes(300)) + _half(458), 48),
    "zeros_before.mp3": (bytes(1000) + _half(459, "MP3", "MPEG_LAYER_III"), 48),
    "samples_unknown.flac": (_patched(_half(487, "FLAC"), b"fLaC", 22, bytes(4)), 48),
    "id3_before.mp3": (_id3(bytes(300)) + _half(454, "MP3", "MPEG_LAYER_III"), 48),
    "claims_68_gigasamples.flac": (
        _patched(_half(455, "FLAC"), b"fLaC", 21, b"\xff\xff\xff\xff\xff"),
        48,  # a promise that no file of this size can keep
    ),
}  # fmt: skip

WHOLE = {
    "wav.wav": _half(460),
    "w64.w64": _half(461, "W64"),
    "aiff.aiff": _half(462, "AIFF"),
    "caf.caf": _half(463, "CAF"),
    "au.au": _half(464, "AU"),
    "flac.flac": _half(465, "FLAC"),
    "vorbis.ogg": _half(466, "OGG", "VORBIS"),
    "opus.opus": _half(467, "OGG", "OPUS"),
    "mp3.mp3": _half(468, "MP3", "MPEG_LAYER_III"),
    "m4a.m4a": encode_av(tone(0.5, hz=547), "aac", "ipod"),
    "amr.amr": encode_av(tone(0.5, hz=548), "libopencore_amrnb", "amr", 8000),
    "webm.webm": encode_av(tone(0.5, hz=549), "libopus", "webm", 48_000),
}
CUT: dict[str, tuple[bytes, int | str]] = {
    **{f"cut_{name}": (data[: len(data) * 6 // 10], "decode truncated") for name, data in WHOLE.items()},
    "cut_in_header.wav": (_half(470)[:20], "decode truncated"),
    "cut_before_data.wav": (_half(471)[:36], "decode truncated"),
    "cut_before_samples.wav": (_half(472)[:44], "decode truncated"),
    "cut_by_a_byte.wav": (_half(473)[:-1], "decode truncated"),
}

JOINED: dict[str, tuple[bytes, int | str]] = {
    "joined.wav": (_half(490) + _half(491), 98),
    "joined_flac.flac": (_half(492, "FLAC") + _half(493, "FLAC"), 98),
    "joined_rates.wav": (_half(494) + _half(495, rate=8000), "decode unsupported"),
    "joined_mp3.mp3": (
        b"".join(_half(hz, "MP3", "MPEG_LAYER_III") for hz in (496, 497)),
        110,
    ),  # the second's silence, too
    "chained_vorbis.ogg": (_half(498, "OGG", "VORBIS") + _half(499, "OGG", "VORBIS"), 98),
    "chained_opus.ogg": (_half(500, "OGG", "OPUS") + _half(501, "OGG", "OPUS"), 98),
}
STREAMED: dict[str, tuple[bytes, int | str]] = {
    "states_no_length.mp3": (encode_av(tone(0.5, hz=550), "libmp3lame", "mp3", write_xing="0"), 56),
    "cut_sphere.sph": (_half(502, "NIST")[:-2000], "decode truncated"),
    "cut_voc.voc": (_half(503, "VOC")[:-2000], "decode truncated"),
    "cut_svx.svx": (_half(504, "SVX", rate=16_000)[:-2000], "decode truncated"),
    "cut_avr.wav": (_half(505, "AVR")[:-2000], "decode truncated"),
    "cut_mat.wav": (_half(506, "MAT5")[:-2000], "decode truncated"),
}

NO_AUDIO: dict[str, tuple[bytes, int | str]] = {
    "empty.wav": (b"", "decode empty"),
    "one_byte.wav": (b"R", "decode not_audio"),
    "zero_bytes.wav": (bytes(4096), "decode not_audio"),
    "text.wav": (b"Dear diary, this is no sound at all. " * 50, "decode not_audio"),
    "git_lfs.wav": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "decode not_audio"),
    "shorten.shn": (b"ajkg\x02" + bytes(99), "decode not_audio"),
    "archive.wav": (b"PK\x03\x04" + bytes(99), "decode not_audio"),
    "page.mp3": (b"<!DOCTYPE html><title>404 Not Found</title>" * 20, "decode not_audio"),
    "picture.flac": (b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 8, "decode not_audio"),
    "film.wav": (b"RIFF\x10\x00\x00\x00AVI LIST" + bytes(100), "decode unsupported"),
    "id3_only.mp3": (_id3(b"TIT2\x00\x00\x00\x05\x00\x00\x00song" + bytes(500)), "decode not_audio"),
}

NAMES: dict[str, tuple[bytes, int | str]] = {
    "with space, comma and 'quotes\".wav": (_half(480), 48),
    "naïve-日本語-🎵.wav": (_half(481), 48),
    "line\nbreak.wav": (_half(482), 48),
    "two.dots.in.it.wav": (_half(483), 48),
    f"{'l' * 240}.wav": (_half(484), 48),
    "%s {0} $HOME.wav": (_half(485), 48),
    "twin_a.wav": (TWIN, 48),
    "twin_b.wav": (TWIN, 48),
    "sub/folder.wav/inside.wav": (_half(486), 48),
}

NOTED = {  # what the manifest notes of files that are used
    "channels_cancel.wav": "has channels that cancel out: their mix is at least 20 dB below them",
    "silence.wav": "is digital silence",
    "denormal.wav": "is digital silence",
    "dc.wav": "has one constant value, and no sound",
    "one_sample.wav": "has one constant value, and no sound",
    "clipped.wav": "is clipped: samples stay at full scale",
    "size_unknown.wav": NO_LENGTH,
    "size_zero.wav": NO_LENGTH,
    "trailing_garbage.wav": "has bytes after its samples that are not part of it: left out",
    "data_size_short.wav": "has bytes after its samples that are not part of it: left out",
    "size_two_billion.wav": NO_LENGTH,
    "samples_unknown.flac": NO_LENGTH,
    "claims_68_gigasamples.flac": NO_LENGTH,
}

ZOO = FORMATS | RATES_AND_CHANNELS | CONTENT | HEADERS | CUT | JOINED | STREAMED | NO_AUDIO | NAMES
