"""Published naming rules: one known name of each corpus, and names that do not fit."""

from collections.abc import Callable
from pathlib import Path

import pytest

from stillwave.pipeline.config.corpus import RAVDESS, EmoDB, Urdu
from stillwave.pipeline.corpora import crema_d, emodb, fsdd, ravdess, urdu
from stillwave.pipeline.corpora.base import Row


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def test_emodb() -> None:
    assert emodb.parse("03a01Fa") == {
        "emotion": "happy",
        "speaker": "03",
        "gender": "male",
        "language": "de",
        "text": "Der Lappen liegt auf dem Eisschrank.",
    }
    emotions = {letter: emodb.parse(f"16b10{letter}b") for letter in "NFTWAEL"}
    assert {letter: row["emotion"] for letter, row in emotions.items() if row} == {
        "N": "neutral",
        "F": "happy",
        "T": "sad",
        "W": "angry",
        "A": "fear",
        "E": "disgust",
        "L": "boredom",
    }
    assert len(emodb.SENTENCES) == 10
    assert len(emodb.MALE) == len(emodb.FEMALE) == 5


def test_fsdd() -> None:
    row = {"word": "seven", "speaker": "jackson", "language": "en", "text": "seven", "take": "32"}
    assert fsdd.parse("7_jackson_32") == row


def test_ravdess() -> None:
    assert ravdess.parse("03-01-06-01-02-01-12") == {
        "emotion": "fear",
        "intensity": "normal",
        "channel": "speech",
        "speaker": "12",
        "gender": "female",
        "language": "en",
        "text": "Dogs are sitting by the door.",
    }


def test_crema_d() -> None:
    assert crema_d.parse("1001_DFA_ANG_XX") == {
        "emotion": "angry",
        "intensity": "unspecified",
        "speaker": "1001",
        "language": "en",
        "text": "Don't forget a jacket.",
    }
    assert len(crema_d.SENTENCES) == 12
    assert crema_d.parse("1040_ITH_SAD_X") is not None  # as published


def test_urdu() -> None:
    row = {"emotion": "angry", "speaker": "SM1", "gender": "male", "language": "ur"}
    assert urdu.parse("SM1_F10_A010") == row
    assert urdu.parse("SF12_F03_S07") == {**row, "emotion": "sad", "speaker": "SF12", "gender": "female"}


@pytest.mark.parametrize(
    ("parse", "stem"),
    [
        (emodb.parse, "03a01Xa"),
        (emodb.parse, "04a01Fa"),
        (emodb.parse, "03a03Fa"),
        (emodb.parse, "03a01Fa copy"),
        (fsdd.parse, "10_jackson_3"),
        (fsdd.parse, "seven_jackson_3"),
        (ravdess.parse, "01-01-06-01-02-01-12"),  # full video
        (ravdess.parse, "03-01-09-01-02-01-12"),
        (ravdess.parse, "03-01-06-01-02-01-25"),
        (ravdess.parse, "03-01-06-01-02-01"),
        (crema_d.parse, "1001_DFA_BOR_XX"),
        (crema_d.parse, "1001_ABC_ANG_XX"),
        (urdu.parse, "SX1_F10_A010"),
        (urdu.parse, "SM1_F10_B010"),
    ],
)
def test_a_name_that_does_not_fit_is_not_guessed_at(parse: Callable[[str], Row | None], stem: str) -> None:
    assert parse(stem) is None


def test_what_does_not_fit_is_rejected_and_what_is_no_audio_is_counted(tmp_path: Path) -> None:
    touch(tmp_path, "wav/03a01Fa.wav", "wav/03a01Fa (1).wav", "erkennung.txt", "wav/.DS_Store", "wav/._x.wav")
    imported = emodb.read(EmoDB(kind="emodb"), tmp_path)
    assert [row["id"] for row in imported.rows] == ["03a01Fa"]
    assert imported.rows[0]["path"] == (tmp_path / "wav/03a01Fa.wav").as_posix()
    [rejected] = imported.rejected
    assert (rejected.id, rejected.reason) == ("03a01Fa (1)", "unrecognised_name")
    assert rejected.detail == "03a01Fa (1).wav does not fit EmoDB's names, such as 03a01Fa.wav"
    assert imported.ignored == {".txt": 1, "hidden": 2}


def test_ravdess_speech_and_song(tmp_path: Path) -> None:
    touch(tmp_path, "Actor_01/03-01-03-01-01-01-01.wav", "Actor_01/03-02-03-01-01-01-01.wav")
    speech = ravdess.read(RAVDESS(kind="ravdess"), tmp_path)
    song = ravdess.read(RAVDESS(kind="ravdess", channel="song"), tmp_path)
    both = ravdess.read(RAVDESS(kind="ravdess", channel="both"), tmp_path)
    assert [row["channel"] for row in speech.rows] == ["speech"]
    assert speech.excluded == {"song": 1}
    assert [row["channel"] for row in song.rows] == ["song"]
    assert len(both.rows) == 2
    assert not both.excluded


def test_linked_folders_are_followed(tmp_path: Path) -> None:
    touch(tmp_path, "elsewhere/SM1_F1_N01.wav")
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / "Neutral").symlink_to(tmp_path / "elsewhere")
    assert len(urdu.read(Urdu(kind="urdu"), tmp_path / "corpus").rows) == 1
