"""The built-in demo corpus: synthetic speech in four languages, four emotions and six speakers.

A stand-in for a real corpus, if none can be downloaded: espeak-ng speaks our own sentences. Emotion is in the
prosody (rate, pitch, pitch range, loudness, vocal effort) and in the words, and neither alone determines it:
speakers differ from each other, every utterance deviates from its emotion's mean, and noise is added. No
sentence is said twice, so none can be remembered from training; its words recur.
"""

import io
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import soundfile
from filelock import FileLock
from pydantic import Field

from stillwave.pipeline.audio.decode import resample
from stillwave.pipeline.audio.files import write_if_changed
from stillwave.pipeline.corpora.base import CorpusBase, Imported
from stillwave.pipeline.corpora.demo_text import EMOTIONS, LANGUAGES, OPENINGS, TOPICS
from stillwave.pipeline.corpora.espeak import Utterance, synthesize
from stillwave.pipeline.corpora.quarantine import csv_bytes
from stillwave.pipeline.corpora.table import read_table


class Demo(CorpusBase):
    """The built-in synthetic corpus; made under `root` if it does not exist.

    seed: for who says what, and how.
    """

    kind: Literal["demo"]
    root: str | None = "data/corpora/demo"
    seed: int = Field(0, ge=0)

    def read(self, root: Path) -> Imported:
        """The demo corpus below `root`, made first if it is missing."""
        make_demo(root, self.seed)
        return read_table(root / "metadata.csv", root, {name: name for name in _COLUMNS})


VERSION = 2  # increase it if a change alters the audio: a corpus of another version is made again
SAMPLE_RATE = 16_000  # Hz
PER_CELL = 5  # utterances per language, emotion and speaker
_LEVEL_DB = -31  # for a neutral voice; leaves headroom for the loudest speaker's anger
BORROWED = 0.25  # share of the emotional utterances whose words are neutral

_COLUMNS = ("id", "path", "emotion", "speaker", "gender", "language", "text")


@dataclass(frozen=True)
class Speaker:
    """A voice of espeak-ng, and how it differs from that voice on average."""

    name: str
    gender: str
    variant: str
    size: float  # factor on all frequencies, as for a shorter vocal tract
    pitch: int  # espeak units, added
    rate: float  # factor
    level_db: float


SPEAKERS = (
    Speaker("anna", "female", "f1", 1.04, 4, 1.00, 0.0),
    Speaker("bela", "female", "f3", 0.97, -6, 1.08, -3.0),
    Speaker("carl", "male", "m1", 1.05, 2, 0.93, 1.5),
    Speaker("dora", "female", "f4", 1.10, 0, 0.96, 2.0),
    Speaker("emil", "male", "m3", 0.95, 8, 1.05, -1.5),
    Speaker("finn", "male", "m7", 1.00, -4, 1.00, 3.0),
)


@dataclass(frozen=True)
class Prosody:
    """An emotion's average prosody, relative to the speaker."""

    rate: float  # factor
    pitch: float  # espeak units, added
    range: float  # espeak units
    level_db: float
    effort: float  # weight of a first difference that tilts the spectrum: above 0 brighter, below 0 duller


PROSODY = {
    "neutral": Prosody(1.00, 0, 42, 0.0, 0.00),
    "happy": Prosody(1.08, 12, 64, 1.5, 0.15),
    "sad": Prosody(0.86, -8, 26, -3.5, -0.30),
    "angry": Prosody(1.12, 2, 50, 4.0, 0.45),
}
# Standard deviations of an utterance around that mean.
_SPREAD = Prosody(0.05, 4, 9, 1.5, 0.09)


@dataclass(frozen=True)
class DemoClip:
    """One utterance of the corpus, before it is spoken."""

    id: str
    emotion: str
    speaker: Speaker
    language: str
    text: str
    seed: tuple[int, ...]


def make_demo(root: Path, seed: int = 0) -> None:
    """Write the corpus below `root`: wav/<language>/<id>.wav, 16-bit at 16 kHz, and metadata.csv.

    Does nothing if it is complete; completes a corpus whose making was killed. The same seed gives the
    same bytes. Raises ValueError if `root` holds something else.
    """
    root.parent.mkdir(parents=True, exist_ok=True)
    # Two runs that start together would otherwise both make it; the lock is next to the tracked folder.
    with FileLock(root.with_name(f".{root.name}.lock")):
        recipe, metadata = root / "demo.json", root / "metadata.csv"
        wanted = json.dumps({"version": VERSION, "seed": seed}).encode() + b"\n"
        if metadata.exists():
            if not recipe.exists():
                raise ValueError(
                    f"{root}: holds another corpus; give the demo corpus its own folder (`root:`)"
                )
            if recipe.read_bytes() == wanted:
                return
            metadata.unlink()
        write_if_changed(recipe, wanted)
        clips = plan(seed)
        _write_clips(root, clips)
        rows = [
            (c.id, _path(c), c.emotion, c.speaker.name, c.speaker.gender, c.language, c.text) for c in clips
        ]
        write_if_changed(metadata, csv_bytes(_COLUMNS, rows))


