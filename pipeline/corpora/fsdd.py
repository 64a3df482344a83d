"""FSDD, the Free Spoken Digit Dataset (Jackson et al.): `{digit}_{speaker}_{index}.wav`."""

import re
from pathlib import Path

from stillwave.pipeline.config.corpus import FSDD
from stillwave.pipeline.corpora.base import Imported, Row, read_named

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_NAME = re.compile(r"(\d)_([A-Za-z]+)_(\d+)")


def read(config: FSDD, root: Path) -> Imported:
    """All digits below `root`, with the word (also as text), speaker and the index of the recording."""
    return read_named(root, "FSDD's names, such as 7_jackson_32.wav", parse)


def parse(stem: str) -> Row | None:
    """The columns of `7_jackson_32`; None for a name that is not FSDD's."""
    match = _NAME.fullmatch(stem)
    if match is None:
        return None
    digit, speaker, index = match.groups()
    word = WORDS[int(digit)]
    return {"word": word, "speaker": speaker, "language": "en", "text": word, "take": str(int(index))}
