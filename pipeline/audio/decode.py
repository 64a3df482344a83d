"""Audio bytes to float32 waveforms at a wanted rate, and one error type for unusable files."""

import hashlib
import os
from contextlib import suppress
from math import gcd
from pathlib import Path
from stat import S_ISREG
from typing import Any, Literal, NamedTuple

import numpy as np
import soundfile
import soxr

from stillwave.cache import StoreError
from stillwave.pipeline.audio import ffmpeg, flac, kinds, sndfile
from stillwave.pipeline.audio.containers import check_header, whole
from stillwave.pipeline.audio.files import read_file
from stillwave.pipeline.audio.joined import recordings
from stillwave.pipeline.audio.packets import check_packets
from stillwave.pipeline.audio.samples import (
    REASONS,
    BadAudio,
    Reason,
    Samples,
    Waveform,
    check_peak,
    joined_notes,
    with_channels,
)

__all__ = [
    "AUDIO_VERSION", "REASONS", "Audio", "BadAudio", "Decoder", "Waveform", "check_peak", "content_key",
    "decode", "decode_noted", "joined_notes", "open_seekable", "read_bytes", "resample", "resampled_length",
    "with_channels",
]  # fmt: skip

Decoder = Literal["libsndfile", "ffmpeg"]

# In the stores' fingerprints: increase it if a change to decoding or resampling alters the numbers.
AUDIO_VERSION = 1

_MUCH_PADDING = 64  # zeros in front of MP3 that FFmpeg does not skip


class Audio(NamedTuple):
    """A decoded file. decoder: which library read it. notes: what is unusual about the file, in words."""

    waveform: Waveform
    sample_rate: int
    decoder: Decoder
    notes: tuple[str, ...]


def content_key(sha256: str, decoder: Any) -> str:
    """The key of a recording in a store: the sha256 of its bytes, which says all if libsndfile reads it.

    That library's version is in the fingerprint. FFmpeg's is in the keys of what it reads, so that a new one
    leaves all other rows as they are. decoder: the manifest's; what is not "ffmpeg" is libsndfile.
    """
    if decoder != "ffmpeg":
        return sha256
    return hashlib.sha256(f"{sha256} decoded by libavcodec {ffmpeg.VERSION}".encode()).hexdigest()


def read_bytes(path: str | Path) -> bytes:
    """All bytes of a file, at a path or a URL. Raises BadAudio: missing (or unreadable), empty."""
    try:
        data = _of_regular_file(path) if "://" not in str(path) else None
        if data is None:
            data = read_file(path)
    except BadAudio:
        raise
    except StoreError as error:  # the message names the URL
        raise BadAudio("missing", str(error)) from None
    except (OSError, ValueError) as error:  # ValueError: no file has such a name
        raise BadAudio("missing", f"{path}: {getattr(error, 'strerror', None) or error}") from None
    if not data:
        raise BadAudio("empty", f"{path}: 0 bytes")
    return data


def _of_regular_file(path: str | Path) -> bytes | None:
    """The bytes of a local file, with one look-up of its name, which may be slow; None if there is none."""
    with suppress(FileNotFoundError), open(path, "rb", buffering=0, opener=_without_waiting) as file:
        if not S_ISREG(os.fstat(file.fileno()).st_mode):
            raise BadAudio("missing", f"{path}: not a regular file")
        return file.read()
    return None


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))  # a pipe would wait for its other end


def decode(
    source: bytes | str | Path,
    min_duration_s: float = 0.0,
    max_duration_s: float | None = None,
    channels: int = 1,
) -> tuple[Waveform, int]:
    """The waveform and the rate of `decode_noted`."""
    return decode_noted(source, min_duration_s, max_duration_s, channels)[:2]


