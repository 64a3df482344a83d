"""URDU: Latif et al., "Cross Lingual Speech Emotion Recognition: Urdu vs. Western Languages", 2018.

File names: `SGX_FXX_EYY.wav`. S speaker, G gender (M or F), X the speaker's number; F file number; E emotion
(A, H, N, S) and its number. For example SM1_F10_A010.wav.
"""

import re
from pathlib import Path

from stillwave.pipeline.config.corpus import Urdu
from stillwave.pipeline.corpora.base import Imported, Row, read_named

EMOTIONS = {"A": "angry", "H": "happy", "N": "neutral", "S": "sad"}
GENDERS = {"M": "male", "F": "female"}
_NAME = re.compile(r"(S([MF])\d+)_F\d+_([AHNS])\d+")


def read(config: Urdu, root: Path) -> Imported:
    """All utterances below `root`, with emotion, speaker, gender and language; the corpus has no text."""
    return read_named(root, "URDU's names, such as SM1_F10_A010.wav", parse)


def parse(stem: str) -> Row | None:
    """The columns of `SM1_F10_A010`; None for a name that is not URDU's."""
    match = _NAME.fullmatch(stem)
    if match is None:
        return None
    speaker, gender, emotion = match.groups()
    return {"emotion": EMOTIONS[emotion], "speaker": speaker, "gender": GENDERS[gender], "language": "ur"}
