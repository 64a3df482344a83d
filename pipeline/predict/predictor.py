"""From new audio and text to predictions: a trained run, kept loaded."""

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stillwave.cache.batches import length_bucketed
from stillwave.pipeline.extract.memory import flat_memory
from stillwave.pipeline.predict.clips import Clip, Sound, check_rate, read_sound, sound_of, warn
from stillwave.pipeline.predict.enrolled import find_speaker
from stillwave.pipeline.predict.ensemble import Ensemble
from stillwave.pipeline.predict.reading import ClipInputs, Reader, read_ahead
from stillwave.pipeline.predict.results import Failure, Prediction, Segment, fields_of
from stillwave.pipeline.predict.stream import Span, Stream, in_samples, windows
from stillwave.pipeline.runs.calibrate import Values, mean_of
from stillwave.pipeline.runs.run import Run

BATCH_SIZE = 16
WINDOW_CLIPS, WINDOW_S = 64, 600.0  # the most clips, and seconds, predicted together; as many are read ahead
READERS = 2


@dataclass(frozen=True)
class _Read:
    """A clip as it was read. item: None for a long one, whose audio is read again when its turn comes, so
    that only one such recording is kept.
    """

    clip: Clip
    duration_s: float | None
    item: ClipInputs | None
    note: str | None = None