def decode_noted(
    source: bytes | str | Path,
    min_duration_s: float = 0.0,
    max_duration_s: float | None = None,
    channels: int | None = 1,
) -> Audio:
    """Decode audio, whatever its name: PCM, FLAC and Vorbis with libsndfile, all else with FFmpeg.

    channels: 1 averages the file's channels; 2 keeps stereo, and gives both sides the average of any other
    number of channels, because nothing says which of them are left and right; None keeps what there is.

    Returns the waveform, (samples,) or (samples, channels), and its rate in Hz. Integer formats span [-1, 1);
    floats are kept as they are. Raises BadAudio, with the reason, for anything that is not whole, finite
    audio with a duration in [min_duration_s, max_duration_s]. A file that is too long is refused from its
    header, or as soon as the limit is reached.
    """
    data = source if isinstance(source, bytes) else read_bytes(source)
    if not data:
        raise BadAudio("empty", "0 bytes")
    samples = Samples(channels, max_duration_s)
    try:
        data = _without_padding(data)
        check_packets(data)
        check_header(data)
        readers = {_read(recording, samples) for recording in recordings(data)}
    except BadAudio:
        raise
    except Exception as error:  # whatever a decoder trips over, it is about one file among many
        raise BadAudio("not_audio", f"decoding failed: {type(error).__name__}: {error}") from error
    decoder: Decoder = "ffmpeg" if "ffmpeg" in readers else "libsndfile"
    waveform = samples.waveform(min_duration_s)
    notes = (*dict.fromkeys(samples.notes), *samples.levels.notes())
    return Audio(waveform, samples.sample_rate, decoder, notes)


def open_seekable(data: bytes) -> tuple[soundfile.SoundFile, tuple[str, ...]] | None:
    """The file, open, and its notes, if any part of it can be read by seeking, as `decode` would read it.

    None for what must be decoded as a whole, or cannot be decoded.
    """
    try:
        data = _without_padding(data)
        if len(recordings(data)) > 1:
            return None
        data, notes = whole(data)
        file = sndfile.seekable(data) if kinds.is_for_libsndfile(data) else None
    except Exception:  # the reason is that of decoding it
        return None
    return None if file is None else (file, notes)


def _without_padding(data: bytes) -> bytes:
    """The file behind any zeros and ID3 tags; FFmpeg itself reads those in front of MP3 and AAC."""
    if kinds.is_known(data):
        return data
    tag, zeros = ffmpeg.id3_bytes(data), len(data) - len(data.lstrip(b"\0"))
    if not 0 < tag + zeros < len(data):
        return data
    for own in (4, 3, 2, 1):  # zeros with which MAT and MP4 begin
        if own < zeros and kinds.is_known(behind := data[zeros - own :]):
            return behind
    behind = _without_padding(data[tag + zeros :])
    padded = zeros >= _MUCH_PADDING or (zeros and behind[:3] == b"ID3")
    return behind if padded or kinds.is_known(behind) else data


def _read(data: bytes, samples: Samples) -> Decoder:
    data, notes = whole(data)
    samples.notes += notes
    said = ""
    if kinds.is_for_libsndfile(data):
        try:
            sndfile.read(data, samples)
            return "libsndfile"
        except sndfile.Refused as error:
            said = str(error)
    try:
        ffmpeg.read(data, samples, flac.most_samples(data))
        return "ffmpeg"
    except ffmpeg.Refused as error:
        words = "; ".join(filter(None, (said, str(error))))
    if data[:4] == b"fLaC":
        raise BadAudio("truncated", f"the file ends inside its header ({words})")
    reason: Reason = "unsupported" if kinds.name_of(data) else "not_audio"
    raise BadAudio(reason, kinds.why_not(data, words))


def resampled_length(num_samples: int, rate_in: int, rate_out: int) -> int:
    """Samples that `resample` returns: ceil(num_samples * rate_out / rate_in), in exact integers."""
    if num_samples < 0 or rate_in <= 0 or rate_out <= 0:
        raise ValueError(
            f"resampled_length({num_samples}, {rate_in}, {rate_out}): needs num_samples >= 0 and rates > 0 Hz"
        )
    return -(-num_samples * rate_out // rate_in)


def resample(waveform: Waveform, rate_in: int, rate_out: int) -> Waveform:
    """Resample (samples[, 2]) from `rate_in` to `rate_out` Hz (soxr HQ) into `resampled_length` samples."""
    length = resampled_length(len(waveform), rate_in, rate_out)
    if rate_in == rate_out:
        return waveform
    divisor = gcd(rate_in, rate_out)
    resampled = soxr.resample(waveform, rate_in // divisor, rate_out // divisor, quality="HQ")
    # soxr rounds the length differently, by at most a sample; a store's plan needs the exact length.
    if len(resampled) < length:
        resampled = np.pad(resampled, [(0, length - len(resampled)), *[(0, 0)] * (waveform.ndim - 1)])
    return np.ascontiguousarray(resampled[:length], dtype=np.float32)
