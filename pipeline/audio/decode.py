"""Audio bytes to float32 waveforms at a wanted rate, and one error type for unusable files."""

import hashlib
import io
import os
from math import gcd
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
import soundfile
import soxr

from stillwave.cache import StoreError
from stillwave.pipeline.audio.containers import missing_bytes
from stillwave.pipeline.audio.files import is_url, read_file

Waveform = npt.NDArray[np.float32]
Reason = Literal[
    "missing", "empty", "truncated", "not_audio", "non_finite", "zero_length", "too_short", "too_long",
    "changed",
]  # fmt: skip
REASONS: tuple[str, ...] = get_args(Reason)

# In the stores' fingerprints: increase it if a change to decoding or resampling alters the numbers.
AUDIO_VERSION = 1
_UNKNOWN_FRAMES = 2**62  # libsndfile reports SF_COUNT_MAX (2^63 - 1) if a stream does not state its length
# Samples in a frame of MPEG-1 and of MPEG-2; some encoders count the frame that holds the count itself.
_MP3_FRAME = (1152, 576)


class BadAudio(ValueError):
    """A file that cannot be used. `reason` is one of REASONS, `detail` explains it."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason: Reason = reason
        self.detail = detail

    def __reduce__(self) -> tuple[type["BadAudio"], tuple[Reason, str]]:
        # Without this an error raised in a worker process does not survive pickling.
        return BadAudio, (self.reason, self.detail)


def read_bytes(path: str | Path) -> bytes:
    """All bytes of a file, at a path or a URL. Raises BadAudio: missing (or unreadable), empty."""
    if not is_url(path) and Path(path).exists() and not Path(path).is_file():
        raise BadAudio("missing", f"{path}: not a regular file")  # reading a pipe would wait forever
    try:
        data = read_file(path)
    except OSError as error:
        raise BadAudio("missing", f"{path}: {error.strerror or error}") from None
    except StoreError as error:  # the message names the URL
        raise BadAudio("missing", str(error)) from None
    if not data:
        raise BadAudio("empty", f"{path}: 0 bytes")
    return data


def decode(
    source: bytes | str | Path,
    min_duration_s: float = 0.0,
    max_duration_s: float | None = None,
    channels: int = 1,
) -> tuple[Waveform, int]:
    """Decode WAV, FLAC, OGG, MP3 and other formats that libsndfile reads.

    channels: 1 averages the file's channels; 2 keeps stereo, and gives both sides the average of any other
    number of channels, because nothing says which of them are left and right.

    Returns the waveform, (samples,) or (samples, 2), and its rate in Hz. Integer formats span [-1, 1); floats
    are kept as they are. Raises BadAudio, with the reason, for anything that is not whole, finite audio with
    a duration in [min_duration_s, max_duration_s]. A file that is too long is refused from its header, before
    it is decoded.
    """
    data = source if isinstance(source, bytes) else read_bytes(source)
    if not data:
        raise BadAudio("empty", "0 bytes")
    if missing := missing_bytes(data):
        raise BadAudio("truncated", missing)
    samples, sample_rate = _read(data, max_duration_s)
    if len(samples) == 0:
        raise BadAudio("zero_length", "no samples")
    waveform = with_channels(samples, channels)
    if not np.isfinite(waveform).all():
        bad = int(np.count_nonzero(~np.isfinite(waveform).reshape(len(waveform), -1).all(axis=1)))
        raise BadAudio("non_finite", f"{bad} of {len(waveform)} samples are NaN or infinite")
    duration_s = len(waveform) / sample_rate
    if duration_s < min_duration_s:
        raise BadAudio("too_short", f"{duration_s:.3f} s; at least min_duration_s = {min_duration_s:g} s")
    _check_not_too_long(duration_s, max_duration_s)
    return np.ascontiguousarray(waveform), sample_rate


def with_channels(samples: Waveform, channels: int) -> Waveform:
    """(samples, any) to (samples,) or (samples, 2), see `decode`."""
    if channels not in (1, 2):
        raise ValueError(f"channels {channels}: waveforms have 1 or 2")
    if samples.shape[1] == channels == 2:
        return samples
    mono = samples[:, 0] if samples.shape[1] == 1 else samples.mean(axis=1, dtype=np.float32)
    return mono if channels == 1 else np.stack([mono, mono], axis=1)


def _read(data: bytes, max_duration_s: float | None) -> tuple[Waveform, int]:
    """Samples (frames, channels) and rate of a file whose container is known to be whole."""
    try:
        file = soundfile.SoundFile(_in_memory(data), closefd=True)
    except soundfile.LibsndfileError as error:
        # If a FLAC stream cannot be opened, its header is cut: the first bytes say that it is FLAC.
        reason: Reason = "truncated" if data[:4] == b"fLaC" else "not_audio"
        raise BadAudio(reason, _words(error)) from None
    with file:
        promised = file.frames if file.frames < _UNKNOWN_FRAMES else None
        if file.format == "MP3" and not _mp3_says_length(data):
            promised = None
        if promised is not None:
            _check_not_too_long(promised / file.samplerate, max_duration_s)
        # Some codecs (GSM 6.10) cannot seek; soundfile then needs the number of frames from the header.
        frames = -1 if file.seekable() else file.frames
        try:
            samples = file.read(frames, dtype="float32", always_2d=True)
        except soundfile.LibsndfileError as error:
            raise BadAudio("truncated", f"decoding stopped: {_words(error)}") from None
        tolerance = _MP3_FRAME[file.samplerate < 32_000] if file.format == "MP3" else 0
        if promised is not None and len(samples) < promised - tolerance:
            raise BadAudio("truncated", f"{promised} samples promised, {len(samples)} decoded")
        return samples, file.samplerate


def _in_memory(data: bytes) -> int | io.BytesIO:
    """The bytes as a file: an anonymous one of the operating system, if it has them (Linux).

    libsndfile reads it directly. It reads a Python object by calling back, and each call needs the
    interpreter lock: decoding in parallel threads was then no faster than in one.
    """
    if not hasattr(os, "memfd_create"):
        return io.BytesIO(data)
    try:
        descriptor = os.memfd_create("audio", os.MFD_CLOEXEC)
    except OSError:  # not permitted, or too many open files
        return io.BytesIO(data)
    try:
        with open(descriptor, "wb", closefd=False) as file:
            file.write(data)
        os.lseek(descriptor, 0, os.SEEK_SET)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _check_not_too_long(duration_s: float, max_duration_s: float | None) -> None:
    if max_duration_s is not None and duration_s > max_duration_s:
        raise BadAudio("too_long", f"{duration_s:.3f} s; at most max_duration_s = {max_duration_s:g} s")


def _mp3_says_length(data: bytes) -> bool:
    """Whether an MP3 carries a Xing or Info header; without one its length is the decoder's guess."""
    start = 0
    if data[:3] == b"ID3" and len(data) >= 10:
        size = data[6:10]  # four bytes of seven bits each
        start = 10 + sum((byte & 0x7F) << shift for byte, shift in zip(size, (21, 14, 7, 0), strict=True))
    head = data[start : start + 512]
    return b"Xing" in head or b"Info" in head


def _words(error: soundfile.LibsndfileError) -> str:
    return str(error.error_string).strip()


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


def load_waveform(
    path: str | Path, sample_rate: int, expected_sha256: str | None = None, channels: int = 1
) -> Waveform:
    """The waveform of a file at `sample_rate` Hz, (samples,) float32, or (samples, 2): see `decode`.

    `expected_sha256` is the manifest's: a file whose bytes have changed since raises BadAudio("changed").
    The bytes that are hashed are the bytes that are decoded.
    """
    data = read_bytes(path)
    if expected_sha256 is not None:
        sha256 = hashlib.sha256(data).hexdigest()
        if sha256 != expected_sha256:
            raise BadAudio(
                "changed",
                f"{path}: sha256 is {sha256[:12]}..., the manifest says {expected_sha256[:12]}...; "
                "run `stillwave prepare` again",
            )
    waveform, rate = decode(data, channels=channels)
    return resample(waveform, rate, sample_rate)