class Predictor:
    """A run's predictions for clips: the mean of all its models, as in `evaluate --ensemble`, or one model's.

    Audio longer than segment_s (seconds; 30, or the backbone's clip_s if less) is cut into segments, one
    every hop_s, half a segment by default; the prediction for the clip is then the mean of theirs. A text
    belongs to every segment. Audio is predicted unchanged: a recipe's `views.test: average` is for stores
    only. speaker: the speaker, by name in the training rows of a personalised run, or as enrolled; None for
    an
        unknown one.
    """

    def __init__(
        self,
        models: Ensemble,
        speaker: str | None = None,
        segment_s: float | None = None,
        hop_s: float | None = None,
    ) -> None:
        """Use `load` for a run's folder. ValueError for an unknown speaker or invalid lengths."""
        self.models, self.reader, self.speaker = models, Reader(models.encoders), speaker
        self.segment_s = self.reader.segment_s(segment_s)
        self.hop_s = self.segment_s / 2 if hop_s is None else hop_s
        in_samples(self.segment_s, self.hop_s, 1)
        self._check_speaker(speaker)

    @classmethod
    def load(
        cls,
        run: str | Path | Run,
        fold: int | None = None,
        backbones: str | Path | None = None,
        device: str = "auto",
        speaker: str | Path | None = None,
        segment_s: float | None = None,
        hop_s: float | None = None,
    ) -> "Predictor":
        """Load a run once. Raises ValueError explaining what is wrong with the run or an option.

        fold: the one model to use; None for all. backbones: a folder of backbone configs, for a run that does
        not record how its frames were made. speaker: may also be an enrolled one, by name or by the file that
        `enroll` wrote; then every clip counts as that speaker's.
        """
        models = Ensemble(run, fold, backbones, device)
        name = None if speaker is None else str(speaker)
        enrolled = None if name is None or name in models.speakers else find_speaker(models.run, name)
        if enrolled is not None:
            models.enroll(enrolled)
            name = enrolled.name
        return cls(models, name, segment_s, hop_s)

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes, in the order of the probabilities."""
        return self.models.classes

    def __call__(
        self,
        audio: Any = None,
        sample_rate: int | None = None,
        *,
        text: str | None = None,
        speaker: str | None = None,
    ) -> Prediction:
        """The prediction for one clip.

        audio: a path or URL; or floats (samples,) or (samples, channels) in [-1, 1], an array or a tensor,
                recorded at sample_rate Hz. text: for runs that read it. If the run reads both, one of the two
                may be left out. speaker: instead of the Predictor's.
            Raises BadAudio for audio that cannot be used, ValueError for all other errors.
        """
        self.reader.check_text(text)
        self._check_speaker(speaker)
        if audio is None or isinstance(audio, str | Path):
            if sample_rate is not None:
                raise ValueError(f"sample_rate is {sample_rate}; leave it out, it applies only to samples")
            name = "text" if audio is None else str(audio)
            clip = Clip(name, None if audio is None else name, text, speaker)
        else:
            sound = sound_of(audio, sample_rate, self.reader.channels)
            clip = Clip("samples", sound, text, speaker)
        read = self._read(clip)
        return self._answer(read, None if read.item is None else self.models([read.item])[0], BATCH_SIZE)

    def predict_many(
        self, clips: Iterable[Clip], batch_size: int = BATCH_SIZE
    ) -> Iterator[Prediction | Failure]:
        """Yield the predictions for clips, in order; the next clips are read at the same time.

        Memory does not grow with their number. A clip that cannot be used is a Failure, and the others are
        still predicted. A text that the run does not read is ignored, and so is a speaker.
        """
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}; it must be at least 1")
        with flat_memory(), ThreadPoolExecutor(READERS, "stillwave-read") as pool:
            window, seconds = list[_Read | Failure](), 0.0
            for read in read_ahead(pool, self._read_or_say, clips, WINDOW_CLIPS):
                window.append(read)
                seconds += 0 if isinstance(read, Failure) else read.duration_s or 0
                if len(window) >= WINDOW_CLIPS or seconds >= WINDOW_S:
                    yield from self._together(window, batch_size)
                    window, seconds = [], 0.0
            yield from self._together(window, batch_size)

    def stream(
        self,
        sample_rate: int,
        segment_s: float | None = None,
        hop_s: float | None = None,
        text: str | None = None,
    ) -> Stream:
        """Predict a live recording at sample_rate Hz, chunk by chunk: see `Stream`.

        segment_s, hop_s: by default the Predictor's; hop_s is half a segment if only segment_s is given.
        """
        self.reader.check_text(text)
        if not self.reader.audio:
            raise ValueError("the run reads only text; there is no audio to stream")
        check_rate(sample_rate)
        if hop_s is None:
            hop_s = self.hop_s if segment_s is None else segment_s / 2
        length_s = self.segment_s if segment_s is None else self.reader.segment_s(segment_s)
        segment, hop = in_samples(length_s, hop_s, sample_rate)
        self.reader.check_length(segment, sample_rate)

        def predict(sound: Sound, spans: Sequence[Span]) -> list[Segment]:
            return self._segments(sound, spans, text, self.speaker, BATCH_SIZE)[0]

        return Stream(predict, sample_rate, segment, hop, self.reader.channels)

    def _check_speaker(self, speaker: str | None) -> None:
        known = self.models.speakers
        if speaker is None or speaker in known:
            return
        if not known:
            raise ValueError(
                f"speaker is {speaker!r}, but the run is not personalised; leave it out, or enrol the speaker"
            )
        raise ValueError(
            f"speaker is {speaker!r}; the run knows {', '.join(known)}. Leave it out for a speaker that the "
            "run does not know, or enrol the speaker first"
        )

    def _read_or_say(self, clip: Clip) -> _Read | Failure:
        try:
            return self._read(clip)
        except ValueError as error:
            return Failure(clip.name, str(error))

    def _read(self, clip: Clip) -> _Read:
        speaker = clip.speaker or self.speaker
        if clip.audio is None or not self.reader.audio:
            return _Read(clip, None, self.reader.item(None, clip.text, speaker))
        sound = read_sound(clip.audio, self.reader.channels, clip.span)
        warn(clip, sound)
        if len(sound.waveform) > in_samples(self.segment_s, self.hop_s, sound.sample_rate)[0]:
            return _Read(clip, sound.duration_s, None, sound.note)
        item = self.reader.item(sound, clip.text, speaker)
        return _Read(clip, sound.duration_s, item, sound.note)

    def _together(self, window: Sequence[_Read | Failure], batch_size: int) -> Iterator[Prediction | Failure]:
        """Predict items together with others of similar length, long clips one by one."""
        items = {
            place: read.item
            for place, read in enumerate(window)
            if isinstance(read, _Read) and read.item is not None
        }
        places, found = list(items), dict[int, Values]()
        lengths = np.array([len(item) for item in items.values()], dtype=np.int64)
        for batch in length_bucketed(lengths, max_rows=batch_size):
            chosen = [places[number] for number in batch]
            found |= zip(chosen, self.models([items[place] for place in chosen]), strict=True)
        for place, read in enumerate(window):
            if isinstance(read, Failure):
                yield read
                continue
            try:
                yield self._answer(read, found.get(place), batch_size)
            except ValueError as error:
                yield Failure(read.clip.name, str(error))

    def _answer(self, read: _Read, values: Values | None, batch_size: int) -> Prediction:
        """values: for its item; None for a long clip, whose segments are predicted here."""
        segments, clip = list[Segment](), read.clip
        start_s = None if clip.span is None else clip.span.start
        if values is None:
            assert clip.audio is not None
            sound = read_sound(clip.audio, self.reader.channels, clip.span)
            spans = windows(len(sound.waveform), *in_samples(self.segment_s, self.hop_s, sound.sample_rate))
            segments, values = self._segments(
                sound, spans, clip.text, clip.speaker or self.speaker, batch_size
            )
        return Prediction(
            clip=clip.name,
            duration_s=read.duration_s,
            start_s=start_s,
            note=read.note,
            segments=tuple(segment.later(start_s or 0.0) for segment in segments),
            **fields_of(values, self.classes),
        )

    def _segments(
        self, sound: Sound, spans: Sequence[Span], text: str | None, speaker: str | None, batch_size: int
    ) -> tuple[list[Segment], Values]:
        """The predictions for parts of a recording, each resampled separately, and their mean."""
        values = list[Values]()
        for first in range(0, len(spans), batch_size):
            cut = [
                Sound(sound.waveform[start:stop], sound.sample_rate)
                for start, stop in spans[first : first + batch_size]
            ]
            values += self.models([self.reader.item(piece, text, speaker) for piece in cut])
        segments = [
            Segment(
                start_s=start / sound.sample_rate,
                end_s=stop / sound.sample_rate,
                **fields_of(one, self.classes),
            )
            for one, (start, stop) in zip(values, spans, strict=True)
        ]
        return segments, mean_of(values)
