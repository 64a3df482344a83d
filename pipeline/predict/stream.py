"""Audio in segments, of a recording or of one that is still being made."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from stillwave.pipeline.audio.decode import BadAudio, Waveform
from stillwave.pipeline.predict.clips import Sound, sound_of
from stillwave.pipeline.predict.results import Segment

Span = tuple[int, int]  # first sample, and one past the last


def windows(num_samples: int, segment: int, hop: int) -> list[Span]:
    """The segments of a recording: `segment` samples each, every `hop` samples.

    The remainder at the end also gets a segment of full length, which ends at the end of the recording. A
    recording no longer than a segment is one segment.
    """
    if num_samples <= segment:
        return [(0, num_samples)]
    starts = list(range(0, num_samples - segment + 1, hop))
    if starts[-1] + segment < num_samples:
        starts.append(num_samples - segment)
    return [(start, start + segment) for start in starts]


def in_samples(segment_s: float, hop_s: float, sample_rate: int) -> tuple[int, int]:
    """Segment and hop in samples. ValueError for invalid lengths, and for gaps between segments."""
    if not 0 < hop_s <= segment_s < float("inf"):
        raise ValueError(
            f"segment_s {segment_s:g} and hop_s {hop_s:g}: segment_s must be above 0, and hop_s between 0 "
            "and segment_s, so that no audio is skipped"
        )
    return max(1, round(segment_s * sample_rate)), max(1, round(hop_s * sample_rate))


class Stream:
    """Predictions for a live recording; use `Predictor.stream` to make one.

    The samples of a segment are kept unchanged, and resampled as one piece when it is complete: so chunk
    borders leave no trace, and the predictions are those that the whole recording would get.
    """

    def __init__(
        self,
        predict: Callable[[Sound, Sequence[Span]], list[Segment]],
        sample_rate: int,
        segment: int,
        hop: int,
        channels: int = 1,
    ) -> None:
        self._predict = predict
        self.sample_rate, self.segment, self.hop, self.channels = sample_rate, segment, hop, channels
        self._begin()

    def _begin(self) -> None:
        self._chunks: list[Waveform] = []  # what may still be needed, up to the last sample received
        # In samples: received so far, start of the next segment, end of the last one.
        self._heard = self._next = self._covered = 0
        self._waiting: list[Span] = []  # complete, not predicted yet
        self._answered: list[Segment] = []  # not returned yet: a later segment failed

    def push(self, chunk: Any) -> list[Segment]:
        """Add samples, (samples,) or (samples, channels) floats; returns the segments now complete.

        A chunk may have any length, 20 ms from a microphone or a minute. Raises ValueError for samples that
        are not floats, or not finite, and leaves the stream unchanged. A segment that cannot be predicted
        also raises, and is left out: those around it come with the next chunk.
        """
        if len(chunk):
            self._chunks.append(sound_of(chunk, self.sample_rate, self.channels).waveform)
            self._heard += len(self._chunks[-1])
        while self._next + self.segment <= self._heard:
            self._covered = self._next + self.segment
            self._waiting.append((self._next, self._covered))
            self._next += self.hop
        return self._answer()

    def flush(self) -> list[Segment]:
        """End the recording: returns the remainder after the last complete segment, as in `windows`.

        Too little for a frame of the model is no segment. The next chunk starts a new recording. If this
        raises, as `push` does, call it again for the remaining segments.
        """
        if self._heard > self._covered:
            self._covered = self._heard
            self._waiting.append(windows(self._heard, self.segment, self.hop)[-1])
        try:
            found = self._answer()
        except BadAudio as error:
            if error.reason != "too_short":
                raise
            found = self._answer()
        self._begin()
        return found

    def _answer(self) -> list[Segment]:
        """Earlier predictions and those for waiting segments; one that fails raises, and is dropped."""
        if self._waiting:
            kept: Waveform = np.concatenate(self._chunks)
            first = self._heard - len(kept)
            try:
                self._take(kept, first)
            finally:
                # Keep what waits, what comes next, and the last segment, which ends with the recording.
                starts = [start for start, _ in self._waiting]
                drop = min(self._next, self._heard - self.segment, *starts) - first
                self._chunks = [kept[max(0, drop) :].copy()]
        found, self._answered = self._answered, []
        return found

    def _take(self, kept: Waveform, first: int) -> None:
        """Predict waiting segments from the samples since `first`: together, or one by one if any fails."""
        try:
            self._answered += self._segments(kept, first, self._waiting)
            self._waiting = []
        except ValueError:
            while self._waiting:
                self._answered += self._segments(kept, first, [self._waiting.pop(0)])

    def _segments(self, kept: Waveform, first: int, spans: Sequence[Span]) -> list[Segment]:
        inside = [(start - first, stop - first) for start, stop in spans]
        return [
            replace(one, start_s=start / self.sample_rate, end_s=stop / self.sample_rate)
            for one, (start, stop) in zip(
                self._predict(Sound(kept, self.sample_rate), inside), spans, strict=True
            )
        ]
