"""Files, and spans of them, to waveforms. Many spans of one file cost one reading of it.

libsndfile seeks in what it reads exactly; what else there is, is decoded once and sliced. Both stay in memory
for the next row, with the sha256 of the bytes: a corpus cut from a few long files would otherwise read, hash
and decode all of a file for each of its thousands of rows.
"""

import hashlib
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from stillwave.pipeline.audio import sndfile
from stillwave.pipeline.audio.decode import (
    Audio,
    BadAudio,
    Decoder,
    Waveform,
    decode_noted,
    open_seekable,
    read_bytes,
    resample,
)
from stillwave.pipeline.audio.levels import OF_SAMPLES
from stillwave.pipeline.audio.samples import Samples

KEPT_BYTES = 2**30  # of files, or of samples if they must be decoded as a whole; one more may be larger
KEPT_FILES = 64  # each may be an open file of the system, which has a thousand for a process
ROUNDING_S = 0.0005  # ends are often written in milliseconds, and so up to half of one behind the file's
_URL_S = 600.0  # a URL is read again after so long, as nothing tells cheaply whether it has changed


class Span(NamedTuple):
    """A part of a file, [start, end) in seconds; without end, up to the file's."""

    start: float
    end: float | None = None

    def __str__(self) -> str:
        """As in ids: `1.5-3.25`, or `1.5-`."""
        return "-".join("" if s is None else np.format_float_positional(s, trim="-") for s in self)

    def samples(self, sample_rate: int, num_samples: int) -> tuple[int, int]:
        """[first, last) of a file of `num_samples`, at its own rate. Raises BadAudio("bad_span")."""
        first = round(self.start * sample_rate)
        last = num_samples if self.end is None else round(self.end * sample_rate)
        if first >= num_samples or last > num_samples + max(1, ROUNDING_S * sample_rate):
            length = np.format_float_positional(num_samples / sample_rate, trim="-", precision=6)
            end = "its end" if self.end is None else f"{self.end:.12g} s"
            raise BadAudio(
                "bad_span",
                f"from {self.start:.12g} s to {end}, but the file is {length} s long; correct `start` and "
                "`end`, which are in seconds, or leave `end` empty for the end of the file",
            )
        if first >= min(last, num_samples):
            raise BadAudio("bad_span", f"{self} s is less than one sample at {sample_rate} Hz")
        return first, min(last, num_samples)


def span_of(row: Mapping[Any, Any]) -> Span | None:
    """The span of a row of a manifest, or of an imported one; None for a row that is a whole file."""
    start, end = (None if value is None else float(value) for value in (row.get("start"), row.get("end")))
    if start is None or start != start:
        return None
    return Span(start, None if end is None or end != end else end)


def content_of(row: Mapping[Any, Any]) -> str:
    """What a manifest's row holds: the sha256 of its file or text; for a span, hashed with its samples."""
    sha256 = str(row["sha256"])
    if (span := span_of(row)) is None:
        return sha256
    return content_of_samples(sha256, round(span.start * int(row["sample_rate"])), int(row["num_samples"]))


def content_of_samples(sha256: str, first: int, count: int) -> str:
    """Of `count` samples from number `first` on, at the file's own rate."""
    return hashlib.sha256(f"{sha256} samples {first}:{first + count}".encode()).hexdigest()


def read_audio(
    path: str | Path,
    span: Span | None = None,
    min_duration_s: float = 0.0,
    max_duration_s: float | None = None,
    channels: int = 1,
    expected_sha256: str | None = None,
) -> tuple[Audio, str]:
    """The decoded file, or the span of it, as `decode_noted` returns it; and the sha256 of the whole file.

    The durations are those of the span. The bytes that are hashed are the bytes that are decoded: another
    hash than the expected one raises BadAudio("changed").
    """
    if span is None:
        data = read_bytes(path)
        sha256 = hashlib.sha256(data).hexdigest()
        _check_unchanged(path, sha256, expected_sha256)
        return decode_noted(data, min_duration_s, max_duration_s, channels), sha256
    file = _kept.get(path)
    _check_unchanged(path, file.sha256, expected_sha256)
    return file.read(span, Samples(channels, max_duration_s), min_duration_s), file.sha256


