"""From a clip's samples and text to the inputs of a run's backbones."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from threading import Lock
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from stillwave.pipeline.audio.decode import BadAudio, resampled_length
from stillwave.pipeline.backbones import Backbone
from stillwave.pipeline.predict.clips import Sound

SEGMENT_S = 30.0

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class ClipInputs:
    """A model's inputs from one clip: a waveform or token ids for each modality, empty if it lacks one.

    speaker: name in the training rows.
    """

    inputs: Mapping[str, NDArray[Any]]
    speaker: str | None = None

    def __len__(self) -> int:
        """Samples, or else tokens: items with similar numbers make good batches."""
        return max(len(values) for values in self.inputs.values())


class Reader:
    """Makes the items that `encoders`, by modality, read; several threads may share it."""

    def __init__(self, encoders: Mapping[str, Backbone]) -> None:
        self.encoders = encoders
        self.audios = [encoder for encoder in encoders.values() if encoder.modality == "audio"]
        self.audio = self.audios[0] if self.audios else None
        self.text = next((encoder for encoder in encoders.values() if encoder.modality == "text"), None)
        if len({encoder.channels for encoder in self.audios}) > 1:
            raise ValueError(
                "the run's backbones read audio in mono and in stereo; new audio can only be read as one of "
                "them: train with backbones of the same `channels`"
            )
        self._tokenizing = Lock()  # tokenizers are not thread-safe

    @property
    def channels(self) -> int:
        """Channels of the audio."""
        return 1 if self.audio is None else self.audio.channels

    def item(self, sound: Sound | None, text: str | None, speaker: str | None) -> ClipInputs:
        """The item of a clip; audio or text that no encoder reads is ignored.

        Raises BadAudio for audio too short for a frame, ValueError for a text that the config excludes and
        for a clip without usable inputs.
        """
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
        if text is not None and self.text is None:
            raise ValueError("a text was given, but the run reads only audio; leave it out")
        if text is not None and not text.strip():
            raise ValueError(f"text is {text!r}; give words, or leave it out")

    def segment_s(self, asked: float | None) -> float:
        """Seconds per segment: as requested, or SEGMENT_S, limited by the backbone's clip.

        ValueError for a segment longer than that clip, whose end the backbone would ignore.
        """
        clips = list[tuple[float, float]]()  # s, and half a sample: clip_s is rounded to whole ones
        for encoder in self.audios:
            clip_length: int | None = getattr(encoder, "clip_length", None)  # only some kinds have it
            if clip_length is not None and encoder.sample_rate is not None:
                clips.append((clip_length / encoder.sample_rate, 0.5 / encoder.sample_rate))
        if not clips:
            return SEGMENT_S if asked is None else asked
        clip_s, rounding = min(clips)
        if asked is None:
            return min(SEGMENT_S, clip_s)
        if asked > clip_s + rounding:
            raise ValueError(
                f"segment_s is {asked:g}, but the run's backbone uses only the first {clip_s:g} s of a "
                f"segment (clip_s in its config); give at most {clip_s:g}, or leave segment_s out"
            )
        return asked

    def check_length(self, num_samples: int, sample_rate: int) -> None:
        """Raise BadAudio if so many samples are too few for a frame."""
        for encoder in self.audios:
            assert encoder.sample_rate is not None
            length = resampled_length(num_samples, sample_rate, encoder.sample_rate)
            if encoder.num_frames(length) < 1:
                raise BadAudio(
                    "too_short",
                    f"{num_samples / sample_rate:.3f} s, {length} samples at {encoder.sample_rate} Hz: less "
                    "than one frame of the model",
                )

    def _samples(self, encoder: Backbone, sound: Sound | None) -> NDArray[np.float32]:
        if sound is None:
            return np.empty((0, 2) if encoder.channels == 2 else 0, dtype=np.float32)
        self.check_length(len(sound.waveform), sound.sample_rate)
        assert encoder.sample_rate is not None
        return sound.at(encoder.sample_rate)

    def _tokens(self, encoder: Backbone, text: str | None) -> NDArray[np.int64]:
        with self._tokenizing:
            return np.array([] if text is None else encoder.tokenize(text), dtype=np.int64)


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
