"""EmoDB: Burkhardt et al., "A Database of German Emotional Speech", Interspeech 2005.

File names: characters 1-2 speaker, 3-5 sentence, 6 emotion (the initial of its German name), 7 version.
"""

import re
from pathlib import Path

from stillwave.pipeline.config.corpus import EmoDB
from stillwave.pipeline.corpora.base import Imported, Row, read_named

EMOTIONS = {
    "N": "neutral",
    "F": "happy",  # Freude
    "T": "sad",  # Trauer
    "W": "angry",  # Wut
    "A": "fear",  # Angst
    "E": "disgust",  # Ekel
    "L": "boredom",  # Langeweile
}
FEMALE = {"08", "09", "13", "14", "16"}
MALE = {"03", "10", "11", "12", "15"}
SENTENCES = {
    "a01": "Der Lappen liegt auf dem Eisschrank.",
    "a02": "Das will sie am Mittwoch abgeben.",
    "a04": "Heute abend könnte ich es ihm sagen.",
    "a05": "Das schwarze Stück Papier befindet sich da oben neben dem Holzstück.",
    "a07": "In sieben Stunden wird es soweit sein.",
    "b01": "Was sind denn das für Tüten, die da unter dem Tisch stehen?",
    "b02": "Sie haben es gerade hochgetragen und jetzt gehen sie wieder runter.",
    "b03": "An den Wochenenden bin ich jetzt immer nach Hause gefahren und habe Agnes besucht.",
    "b09": "Ich will das eben wegbringen und dann mit Karl was trinken gehen.",
    "b10": "Die wird auf dem Platz sein, wo wir sie immer hinlegen.",
}
_NAME = re.compile(r"(\d{2})([ab]\d{2})([A-Z])([a-z])")


def read(config: EmoDB, root: Path) -> Imported:
    """All utterances below `root`, with emotion, speaker, gender, sentence and language."""
    return read_named(root, "EmoDB's names, such as 03a01Fa.wav", parse)


def parse(stem: str) -> Row | None:
    """The columns of `03a01Fa`; None for a name that is not EmoDB's."""
    match = _NAME.fullmatch(stem)
    if match is None:
        return None
    speaker, sentence, emotion, _version = match.groups()
    if speaker not in FEMALE | MALE or sentence not in SENTENCES or emotion not in EMOTIONS:
        return None
    return {
        "emotion": EMOTIONS[emotion],
        "speaker": speaker,
        "gender": "female" if speaker in FEMALE else "male",
        "language": "de",
        "text": SENTENCES[sentence],
    }
