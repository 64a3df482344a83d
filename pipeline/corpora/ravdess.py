"""RAVDESS: Livingstone and Russo, "The Ryerson Audio-Visual Database of Emotional Speech and Song", 2018.

File names: seven two-digit fields, modality-channel-emotion-intensity-statement-repetition-actor, for example
03-01-06-01-02-01-12.wav. Modality 03 is audio only; actors with odd numbers are male.
"""

import re
from pathlib import Path

from stillwave.pipeline.config.corpus import RAVDESS
from stillwave.pipeline.corpora.base import Imported, Row, read_named

CHANNELS = {"01": "speech", "02": "song"}
EMOTIONS = {
    "01": "neutral",
    "02": "calm",
    "03": "happy",
    "04": "sad",
    "05": "angry",
    "06": "fear",
    "07": "disgust",
    "08": "surprise",
}
INTENSITIES = {"01": "normal", "02": "strong"}
STATEMENTS = {"01": "Kids are talking by the door.", "02": "Dogs are sitting by the door."}
_NAME = re.compile(r"03-(\d{2})-(\d{2})-(\d{2})-(\d{2})-(\d{2})-(\d{2})")


def read(config: RAVDESS, root: Path) -> Imported:
    """The audio-only files below `root`, with emotion, intensity, channel, speaker, gender and statement.

    Files of a channel (speech or song) that the config does not ask for are counted as excluded.
    """
    imported = read_named(root, "RAVDESS's audio-only names, such as 03-01-06-01-02-01-12.wav", parse)
    if config.channel != "both":
        excluded = [str(row["channel"]) for row in imported.rows if row["channel"] != config.channel]
        imported.excluded.update(excluded)
        imported.rows = [row for row in imported.rows if row["channel"] == config.channel]
    return imported


def parse(stem: str) -> Row | None:
    """The columns of `03-01-06-01-02-01-12`; None for a name that is not RAVDESS's, or not audio only."""
    match = _NAME.fullmatch(stem)
    if match is None:
        return None
    channel, emotion, intensity, statement, _repetition, actor = match.groups()
    if channel not in CHANNELS or emotion not in EMOTIONS or intensity not in INTENSITIES:
        return None
    if statement not in STATEMENTS or not 1 <= int(actor) <= 24:
        return None
    return {
        "emotion": EMOTIONS[emotion],
        "intensity": INTENSITIES[intensity],
        "channel": CHANNELS[channel],
        "speaker": actor,
        "gender": "male" if int(actor) % 2 else "female",
        "language": "en",
        "text": STATEMENTS[statement],
    }
