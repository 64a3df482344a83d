"""The inputs of prediction: clips from files, folders and manifests, and their samples."""

import logging
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from stillwave.pipeline.audio.decode import (
    BadAudio,
    Waveform,
    check_peak,
    joined_notes,
    resample,
    with_channels,
)
from stillwave.pipeline.audio.files import is_url
from stillwave.pipeline.audio.levels import Levels
from stillwave.pipeline.audio.segments import Span, read_audio, span_of
from stillwave.pipeline.corpora.base import audio_files

log = logging.getLogger(__name__)

MANIFEST_SUFFIX = ".parquet"
TABLES = (".csv", ".tsv", ".json", ".jsonl", ".ndjson", ".xlsx")
ADVICE = "give an audio file, a folder of them or a manifest, or --text alone"
MOST_CHANNELS = 8  # of samples in memory: with more, the axes are probably swapped


class Sound(NamedTuple):
    """Samples (samples,) or (samples, 2), float32 in [-1, 1], and their rate in Hz.

    note: what is unusual about them, as in a manifest.
    """

    waveform: Waveform
    sample_rate: int
    note: str | None = None

    @property
    def duration_s(self) -> float:
        return len(self.waveform) / self.sample_rate

    def at(self, sample_rate: int) -> Waveform:
        """The samples at another rate."""
        return resample(self.waveform, self.sample_rate, sample_rate)


@dataclass(frozen=True)
class Clip:
    """One utterance: audio (a file's path or URL, or samples), a text, or both.

    name: name of its result. speaker: name in the training rows; others count as unknown speakers. span: the
    part of the audio; None is all of it.
    """

    name: str
    audio: str | Sound | None = None
    text: str | None = None
    speaker: str | None = None
    span: Span | None = None


def clips_of(
    sources: Sequence[str], *, text: str | None = None, speaker: str | None = None
) -> Iterator[Clip]:
    """The clips that `sources` name, in their order: audio files and URLs, folders of them, and manifests.

    text, speaker: apply to all of them, instead of a manifest's own; a text is for one file, or the only
    input. Raises ValueError at once for a folder without audio, ManifestError for a manifest that cannot be
    used. A missing file still gives a clip, and an error when it is read.
    """
    if text is not None and len(sources) > 1:
        raise ValueError(f"a text belongs to one file, but there are {len(sources)}; name one of them")
    if text is not None and not text.strip():
        raise ValueError(f"text is {text!r}; give words, or leave it out")
    if not sources:
        if text is None:
            raise ValueError(f"nothing to predict: {ADVICE}")
        return iter([Clip("text", None, text, speaker)])
    clips = [_clips(source, text, speaker) for source in sources]
    for folder in (source for source in sources if _is_folder(source)):
        ignored: Counter[str] = Counter()
        count = sum(1 for _ in audio_files(Path(folder), ignored))
        if ignored:
            others = ", ".join(f"{suffix} {number}" for suffix, number in sorted(ignored.items()))
            log.warning("%s: %d audio files; not audio by their names, ignored: %s", folder, count, others)
    return chain.from_iterable(clips)


def _is_folder(source: str) -> bool:
    return not is_url(source) and Path(source).is_dir()


def _clips(source: str, text: str | None, speaker: str | None) -> Iterator[Clip]:
    is_folder = _is_folder(source)
    if text is not None and (is_folder or source.endswith(MANIFEST_SUFFIX)):
        raise ValueError(f"a text belongs to one file, but {source} may hold many; give texts in a manifest")
    if source.lower().endswith(TABLES):
        raise ValueError(
            f"{source}: neither audio nor a manifest, which is the {MANIFEST_SUFFIX} that `stillwave "
            "prepare` writes"
        )
    if is_folder:
        return _folder(Path(source), speaker)
    if source.endswith(MANIFEST_SUFFIX):
        return _manifest(source, speaker)
    return iter([Clip(source, source, text, speaker)])


def _folder(folder: Path, speaker: str | None) -> Iterator[Clip]:
    next(audio_files(folder, Counter()))  # fail now if there is none, before any prediction
    return (Clip(str(path), str(path), None, speaker) for path in audio_files(folder, Counter()))


