"""From a clip's samples and text to the inputs of a run's backbones."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from threading import Lock
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from stillwave.pipeline.audio.decode import BadAudio, resampled_length, with_channels
from stillwave.pipeline.backbones import Backbone
from stillwave.pipeline.corpora.spelling import nfc
from stillwave.pipeline.predict.clips import Sound

SEGMENT_S = 30.0

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class ClipInputs:
    """A model's inputs from one clip: a waveform or token ids for each encoder, empty if it has none.

    speaker: name in the training rows.
    """

    inputs: Mapping[str, NDArray[Any]]
    speaker: str | None = None

    def __len__(self) -> int:
        """Samples, or else tokens: items with similar numbers make good batches."""
        return max(len(values) for values in self.inputs.values())


class Reader:
    """Makes the items that `encoders`, by name, read; several threads may share it.

    audio: the encoders of audio. reads_text: whether there is one of text. channels: the most that an encoder
    reads; the audio of a clip must have as many.
    """

    def __init__(self, encoders: Mapping[str, Backbone]) -> None:
        self.encoders = encoders
        self.audio = [encoder for encoder in encoders.values() if encoder.modality == "audio"]
        self.reads_text = len(self.audio) < len(encoders)
        self.channels = max((encoder.channels for encoder in self.audio), default=1)
        self._tokenizing = Lock()  # tokenizers are not thread-safe

    def item(self, sound: Sound | None, text: str | None, speaker: str | None) -> ClipInputs:
        """The item of a clip; audio or text that no encoder reads is ignored.

        An encoder for which the audio is too short gets none, as in training. Raises BadAudio if it is too
        short for all of them, ValueError for a text that a config excludes and for a clip without usable
        inputs.
        """
        if sound is not None and self.audio:
            self.check_length(len(sound.waveform), sound.sample_rate)
        inputs = {
            name: self._tokens(encoder, text) if encoder.modality == "text" else self._samples(encoder, sound)
            for name, encoder in self.encoders.items()
        }
        if not any(len(values) for values in inputs.values()):
            reads = " or ".join(sorted({encoder.modality for encoder in self.encoders.values()}))
            raise ValueError(f"the run reads {reads}, but the clip has none")
        return ClipInputs(inputs, speaker)

    def check_text(self, text: str | None) -> None:
        """Raise ValueError for an empty text, or for any text if the run reads none."""
        if text is not None and not self.reads_text:
            raise ValueError("a text was given, but the run reads only audio; leave it out")
        if text is not None and not text.strip():
            raise ValueError(f"text is {text!r}; give words, or leave it out")

    def segment_s(self, asked: float | None) -> float:
        """Seconds per segment: as requested, or SEGMENT_S, limited by the shortest clip of a backbone.

        ValueError for a segment longer than that clip, whose end the backbone would ignore.
        """
        clips: list[tuple[float, int]] = [
            (clip_length / rate_of(encoder), rate_of(encoder))
            for encoder in self.audio
            if (clip_length := getattr(encoder, "clip_length", None))  # samples; only some kinds have it
        ]
        if not clips:
            return SEGMENT_S if asked is None else asked
        clip_s, rate = min(clips)
        if asked is None:
            return min(SEGMENT_S, clip_s)
        if asked > clip_s + 0.5 / rate:  # half a sample: clip_s is rounded to whole ones
            raise ValueError(
                f"segment_s is {asked:g}, but the run's backbone uses only the first {clip_s:g} s of a "
                f"segment (clip_s in its config); give at most {clip_s:g}, or leave segment_s out"
            )
        return asked

    def check_length(self, num_samples: int, sample_rate: int) -> None:
        """Raise BadAudio if so many samples are too few for a frame of any encoder."""
        if not any(_frames(encoder, num_samples, sample_rate) for encoder in self.audio):
            rate = rate_of(self.audio[0])
            length = resampled_length(num_samples, sample_rate, rate)
            raise BadAudio(
                "too_short",
                f"{num_samples / sample_rate:.3f} s, {length} samples at {rate} Hz: less than one frame of "
                "the model",
            )

    def _samples(self, encoder: Backbone, sound: Sound | None) -> NDArray[np.float32]:
        if sound is None or not _frames(encoder, len(sound.waveform), sound.sample_rate):
            return np.empty((0, 2) if encoder.channels == 2 else 0, dtype=np.float32)
        waveform = sound.waveform
        if encoder.channels < self.channels:
            waveform = with_channels(waveform, encoder.channels)
        return Sound(waveform, sound.sample_rate).at(rate_of(encoder))

    def _tokens(self, encoder: Backbone, text: str | None) -> NDArray[np.int64]:
        with self._tokenizing:
            return np.array([] if text is None else encoder.tokenize(nfc(text)), dtype=np.int64)


def rate_of(encoder: Backbone) -> int:
    """The sample rate of a backbone of audio, in Hz."""
    assert encoder.sample_rate is not None
    return encoder.sample_rate


def _frames(encoder: Backbone, num_samples: int, sample_rate: int) -> int:
    """Frames of so many samples at this rate."""
    return encoder.num_frames(resampled_length(num_samples, sample_rate, rate_of(encoder)))


def read_ahead(
    pool: ThreadPoolExecutor, function: Callable[[T], R], items: Iterable[T], count: int
) -> Iterator[R]:
    """Apply the function to every item, in order, up to `count` items ahead of the consumer."""
    flying = deque[Future[R]]()
    try:
        for item in items:
            flying.append(pool.submit(function, item))
            if len(flying) > count:
                yield flying.popleft().result()
        while flying:
            yield flying.popleft().result()
    finally:
        for future in flying:
            future.cancel()
