"""Reading with FFmpeg's libraries, by PyAV: MP3, Opus, AAC and whatever else libsndfile does not."""

import io
import re
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from stillwave.pipeline.audio.samples import DAMAGED, NO_LENGTH, BadAudio, Samples, Waveform

# In the keys of the rows that it decodes: FFmpeg's release, however PyAV itself is numbered.
VERSION = ".".join(map(str, av.library_versions["libavcodec"][:2]))

# Playlists (HLS, DASH, concat) are not among them: they name other files, which are not to be opened.
_FORMATS = (
    "aac ac3 aiff amr amrnb amrwb ape asf au avi caf dsf dts eac3 flac flv iff ircam loas matroska mov mp3 "
    "mpc mpc8 mpeg mpegts nistsphere ogg oma qcp rm tak tta voc w64 wav webm wv xwma"
)
_OPTIONS = {"format_whitelist": _FORMATS.replace(" ", ","), "protocol_whitelist": ""}
# Where a stated duration comes from the file; elsewhere FFmpeg guesses it from the bit rate.
_STATED = re.compile(r"\b(aiff|ape|asf|au|avi|caf|flac|matroska|mov|tak|tta|w64|wav|wv)\b")
_TOLERANCE_S = 0.25  # stated durations are rounded, and include the encoder's padding or not
_JOIN = 2**16  # values: frames of a codec, some 20 ms, are joined to blocks of so many
_SCALES = {"uint8": 2**7, "int16": 2**15, "int32": 2**31}  # of integers, to [-1, 1)
# The header that counts an MP3's frames lies in its first one, behind 9, 17 or 32 bytes of side information.
_XING = re.compile(rb"\xff[\xe2-\xff]..(?:.{9}|.{17}|.{32})(?:Xing|Info)...[\x01-\xff](.{4})", re.DOTALL)
_ID3_BYTES = 10
_SHORTEST_MP3_FRAME = 24  # bytes: 8 kbit/s at 24 kHz


class Refused(Exception):
    """A file that FFmpeg does not open, or finds no audio in; the message says why."""


def read(data: bytes, samples: Samples, plausible: int) -> None:
    """Decode a whole file into `samples`; damaged packets are left out and noted, as FFmpeg's program does.

    plausible: the most samples that the file can hold; what states more states nothing. Raises Refused, and
    BadAudio if the file is cut short, or is mostly damaged.
    """
    try:
        container = av.open(io.BytesIO(data), options=_OPTIONS, metadata_errors="replace")
    except (av.FFmpegError, ValueError) as error:
        raise Refused(_words(error)) from None
    with container:
        if (stream := container.streams.best("audio")) is None:
            raise Refused("no audio in it")
        if stream.codec_context is None:
            raise Refused("no decoder for its codec")
        before = samples.count
        good, bad, last, cut = 0, 0, b"", False
        for packet, frames in _packets(container, stream, samples):
            good, bad = good + (frames is not None), bad + (frames is None)
            cut = frames is None or packet.is_corrupt
            last = bytes(packet)
        name = container.format.name
        seconds = _stated_seconds(container, stream)
    if not good:
        raise Refused("no whole packet in it")
    if bad > good:
        raise Refused(f"{bad} of {good + bad} packets are damaged")
    if name in ("mp3", "aac"):  # what follows the last frame may be a tag, which is no packet cut short
        cut = cut and last[:1] == b"\xff"
    if cut or (name == "mp3" and _mp3_frame_bytes(last) > len(last)):
        raise BadAudio("truncated", f"the file ends inside a packet, after {_after(samples)}")
    if bad:
        samples.notes.append(DAMAGED)
    if name == "mp3":
        counted = _mp3_frames(data)
        if counted is not None and counted > len(data) // _SHORTEST_MP3_FRAME:
            samples.notes.append(NO_LENGTH)
        elif counted is not None and good < counted - 1:  # some encoders count the frame that holds the count
            raise BadAudio("truncated", f"{counted} MP3 frames promised, {good} found")
    elif seconds is not None:
        promised = round(seconds * samples.sample_rate)
        if promised > plausible or (name == "flac" and samples.count - before > promised):
            samples.notes.append(NO_LENGTH)
        elif samples.count - before < promised - _TOLERANCE_S * samples.sample_rate:
            raise BadAudio("truncated", f"{promised} samples promised, {samples.count - before} decoded")
    elif name == "flac":
        samples.notes.append(NO_LENGTH)


