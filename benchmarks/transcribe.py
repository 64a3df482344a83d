"""Words that `stillwave transcribe` hears in FSDD's spoken digits, and what an hour of audio costs.

    STILLWAVE_CORPORA=... python benchmarks/transcribe.py [--all] [--model whisper_tiny_en] [--leads 0,0.5,1]

Clips are single English digits of 6 speakers, 8 kHz, cut tightly: hard for a model that was trained on
sentences. Every tenth clip by name; --all takes the 3,000. The manifest's texts are dropped first, and are
what the transcripts are compared with, as single words: in small letters, without punctuation, 7 as seven; a
homophone (for, to) is an error. --leads: seconds of silence in front of a clip, a side each (Whisper only).
Time is that of the decoding, with as many threads as torch has. Ends with one line of JSON.
"""

import argparse
import json
import os
import re
import tempfile
from pathlib import Path
from typing import Any

import pandas as pd
import torch

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
    print(json.dumps(figures))


def spoken_digits(folder: Path, every: int) -> pd.DataFrame:
    """The manifest of FSDD without its texts; `word` has what is said."""
    from stillwave.pipeline.config.base import load_config
    from stillwave.pipeline.config.named import find_config
    from stillwave.pipeline.corpora import CorpusConfig
    from stillwave.pipeline.corpora.manifest import read_manifest
    from stillwave.pipeline.corpora.prepare import prepare

    config = load_config(find_config("corpora", "fsdd"), CorpusConfig)
    prepare(config, Path(os.environ["STILLWAVE_CORPORA"], "fsdd"), folder / "manifest.parquet")
    return read_manifest(folder / "manifest.parquet").iloc[::every].drop(columns="text")


def side(model: str, overrides: list[str], clips: pd.DataFrame, folder: Path) -> dict[str, Any]:
    from stillwave.pipeline.config.base import load_config
    from stillwave.pipeline.config.named import find_config
    from stillwave.pipeline.corpora.manifest import read_manifest
    from stillwave.pipeline.transcribe.config import TranscriberConfig
    from stillwave.pipeline.transcribe.stage import transcribe

    config = load_config(find_config("transcribers", model), TranscriberConfig, overrides)
    result = transcribe(config, clips, folder / "transcribed.parquet", device="cpu")
    found = read_manifest(folder / "transcribed.parquet")
    right = [said(text) == word for text, word in zip(found["text"], found["word"], strict=True)]
    by_speaker = pd.Series(right).groupby(found["speaker"]).mean().round(3)
    return {
        "word_accuracy": round(sum(right) / len(right), 3),
        "by_speaker": by_speaker.to_dict(),
        "seconds_per_hour": round(result.seconds_per_hour),
        "seconds_per_clip": round(result.seconds / result.items, 3),
    }


def said(text: str | None) -> str:
    """A transcript as a word: Seven. and 7 are seven."""
    word = re.sub(r"[^\w ]", "", (text or "").lower()).strip()
    return DIGITS[int(word)] if re.fullmatch("[0-9]", word) else word


if __name__ == "__main__":
    main()
