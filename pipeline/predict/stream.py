"""Audio in segments: where they lie in a recording, and in one that is still being made."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from stillwave.pipeline.audio.decode import BadAudio, Waveform
from stillwave.pipeline.predict.clips import Sound, sound_of
from stillwave.pipeline.predict.results import Segment

Span = tuple[int, int]  # first sample, and the one behind the last


def windows(num_samples: int, segment: int, hop: int) -> list[Span]:
    """The segments of a recording: `segment` samples each, every `hop` samples.

    What is left at the end has a segment of full length too, which ends where the recording does. Whatever is
    no longer than a segment is one.
    """
    if num_samples <= segment:
        return [(0, num_samples)]
    starts = list(range(0, num_samples - segment + 1, hop))
    if starts[-1] + segment < num_samples:
        starts.append(num_samples - segment)
    return [(start, start + segment) for start in starts]


def in_samples(segment_s: float, hop_s: float, sample_rate: int) -> tuple[int, int]:
    """Segment and hop in samples. ValueError for a length that is none, and for gaps between segments."""
    if not 0 < hop_s <= segment_s < float("inf"):
        raise ValueError(
            f"segment_s {segment_s:g} and hop_s {hop_s:g}: a segment has a length above 0, and a hop, at "
            "least 0, is no longer, or what lies between segments is never heard"
        )
    return max(1, round(segment_s * sample_rate)), max(1, round(hop_s * sample_rate))


class Stream:
    """Predictions of a recording that is still being made; `Predictor.stream` makes one.

    The samples of a segment are kept as they came, and resampled as one piece when it is complete: so chunks
    leave no borders, and the answers are those that the whole recording would get.
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
        self._chunks: list[Waveform] = []  # what may still be needed, the last sample being the last heard
        # In samples: what was heard, where the next segment starts, and where the last one ended.
        self._heard = self._next = self._covered = 0
        self._waiting: list[Span] = []  # complete, not answered yet
        self._answered: list[Segment] = []  # not returned yet: a segment behind them failed

    def push(self, chunk: Any) -> list[Segment]:
        """Take further samples, (samples,) or (samples, channels) floats; returns the segments now complete.

        A chunk may be of any length, 20 ms of a microphone or a minute. Raises ValueError for samples that
        are no floats, or not finite, and leaves the stream as it was. A segment that cannot be answered
        raises too, and is left out: those around it come with the next chunk.
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
        """The end of the recording: what the last complete segment has not heard, as `windows` says.

        Too little for a frame of the model is no segment. The next chunk begins a new recording. Where this
        raises, as `push` does, call it again for the segments that are left.
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
        """What was answered before, and what waits; a segment that fails raises, and waits no more."""
        if self._waiting:
            kept: Waveform = np.concatenate(self._chunks)
            first = self._heard - len(kept)
            try:
                self._take(kept, first)
            finally:
                # Kept: all that waits, what comes next, and the last segment, which ends with the recording.
                starts = [start for start, _ in self._waiting]
                drop = min(self._next, self._heard - self.segment, *starts) - first
                self._chunks = [kept[max(0, drop) :].copy()]
        found, self._answered = self._answered, []
        return found

    def _take(self, kept: Waveform, first: int) -> None:
        """Answer what waits from the samples since `first`: together, or where one fails each by itself."""
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
