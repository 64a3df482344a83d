"""CREMA-D: Cao et al., "CREMA-D: Crowd-sourced Emotional Multimodal Actors Dataset", 2014.

File names: `{actor}_{sentence}_{emotion}_{intensity}.wav`, for example 1001_DFA_ANG_XX.wav.
"""

import re
from pathlib import Path

from stillwave.pipeline.config.corpus import CremaD
from stillwave.pipeline.corpora.base import Imported, Row, read_named

EMOTIONS = {
    "ANG": "angry",
    "DIS": "disgust",
    "FEA": "fear",
    "HAP": "happy",
    "NEU": "neutral",
    "SAD": "sad",
}
# The corpus has one file whose unspecified intensity is a single X (1040_ITH_SAD_X.wav).
INTENSITIES = {"LO": "low", "MD": "medium", "HI": "high", "XX": "unspecified", "X": "unspecified"}
SENTENCES = {
    "IEO": "It's eleven o'clock.",
    "TIE": "That is exactly what happened.",
    "IOM": "I'm on my way to the meeting.",
    "IWW": "I wonder what this is about.",
    "TAI": "The airplane is almost full.",
    "MTI": "Maybe tomorrow it will be cold.",
    "IWL": "I would like a new alarm clock.",
    "ITH": "I think I have a doctor's appointment.",
    "DFA": "Don't forget a jacket.",
    "ITS": "I think I've seen this before.",
    "TSI": "The surface is slick.",
    "WSI": "We'll stop in a couple of minutes.",
}
_NAME = re.compile(r"(1\d{3})_([A-Z]{3})_([A-Z]{3})_([A-Z]{1,2})")


def read(config: CremaD, root: Path) -> Imported:
    """All utterances below `root`, with emotion, intensity, speaker, sentence and language."""
    return read_named(root, "CREMA-D's names, such as 1001_DFA_ANG_XX.wav", parse)


def parse(stem: str) -> Row | None:
    """The columns of `1001_DFA_ANG_XX`; None for a name that is not CREMA-D's."""
    match = _NAME.fullmatch(stem)
    if match is None:
        return None
    speaker, sentence, emotion, intensity = match.groups()
    if sentence not in SENTENCES or emotion not in EMOTIONS or intensity not in INTENSITIES:
        return None
    return {
        "emotion": EMOTIONS[emotion],
        "intensity": INTENSITIES[intensity],
        "speaker": speaker,
        "language": "en",
        "text": SENTENCES[sentence],
    }