def _manifest(path: str, speaker: str | None) -> Iterator[Clip]:
    from stillwave.pipeline.corpora.manifest import SPAN, read_manifest  # here: pandas

    table = read_manifest(path)
    columns: list[Any] = [
        table[name].tolist() if name in table else [None] * len(table) for name in ("text", "speaker")
    ]
    spans = [span_of(row) for row in table.reindex(columns=[*SPAN]).to_dict("records")]
    rows = zip(table["id"].tolist(), table["path"].tolist(), *columns, spans, strict=True)
    return (
        Clip(id_, audio or None, words if words and words.strip() else None, speaker or who, span)
        for id_, audio, words, who, span in rows
    )


def check_output(out: Path, read: Iterable[Any]) -> None:
    """Raise ValueError if `out` is one of the files `read`, under any name: writing would destroy it."""
    if not out.exists():
        return
    for one in read:
        if isinstance(one, str | Path) and not is_url(one) and Path(one).exists() and out.samefile(one):
            raise ValueError(f"--out {out} would overwrite {one}, which is an input; name another file")


def files_of(sources: Sequence[str]) -> Iterator[Any]:
    """The files that predicting `sources` reads: the sources, and the audio of each clip."""
    yield from sources
    for source in sources:
        yield from (clip.audio for clip in _clips(source, None, None))


def read_sound(audio: str | Sound, channels: int, span: Span | None = None) -> Sound:
    """The samples of a clip with `channels` channels: see `stillwave.pipeline.audio.decode.decode`.

    Raises BadAudio.
    """
    if isinstance(audio, Sound):
        check_peak(_peak(audio.waveform))
        if span is None:
            return audio
        first, last = span.samples(audio.sample_rate, len(audio.waveform))
        return audio._replace(waveform=audio.waveform[first:last])
    read, _ = read_audio(audio, span, channels=channels)
    return Sound(read.waveform, read.sample_rate, joined_notes(read.notes))


def warn(clip: Clip, sound: Sound) -> None:
    """Log what is unusual about the audio of a clip."""
    if sound.note is not None:
        log.warning(
            "%s: the %s %s", clip.name, "audio" if isinstance(clip.audio, Sound) else "file", sound.note
        )


def check_rate(sample_rate: float | None) -> None:
    """Raise ValueError unless it is a whole number of Hz above 0."""
    if (
        sample_rate is None
        or not math.isfinite(sample_rate)
        or not sample_rate > 0
        or sample_rate != int(sample_rate)
    ):
        raise ValueError(
            f"sample_rate is {sample_rate}; samples need the rate at which they were recorded, in Hz, for "
            "example 16000"
        )


def sound_of(waveform: Any, sample_rate: int | None, channels: int = 1) -> Sound:
    """Checked samples from the caller's own array or tensor, (samples,) or (samples, any channels).

    Raises BadAudio for no samples, for NaN or infinite ones, and for those far beyond full scale, ValueError
    for another shape or type, and for a rate that is missing or not positive.
    """
    check_rate(sample_rate)
    assert sample_rate is not None
    samples = np.asarray(waveform)
    if samples.ndim not in (1, 2):
        raise ValueError(f"samples of shape {samples.shape}; give (samples,) or (samples, channels)")
    if samples.ndim == 2 and samples.shape[1] > MOST_CHANNELS:
        raise ValueError(
            f"samples of shape {samples.shape} have {samples.shape[1]} channels, but {MOST_CHANNELS} are the "
            "most; give (samples, channels): transpose an array with channels first"
        )
    if samples.dtype.kind != "f":
        raise ValueError(
            f"samples of type {samples.dtype}; give floats in [-1, 1]: 16-bit integers divided by 32768"
        )
    if not samples.size:
        raise BadAudio("zero_length", "no samples")
    if not np.isfinite(samples).all():
        bad = int(np.count_nonzero(~np.isfinite(samples)))
        raise BadAudio("non_finite", f"{bad} of {samples.size} samples are NaN or infinite")
    check_peak(_peak(samples))
    values = np.ascontiguousarray(samples, dtype=np.float32).reshape(len(samples), -1)
    waveform = np.ascontiguousarray(with_channels(values, channels))
    levels = Levels()
    levels.add(values, waveform)
    return Sound(waveform, int(sample_rate), joined_notes(levels.notes()))


def _peak(samples: NDArray[np.floating[Any]]) -> float:
    return float(max(samples.max(initial=0), -samples.min(initial=0)))  # no copy, unlike abs
