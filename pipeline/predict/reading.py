"""From a clip's samples and words to what the backbones of a run read."""

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
    """What a model reads of one clip: a waveform or token ids of each modality, empty where it lacks one.

    speaker: by its name in the training rows.
    """

    inputs: Mapping[str, NDArray[Any]]
    speaker: str | None = None

    def __len__(self) -> int:
        """Samples, or tokens where there are none: items of about as many make good batches."""
        return max(len(values) for values in self.inputs.values())


class Reader:
    """Makes the items that `encoders`, by modality, read; several threads may share it."""

    def __init__(self, encoders: Mapping[str, Backbone]) -> None:
        self.encoders = encoders
        by_modality = {encoder.modality: encoder for encoder in encoders.values()}
        self.audio, self.text = by_modality.get("audio"), by_modality.get("text")
        self._tokenizing = Lock()  # tokenizers bear one thread at a time

    @property
    def channels(self) -> int:
        """Of the audio that is read."""
        return 1 if self.audio is None else self.audio.channels

    def item(self, sound: Sound | None, text: str | None, speaker: str | None) -> ClipInputs:
        """The item of a clip; a sound or text that no encoder reads is left aside.

        Raises BadAudio for a sound too short for a frame, ValueError for a text that is not to be encoded and
        for a clip of which nothing is left.
        """
        inputs = {
            name: self._tokens(encoder, text) if encoder.modality == "text" else self._samples(encoder, sound)
            for name, encoder in self.encoders.items()
        }
        if not any(len(values) for values in inputs.values()):
            reads = " or ".join(sorted(encoder.modality for encoder in self.encoders.values()))
            raise ValueError(f"the run reads {reads}, and the clip has none")
        return ClipInputs(inputs, speaker)

    def check_text(self, text: str | None) -> None:
        """Raise ValueError for a text, or for one that is empty, where the run reads none."""
        if text is not None and self.text is None:
            raise ValueError("a text was given, and the run reads audio alone; leave it out")
        if text is not None and not text.strip():
            raise ValueError(f"text is {text!r}; give words, or leave it out")

    def segment_s(self, asked: float | None) -> float:
        """Seconds of a segment: as asked for, or SEGMENT_S, or the clip that is all the backbone hears.

        ValueError for a segment longer than that clip, whose end the backbone would leave aside.
        """
        clip_length: int | None = getattr(self.audio, "clip_length", None)  # samples; some kinds have it
        if self.audio is None or self.audio.sample_rate is None or clip_length is None:
            return SEGMENT_S if asked is None else asked
        clip_s = clip_length / self.audio.sample_rate
        if asked is None:
            return min(SEGMENT_S, clip_s)
        if asked > clip_s + 0.5 / self.audio.sample_rate:  # half a sample: clip_s is rounded to whole ones
            raise ValueError(
                f"segment_s is {asked:g}, and of a segment the run's backbone hears the first {clip_s:g} s "
                f"alone (clip_s in its config); give {clip_s:g} at most, or leave segment_s out"
            )
        return asked

    def check_length(self, num_samples: int, sample_rate: int) -> None:
        """Raise BadAudio where so many samples are too few for a frame."""
        assert self.audio is not None
        assert self.audio.sample_rate is not None
        length = resampled_length(num_samples, sample_rate, self.audio.sample_rate)
        if self.audio.num_frames(length) < 1:
            raise BadAudio(
                "too_short",
                f"{num_samples / sample_rate:.3f} s, {length} samples at {self.audio.sample_rate} Hz: less "
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
    """The function of every item, in order, up to `count` items ahead of who asks."""
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