def _write_clips(root: Path, clips: list[DemoClip]) -> None:
    for leftover in root.glob("wav/*/.*.wav.*"):  # half-written by a run that was killed
        leftover.unlink()
    spoken, rate = synthesize([_utterance(clip) for clip in clips])

    def write(clip: DemoClip, samples: bytes) -> None:
        buffer = io.BytesIO()
        soundfile.write(buffer, _record(clip, samples, rate), SAMPLE_RATE, "PCM_16", format="WAV")
        write_if_changed(root / _path(clip), buffer.getvalue())

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(write, clips, spoken))


def plan(seed: int) -> list[DemoClip]:
    """Who says what: an opening meets a topic at most once, so no two speakers share a sentence."""
    clips, said = [], set[str]()
    for language_index, language in enumerate(LANGUAGES):
        for emotion_index, emotion in enumerate(EMOTIONS):
            rng = np.random.default_rng([seed, language_index, emotion_index])
            count = len(SPEAKERS) * PER_CELL
            borrowed = round(BORROWED * count) if emotion != "neutral" else 0
            own = _sentences(language, emotion, count - borrowed, rng, said)
            texts = own + _sentences(language, "neutral", borrowed, rng, said)
            for number, text_index in enumerate(rng.permutation(count)):
                speaker = SPEAKERS[number // PER_CELL]
                name = f"{language}_{speaker.name}_{emotion}_{number % PER_CELL}"
                clip_seed = (seed, language_index, emotion_index, number)
                clips.append(DemoClip(name, emotion, speaker, language, texts[text_index], clip_seed))
    return clips


def _sentences(
    language: str, emotion: str, count: int, rng: np.random.Generator, said: set[str]
) -> list[str]:
    """`count` random ones that are not in `said`, to which they are added."""
    openings, topics = OPENINGS[language][emotion], TOPICS[language]
    order = rng.permutation(len(openings) * len(topics))
    sentences = [f"{openings[index // len(topics)]} {topics[index % len(topics)]}." for index in order]
    picked = [sentence for sentence in sentences if sentence not in said][:count]
    said.update(picked)
    return picked


def _utterance(clip: DemoClip) -> Utterance:
    """The settings for espeak-ng: the emotion's prosody around the speaker's own, with random deviations."""
    rng = np.random.default_rng([*clip.seed, 0])
    mean, speaker = PROSODY[clip.emotion], clip.speaker
    rate = 165 * mean.rate * speaker.rate * np.exp(_SPREAD.rate * rng.standard_normal())
    pitch = 45 + mean.pitch + speaker.pitch + _SPREAD.pitch * rng.standard_normal()
    pitch_range = mean.range + _SPREAD.range * rng.standard_normal()
    return Utterance(
        clip.text,
        f"{clip.language}+{speaker.variant}",
        round(float(np.clip(rate, 100, 260))),
        round(float(np.clip(pitch, 0, 99))),
        round(float(np.clip(pitch_range, 0, 99))),
    )


def _record(clip: DemoClip, spoken: bytes, rate: int) -> npt.NDArray[np.float32]:
    """The clip as a microphone would record it, (samples,) at SAMPLE_RATE: tilt, level, margins and noise."""
    rng = np.random.default_rng([*clip.seed, 1])
    mean, speaker = PROSODY[clip.emotion], clip.speaker
    raw = np.frombuffer(spoken, "<i2").astype(np.float32) / np.float32(32768)
    voice = resample(raw, round(rate * speaker.size), SAMPLE_RATE).astype(np.float64)
    effort = float(np.clip(mean.effort + _SPREAD.effort * rng.standard_normal(), -0.6, 0.6))
    voice = voice - effort * np.concatenate([voice[:1], voice[:-1]])
    level_db = _LEVEL_DB + mean.level_db + speaker.level_db + _SPREAD.level_db * rng.standard_normal()
    voice = voice * (10 ** (level_db / 20) / _rms(voice))

    before, after = (rng.uniform(0.05, 0.25, size=2) * SAMPLE_RATE).astype(int)
    voice = np.pad(voice, (before, after))
    noise = rng.standard_normal(len(voice))
    # Half white, half its running mean: a hiss on a rumble.
    noise = noise + 2 * np.convolve(noise, np.full(16, 1 / 16), mode="same")
    snr_db = rng.uniform(8, 28)
    noise *= 10 ** ((level_db - snr_db) / 20) / _rms(noise)
    recording: npt.NDArray[np.float32] = np.clip(voice + noise, -1, 1).astype(np.float32)
    return recording


def _rms(signal: npt.NDArray[np.floating]) -> float:
    return float(np.sqrt(np.mean(np.square(signal, dtype=np.float64)))) or 1.0


def _path(clip: DemoClip) -> str:
    return f"wav/{clip.language}/{clip.id}.wav"
