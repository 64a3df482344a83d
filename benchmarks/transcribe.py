"""Words that `stillwave transcribe` hears in FSDD's spoken digits, and what an hour of audio costs.

    STILLWAVE_CORPORA=... python benchmarks/transcribe.py [--all] [--model whisper_tiny_en] [--leads 0,0.5,1]

Clips are single English digits of 6 speakers, 8 kHz, cut tightly: hard for a model that was trained on
sentences. Every tenth clip by name; --all takes the 3,000. The manifest's texts are dropped first, and are
what the transcripts are compared with, as single words: in small letters, without punctuation, 7 as seven; a
homophone (for, to) is an error. --leads: seconds of silence in front of a clip, a side each (Whisper only).
Time is of the decoding alone, on as many threads as torch has: a window of 30 s for each clip, however short.
The last side is the clips of each speaker joined to one recording. Ends with one line of JSON.
"""

import argparse
import hashlib
import json
import os
import re
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import soundfile
import torch

from stillwave.pipeline.audio.segments import load_waveform
from stillwave.pipeline.config.base import load_config
from stillwave.pipeline.config.named import find_config
from stillwave.pipeline.corpora import CorpusConfig
from stillwave.pipeline.corpora.manifest import read_manifest
from stillwave.pipeline.corpora.prepare import prepare
from stillwave.pipeline.transcribe.config import TranscriberConfig
from stillwave.pipeline.transcribe.stage import transcribe

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--all", action="store_true", help="all clips, not every tenth")
    parser.add_argument("--model", default="whisper_tiny_en", help="a config in configs/transcribers")
    parser.add_argument("--leads", default="0,0.5,1")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        clips = spoken_digits(Path(folder), 1 if arguments.all else 10)
        figures: dict[str, Any] = {"clips": len(clips), "threads": torch.get_num_threads()}
        print("{clips} clips, {threads} threads".format(**figures), flush=True)
        for lead in arguments.leads.split(","):
            figures[f"lead_{lead}"] = side(arguments.model, [f"lead_s={lead}"], clips, Path(folder))
            print(f"lead_s {lead}: {figures[f'lead_{lead}']}", flush=True)
        figures["joined"] = side(arguments.model, [], joined(clips, Path(folder)), Path(folder))
        print(f"joined to one recording a speaker: {figures['joined']}", flush=True)
    print(json.dumps(figures))


def spoken_digits(folder: Path, every: int) -> pd.DataFrame:
    """The manifest of FSDD without its texts; `word` has what is said."""
    config = load_config(find_config("corpora", "fsdd"), CorpusConfig)
    prepare(config, Path(os.environ["STILLWAVE_CORPORA"], "fsdd"), folder / "manifest.parquet")
    return read_manifest(folder / "manifest.parquet").iloc[::every].drop(columns="text")


def joined(clips: pd.DataFrame, folder: Path) -> pd.DataFrame:
    """The clips of each speaker, 0.3 s apart, as one recording: what an hour costs if windows are full."""
    rows = []
    for speaker, part in clips.groupby("speaker"):
        pause = np.zeros(round(0.3 * 8000), np.float32)
        samples = np.concatenate([x for path in part["path"] for x in (load_waveform(path, 8000), pause)])
        path = folder / f"{speaker}.wav"
        soundfile.write(path, samples, 8000)
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        row = {"path": str(path), "sha256": sha256, "num_samples": len(samples)}
        rows.append(part.iloc[0].to_dict() | row | {"word": " ".join(part["word"])})
    return pd.DataFrame(rows)


def side(model: str, overrides: list[str], clips: pd.DataFrame, folder: Path) -> dict[str, Any]:
    config = load_config(find_config("transcribers", model), TranscriberConfig, overrides)
    result = transcribe(config, clips, folder / "transcribed.parquet", device="cpu")
    found = read_manifest(folder / "transcribed.parquet")
    times = {
        "seconds_per_hour": round(result.seconds_per_hour),
        "seconds_per_recording": round(result.seconds / result.items, 3),
    }
    if found["word"].str.contains(" ").any():
        return times
    right = [said(text) == word for text, word in zip(found["text"], found["word"], strict=True)]
    by_speaker = pd.Series(right).groupby(found["speaker"]).mean().round(3)
    accuracy = {"word_accuracy": round(sum(right) / len(right), 3), "by_speaker": by_speaker.to_dict()}
    return accuracy | times


def said(text: str | None) -> str:
    """A transcript as a word: Seven. and 7 are seven."""
    word = re.sub(r"[^\w ]", "", (text or "").lower()).strip()
    return DIGITS[int(word)] if re.fullmatch("[0-9]", word) else word


if __name__ == "__main__":
    main()