def _packets(container: Any, stream: Any, samples: Samples) -> Iterator[tuple[Any, int | None]]:
    """Each packet with the number of its decoded frames, None if it is damaged."""
    stream.codec_context.thread_count = 1
    parts: list[Waveform] = []
    rate, held, skip = 0, 0, -1

    def flush() -> None:
        if parts:
            samples.add(np.concatenate(parts), rate)
            parts.clear()

    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets)
        except StopIteration:
            break
        except av.FFmpegError:  # the container is damaged from here on
            flush()
            raise BadAudio("truncated", f"the container is damaged after {_after(samples)}") from None
        frames: list[Any] | None = None
        with suppress(av.FFmpegError):
            frames = packet.decode()
        if skip < 0:
            skip = _forgotten(container, stream, packet)
        for frame in frames or ():
            block = _floats(frame)
            if parts and (rate != frame.sample_rate or parts[0].shape[1] != block.shape[1]):
                flush()
            block, skip = block[skip:], max(0, skip - len(block))
            rate, held = frame.sample_rate, len(block) + (held if parts else 0)
            samples.expect(
                samples.count + held, rate
            )  # now: a damaged header may make a frame of each sample
            parts.append(block)
            if held * block.shape[1] >= _JOIN:
                flush()
        if packet.size:  # the last one only empties the decoder
            yield packet, None if frames is None else len(frames)
    flush()


def _floats(frame: Any) -> Waveform:
    """(samples, channels) of a frame, planar or packed."""
    values: NDArray[Any] = frame.to_ndarray()
    values = values.T if frame.format.is_planar else values.reshape(frame.samples, -1)
    if (scale := _SCALES.get(values.dtype.name)) is None:
        with np.errstate(over="ignore"):  # infinite samples are counted later
            return np.ascontiguousarray(values, dtype=np.float32)
    floats: Waveform = (values / np.float64(scale)).astype(np.float32)
    if values.dtype == np.uint8:  # its middle is 128
        floats -= np.float32(1)
    return floats


def _forgotten(container: Any, stream: Any, first: Any) -> int:
    """Samples that FFmpeg 8 fails to drop before Opus in WebM, if an older FFmpeg wrote it from 16 kHz.

    It states them in Opus's header, and fewer with the first packet, at the input's rate.
    """
    header = stream.codec_context.extradata or b""
    if "webm" not in container.format.name or header[:8] != b"OpusHead":
        return 0
    stated = [bytes(one) for one in first.iter_sidedata() if one.data_type == "skip_samples"]
    dropped = int.from_bytes(stated[0][:4], "little") if stated else 0
    return max(0, int.from_bytes(header[10:12], "little") - dropped)


def _stated_seconds(container: Any, stream: Any) -> float | None:
    if not _STATED.search(container.format.name):
        return None
    if stream.duration is not None:
        return float(stream.duration * stream.time_base)
    if container.duration is None or len(container.streams) > 1:  # a film's sound may be shorter
        return None
    return float(container.duration / av.time_base)


def _mp3_frames(data: bytes) -> int | None:
    """The number of frames that a Xing or Info header states."""
    start = id3_bytes(data)
    found = _XING.search(data, start, start + 4096)
    return int.from_bytes(found[1], "big") if found else None


def id3_bytes(data: bytes) -> int:
    """The length of the ID3v2 tag at the start, 0 if there is none."""
    if data[:3] != b"ID3" or len(data) < _ID3_BYTES:
        return 0
    size = sum((byte & 0x7F) << shift for byte, shift in zip(data[6:10], (21, 14, 7, 0), strict=True))
    return _ID3_BYTES + size


def _mp3_frame_bytes(frame: bytes) -> int:
    """The length that a Layer III frame's own header states; 0 for other layers and for none."""
    if len(frame) < 4 or frame[0] != 0xFF or frame[1] & 0xE6 != 0xE2:
        return 0
    halvings = {0x18: 0, 0x10: 1, 0x00: 2}.get(frame[1] & 0x18, 0)  # MPEG-1, 2 and 2.5
    rates = (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 0)
    if halvings:
        rates = (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160, 0)
    hertz = (44_100, 48_000, 32_000, 0)[frame[2] >> 2 & 3] >> halvings
    if not hertz or not rates[frame[2] >> 4]:
        return 0
    return (72 if halvings else 144) * rates[frame[2] >> 4] * 1000 // hertz + (frame[2] >> 1 & 1)


def _after(samples: Samples) -> str:
    return f"{samples.count / samples.sample_rate:.3f} s" if samples.count else "0 s"


def _words(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