def load_waveform(
    path: str | Path,
    sample_rate: int,
    expected_sha256: str | None = None,
    channels: int = 1,
    decoder: Decoder | None = None,
    span: Span | None = None,
) -> Waveform:
    """The waveform of a file at `sample_rate` Hz, (samples,) float32, or (samples, 2): see `decode`.

    span: cut at the file's own rate, and then resampled, as if the file held nothing else. `expected_sha256`
    is the manifest's: a file whose bytes have changed since raises BadAudio("changed"). `decoder`, too: what
    another library than the manifest's reads may have other samples.
    """
    audio, _ = read_audio(path, span, channels=channels, expected_sha256=expected_sha256)
    if decoder is not None and audio.decoder != decoder:
        raise BadAudio(
            "changed",
            f"{path}: read by {audio.decoder}, and by {decoder} when the manifest was made; "
            "run `stillwave prepare` again",
        )
    return resample(audio.waveform, audio.sample_rate, sample_rate)


def _check_unchanged(path: str | Path, sha256: str, expected: str | None) -> None:
    if expected is not None and sha256 != expected:
        raise BadAudio(
            "changed",
            f"{path}: sha256 is {sha256[:12]}..., the manifest says {expected[:12]}...; "
            "run `stillwave prepare` again",
        )


class _File:
    """A file whose spans are read. size: the bytes that it takes in memory."""

    def __init__(self, path: str | Path) -> None:
        data = read_bytes(path)
        self.sha256, self.size = hashlib.sha256(data).hexdigest(), len(data)
        self._lock = threading.Lock()  # an open file has one position
        self._opened = open_seekable(data)
        self._whole: Audio | BadAudio | None = None
        if self._opened is None:
            try:
                self._whole = decode_noted(data, channels=None)  # notes need all channels of a span
                self.size = self._whole.waveform.nbytes
            except BadAudio as error:  # it is not tried again for each span
                self._whole, self.size = error, 0

    def read(self, span: Span, samples: Samples, min_duration_s: float) -> Audio:
        if isinstance(self._whole, BadAudio):
            raise BadAudio(self._whole.reason, self._whole.detail)
        if self._whole is not None:
            whole, sample_rate, decoder, notes = self._whole
            first, last = span.samples(sample_rate, len(whole))
            samples.expect(last - first, sample_rate)
            samples.add(whole[first:last], sample_rate)
            return self._audio(samples, min_duration_s, decoder, notes)
        assert self._opened is not None
        file, notes = self._opened
        first, last = span.samples(file.samplerate, file.frames)
        samples.expect(last - first, file.samplerate)
        with self._lock:
            sndfile.read_part(file, first, last, samples)
        return self._audio(samples, min_duration_s, "libsndfile", notes)

    def _audio(
        self, samples: Samples, min_duration_s: float, decoder: Decoder, notes: Iterable[str]
    ) -> Audio:
        """The span's samples and notes: of the file's, those that are about all of it."""
        waveform = samples.waveform(min_duration_s)
        kept = [note for note in notes if note not in OF_SAMPLES]
        return Audio(waveform, samples.sample_rate, decoder, (*kept, *samples.levels.notes()))


class _Place:
    def __init__(self) -> None:
        self.lock = threading.Lock()  # threads that want the same file wait for the first to read it
        self.file: _File | None = None


class _Kept:
    """The last files, up to KEPT_BYTES and KEPT_FILES; threads share them."""

    def __init__(self) -> None:
        self._places: OrderedDict[tuple[Any, ...], _Place] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, path: str | Path) -> _File:
        key = (str(path), *_version(path))
        with self._lock:
            place = self._places.setdefault(key, _Place())
            self._places.move_to_end(key)
        with place.lock:
            if place.file is None:
                place.file = _File(path)
                self._make_room()
            return place.file

    def _make_room(self) -> None:
        with self._lock:
            sizes = {key: place.file.size if place.file else 0 for key, place in self._places.items()}
            total = sum(sizes.values())
            for key in list(sizes)[:-1]:  # the oldest first
                if total <= KEPT_BYTES and len(self._places) <= KEPT_FILES:
                    break
                total -= sizes[key]
                del self._places[key]


def _version(path: str | Path) -> tuple[int, ...]:
    try:
        stat = os.stat(path)  # noqa: PTH116 - a URL, too, which is no path
    except OSError:
        return (int(time.monotonic() / _URL_S),)
    return stat.st_size, stat.st_mtime_ns


_kept = _Kept()
