"""A generated corpus, for benchmarks without a real one: lengths as in speech, meaningless sound."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import soundfile

from stillwave.pipeline.config.corpus import Holdout
from stillwave.pipeline.corpora.manifest import read_manifest
from stillwave.pipeline.corpora.prepare import prepare
from stillwave.pipeline.corpora.table import Table

RATE = 16_000
SHORTEST_S, LONGEST_S = 2.0, 15.0
WORDS = 12  # per transcript


def synthetic(folder: Path, files: int, seed: int = 0) -> pd.DataFrame:
    """The manifest of `files` clips of 2 to 15 s, most of them short (mean 5.2 s), all different.

    Pieces of one minute of pitched noise whose loudness changes like that of syllables. Four emotions, ten
    speakers, two of them for testing, transcripts of random words. Also `folder`/manifest.parquet.
    """
    rng = np.random.default_rng(seed)
    lengths = (RATE * (SHORTEST_S + (LONGEST_S - SHORTEST_S) * rng.beta(1.3, 4.0, files))).astype(int)
    recording = sound(60.0, RATE, rng)
    starts = rng.integers(0, len(recording) - lengths)
    words = rng.integers(0, 5000, (files, WORDS))
    (folder / "wav").mkdir(parents=True)

    def write(i: int) -> str:
        clip = recording[starts[i] : starts[i] + lengths[i]]
        soundfile.write(folder / "wav" / f"{i:05d}.wav", clip, RATE)
        text = " ".join(f"word{number}" for number in words[i])
        return f"wav/{i:05d}.wav,e{i % 4},s{i % 10},{text}"

    with ThreadPoolExecutor() as pool:
        lines = ["path,emotion,speaker,text", *pool.map(write, range(files))]
    (folder / "table.csv").write_text("\n".join([*lines, ""]))
    columns = {name: name for name in ("path", "emotion", "speaker", "text")}
    config = Table(kind="table", table="table.csv", columns=columns, split=Holdout(kind="holdout"))
    prepare(config, folder, folder / "manifest.parquet")
    return read_manifest(folder / "manifest.parquet")


def sound(seconds: float, rate: int, rng: np.random.Generator) -> np.ndarray:
    """Samples in [-1, 1]: harmonics of a wandering pitch and noise, four syllables a second."""
    time = np.arange(int(seconds * rate)) / rate
    pitch = 120 + 40 * np.sin(2 * np.pi * 0.3 * time) + 15 * np.sin(2 * np.pi * 1.7 * time)
    phase = 2 * np.pi * np.cumsum(pitch) / rate
    voice = sum(np.sin(k * phase) / k for k in range(1, 12))
    noise = rng.standard_normal(len(time))
    loudness = 0.1 + 0.9 * np.sin(2 * np.pi * 2 * time) ** 2
    return 0.15 * loudness * (voice + 0.3 * noise)
