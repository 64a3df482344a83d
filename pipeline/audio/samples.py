"""Decoded samples as they come, block by block, and one error type for files that cannot be used."""

from collections.abc import Iterable
from math import isfinite
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from stillwave.pipeline.audio.levels import Levels

Waveform = npt.NDArray[np.float32]
Reason = Literal[
    "missing", "empty", "truncated", "not_audio", "unsupported", "non_finite", "too_loud", "zero_length",
    "too_short", "too_long", "bad_span", "changed",
]  # fmt: skip
REASONS: tuple[str, ...] = get_args(Reason)

RATES = (1_000, 1_000_000)  # Hz; beyond them a header is damaged, or the samples are no sound
MOST_SAMPLES = 2**30  # 4 GiB in memory; 18 h at 16 kHz
# Full scale is 1. Float recorders and mixes go up to some 20 dB beyond it; integers that were not divided, of
# 8 bits or more, by over 40 dB.
LOUDEST = 100.0

# What is noted of a file that is used all the same.
NO_LENGTH = "states no length that can be true: read to the end"
NOT_READ = "has bytes after its samples that are not part of it: left out"
DAMAGED = "has damaged packets: left out"


class BadAudio(ValueError):
    """A file that cannot be used. `reason` is one of REASONS, `detail` explains it."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason: Reason = reason
        self.detail = detail

    def __reduce__(self) -> tuple[type["BadAudio"], tuple[Reason, str]]:
        # Without this an error raised in a worker process does not survive pickling.
        return BadAudio, (self.reason, self.detail)


def check_peak(peak: float) -> None:
    """Raise BadAudio if the largest absolute sample shows that these are integers, not floats."""
    if peak > LOUDEST:
        raise BadAudio(
            "too_loud",
            f"samples reach {peak:.3g}, but full scale is 1; at most {LOUDEST:g} is read: divide 16-bit "
            "integers by 32768; otherwise the recording is damaged",
        )


def joined_notes(notes: Iterable[str]) -> str | None:
    """Several notes as one text, with semicolons between them; None for none."""
    return "; ".join(notes) or None


def with_channels(samples: Waveform, channels: int) -> Waveform:
    """(samples, any) to (samples,) or (samples, 2), see `decode`."""
    if channels not in (1, 2):
        raise ValueError(f"channels {channels}: waveforms have 1 or 2")
    if samples.shape[1] == channels == 2:
        return samples
    if samples.shape[1] == 1:
        mono = samples[:, 0]
    else:
        with np.errstate(invalid="ignore", over="ignore"):  # samples that are not finite are counted later
            mono = samples.mean(axis=1, dtype=np.float32)
    return mono if channels == 1 else np.stack([mono, mono], axis=1)


class Samples:
    """The waveform that a decoder's blocks add up to; each is mixed at once, so that memory holds the mix.

    channels: 1 or 2, as for `decode`; None keeps the file's. max_duration_s: more is too long, however the
    file states its length. notes: what is unusual about the file; levels: about its samples.
    """

    def __init__(self, channels: int | None = 1, max_duration_s: float | None = None) -> None:
        self.channels, self.max_duration_s = channels, max_duration_s
        self.sample_rate = self.count = 0  # count: samples of each channel so far
        self.notes: list[str] = []
        self.levels = Levels()
        self._bad = self._width = 0  # width: channels of what is kept
        self._first: Waveform | None = None  # the only block, of most files
        self._mixed = bytearray()  # all of several; grows in place, unlike an array

    def expect(self, count: int, sample_rate: int) -> None:
        """Raise BadAudio for so many samples, or such a rate, before any is decoded."""
        if not RATES[0] <= sample_rate <= RATES[1]:
            raise BadAudio(
                "unsupported", f"a sample rate of {sample_rate} Hz; {RATES[0]:,} to {RATES[1]:,} Hz are read"
            )
        if self.max_duration_s is not None and count / sample_rate > self.max_duration_s:
            raise BadAudio(
                "too_long",
                f"{count / sample_rate:.3f} s; at most max_duration_s = {self.max_duration_s:g} s",
            )
        if count > MOST_SAMPLES:
            raise BadAudio("too_long", f"more than {MOST_SAMPLES:,} samples; cut the recording into parts")

    def add(self, block: Waveform, sample_rate: int) -> None:
        """Append (samples, channels of the file). Raises BadAudio for too many, and for another rate."""
        if self.count and sample_rate != self.sample_rate:
            raise BadAudio(
                "unsupported",
                f"the sample rate changes from {self.sample_rate} to {sample_rate} Hz after "
                f"{self.count / self.sample_rate:.3f} s: several recordings were joined; split the file",
            )
        self.sample_rate = sample_rate
        self.expect(self.count + len(block), sample_rate)
        if not len(block):
            return
        if self.channels is None and self.count and block.shape[1] != self._width:
            raise BadAudio(
                "unsupported", f"its channels change from {self._width} to {block.shape[1]}; split the file"
            )
        self._width = block.shape[1] if self.channels is None else self.channels
        mixed = block if self.channels is None else with_channels(block, self.channels)
        self.levels.add(block, mixed)
        if not isfinite(self.levels.peak):
            self._bad += int(np.count_nonzero(~np.isfinite(mixed).reshape(len(mixed), -1).all(axis=1)))
        mixed = np.ascontiguousarray(mixed, dtype=np.float32)
        if not self.count:
            self._first = mixed
        else:
            if self._first is not None:
                self._mixed += self._first.data.cast("B")
                self._first = None
            self._mixed += mixed.data.cast("B")
        self.count += len(block)

    def waveform(self, min_duration_s: float = 0.0) -> Waveform:
        """All of them, (samples,) or (samples, channels).

        Raises BadAudio: zero_length, non_finite, too_loud, too_short.
        """
        if not self.count:
            raise BadAudio("zero_length", "no samples")
        if self._bad:
            raise BadAudio("non_finite", f"{self._bad} of {self.count} samples are NaN or infinite")
        check_peak(self.levels.peak)
        if (duration_s := self.count / self.sample_rate) < min_duration_s:
            raise BadAudio("too_short", f"{duration_s:.3f} s; at least min_duration_s = {min_duration_s:g} s")
        if self._first is not None:
            return self._first
        flat = np.frombuffer(self._mixed, dtype=np.float32)
        return flat if self.channels == 1 else flat.reshape(-1, self._width)
