"""Published naming rules: names of each corpus and what they say, and names that do not fit."""

from pathlib import Path, PurePosixPath

import numpy as np
import pytest
import soundfile

from stillwave.pipeline.config.base import load_config
from stillwave.pipeline.corpora import CorpusConfig
from stillwave.pipeline.corpora.manifest import read_manifest
from stillwave.pipeline.corpora.named import Named
from stillwave.pipeline.corpora.prepare import prepare

CONFIGS = Path(__file__).parents[3] / "configs" / "corpora"
EN, DE = {"language": "en"}, {"language": "de"}
Row = dict[str, str | None]


def config(name: str, *overrides: str) -> Named:
    loaded: Named = load_config(CONFIGS / f"{name}.yaml", CorpusConfig, overrides)
    return loaded


def row(name: str, path: str) -> Row | None:
    found = config(name).row(PurePosixPath(path))
    return found and {column: value for column, value in found.items() if column != "id"}


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


NAMES: list[tuple[str, str, Row]] = [
    (
        "emodb",
        "wav/03a01Fa.wav",
        {"emotion": "happy", "speaker": "03", "gender": "male", **DE}
        | {"text": "Der Lappen liegt auf dem Eisschrank."},
    ),
    (
        "emodb7",
        "16b10Lb.wav",
        {"emotion": "boredom", "speaker": "16", "gender": "female", **DE}
        | {"text": "Die wird auf dem Platz sein, wo wir sie immer hinlegen."},
    ),
    (
        "fsdd",
        "7_jackson_32.wav",
        {"word": "seven", "speaker": "jackson", **EN, "text": "seven", "take": "32"},
    ),
    ("fsdd", "0_theo_0.wav", {"word": "zero", "speaker": "theo", **EN, "text": "zero", "take": "0"}),
    (
        "ravdess",
        "Actor_12/03-01-06-01-02-01-12.wav",
        {"emotion": "fear", "intensity": "normal", "channel": "speech", "speaker": "12", "gender": "female"}
        | {**EN, "text": "Dogs are sitting by the door."},
    ),
    (
        "ravdess",
        "03-02-05-02-01-02-23.wav",
        {"emotion": "angry", "intensity": "strong", "channel": "song", "speaker": "23", "gender": "male"}
        | {**EN, "text": "Kids are talking by the door."},
    ),
    (
        "crema_d",
        "AudioWAV/1001_DFA_ANG_XX.wav",
        {"emotion": "angry", "intensity": "unspecified", "speaker": "1001", **EN}
        | {"text": "Don't forget a jacket."},
    ),
    (
        "crema_d",
        "1040_ITH_SAD_X.wav",  # as published
        {"emotion": "sad", "intensity": "unspecified", "speaker": "1040", **EN}
        | {"text": "I think I have a doctor's appointment."},
    ),
    (
        "urdu",
        "Angry/SM1_F10_A010.wav",
        {"emotion": "angry", "speaker": "SM1", "gender": "male", "language": "ur"},
    ),
    ("urdu", "SF12_F03_S07.wav", {"emotion": "sad", "speaker": "SF12", "gender": "female", "language": "ur"}),
    ("savee", "AudioData/DC/a01.wav", {"speaker": "DC", "emotion": "angry", "gender": "male", **EN}),
    ("savee", "ALL/JE_sa03.wav", {"speaker": "JE", "emotion": "sad", "gender": "male", **EN}),
    ("savee", "KL/su15.wav", {"speaker": "KL", "emotion": "surprise", "gender": "male", **EN}),
    ("savee", "JK/n30.wav", {"speaker": "JK", "emotion": "neutral", "gender": "male", **EN}),
    (
        "tess",
        "OAF_angry/OAF_back_angry.wav",
        {"speaker": "OAF", "word": "back", "emotion": "angry", "gender": "female", **EN},
    ),
    (
        "tess",
        "YAF_food_ps.wav",
        {"speaker": "YAF", "word": "food", "emotion": "surprise", "gender": "female", **EN},
    ),
    (
        "tess",
        "OAF_neutral/OA_bite_neutral.wav",  # as published
        {"speaker": "OAF", "word": "bite", "emotion": "neutral", "gender": "female", **EN},
    ),
    (
        "emovo",
        "f1/dis-f1-b1.wav",
        {"emotion": "disgust", "speaker": "f1", "gender": "female", "text": "Gli operai si alzano presto."}
        | {"language": "it"},
    ),
    (
        "emovo",
        "m3/gio-m3-d2.wav",
        {"emotion": "happy", "speaker": "m3", "gender": "male", "text": "Porti con te quella cosa?"}
        | {"language": "it"},
    ),
    (
        "esd",
        "0011/Angry/0011_000351.wav",
        {"emotion": "angry", "speaker": "0011", "gender": "male", **EN, "part": None},
    ),
    (
        "esd",
        "Emotion Speech Dataset/0016/Neutral/evaluation/0016_000019.wav",
        {"emotion": "neutral", "speaker": "0016", "gender": "female", **EN, "part": "evaluation"},
    ),
    (
        "esd",
        "0001/Surprise/train/0001_001501.wav",
        {"emotion": "surprise", "speaker": "0001", "gender": "female", "language": "zh", "part": "train"},
    ),
    (
        "jl_corpus",
        "Raw JL corpus (unchecked and unannotated)/JL(wav+txt)/female1_angry_10a_1.wav",
        {"speaker": "female1", "gender": "female", "emotion": "angry", "sentence": "10", **EN},
    ),
    (
        "jl_corpus",
        "male2_sad_15b_2.wav",
        {"speaker": "male2", "gender": "male", "emotion": "sad", "sentence": "15", **EN},
    ),
    (
        "jl_corpus",
        "female2_encouraging_3b_1.wav",
        {"speaker": "female2", "gender": "female", "emotion": "encouraging", "sentence": "3", **EN},
    ),
    (
        "aesdd",
        "anger/a03 (4).wav",
        {"emotion": "angry", "utterance": "03", "speaker": "4", "language": "el"},
    ),
    (
        "aesdd",
        "fear/f18 (5)b.wav",
        {"emotion": "fear", "utterance": "18", "speaker": "5", "language": "el"},
    ),
    (
        "shemo",
        "female/F01A01.wav",
        {"speaker": "F01", "gender": "female", "emotion": "angry", "language": "fa"},
    ),
    (
        "shemo",
        "male/M12W03.wav",
        {"speaker": "M12", "gender": "male", "emotion": "surprise", "language": "fa"},
    ),
    ("shemo", "M25F01.wav", {"speaker": "M25", "gender": "male", "emotion": "fear", "language": "fa"}),
    (
        "mesd",
        "Anger_C_A_abajo.wav",
        {"emotion": "angry", "voice": "child", "list": "A", "text": "abajo", "language": "es"},
    ),
    (
        "mesd",
        "Happiness_F_B_abuso.wav",
        {"emotion": "happy", "voice": "female", "list": "B", "text": "abuso", "language": "es"},
    ),
]


@pytest.mark.parametrize(
    ("name", "path", "expected"), NAMES, ids=[f"{name}-{path}" for name, path, _ in NAMES]
)
def test_a_published_name_says(name: str, path: str, expected: Row) -> None:
    found = row(name, path)
    assert found == expected
    assert list(found or ()) == list(expected)  # the order of the manifest's columns


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("emodb", "03a01Xa"),
        ("emodb", "04a01Fa"),
        ("emodb", "03a03Fa"),
        ("emodb", "03a01Fa copy"),
        ("fsdd", "10_jackson_3"),
        ("fsdd", "seven_jackson_3"),
        ("ravdess", "01-01-06-01-02-01-12"),  # full video
        ("ravdess", "03-01-09-01-02-01-12"),
        ("ravdess", "03-01-06-01-02-01-25"),
        ("ravdess", "03-01-06-01-02-01"),
        ("crema_d", "1001_DFA_BOR_XX"),
        ("crema_d", "1001_ABC_ANG_XX"),
        ("urdu", "SX1_F10_A010"),
        ("urdu", "SM1_F10_B010"),
        ("savee", "a01"),
        ("savee", "DC/s01"),
        ("savee", "xDC/a01"),
        ("tess", "OAF_back_anger"),
        ("emovo", "dis-f4-b1"),
        ("esd", "0011/Angry/0012_000351"),
        ("esd", "0021/Angry/0021_000351"),
        ("jl_corpus", "female3_angry_10a_1"),
        ("aesdd", "a03"),
        ("shemo", "F01B01"),
        ("mesd", "Anger_F_B_L1_abuso"),
    ],
)
def test_a_name_that_does_not_fit_is_not_guessed_at(name: str, stem: str) -> None:
    assert row(name, f"{stem}.wav") is None


def test_the_values_of_the_configs() -> None:
    both = [config(name).model_dump(exclude={"classes"}) for name in ("emodb", "emodb7")]
    assert both[0] == both[1]
    emotions = {letter: (row("emodb", f"16b10{letter}b.wav") or {})["emotion"] for letter in "NFTWAEL"}
    assert emotions == {
        "N": "neutral", "F": "happy", "T": "sad", "W": "angry", "A": "fear", "E": "disgust", "L": "boredom"
    }  # fmt: skip
    sizes = {
        ("emodb", "text"): 10, ("emodb", "gender"): 10, ("crema_d", "text"): 12, ("ravdess", "gender"): 24,
        ("emovo", "text"): 14, ("esd", "gender"): 20, ("esd", "language"): 20,
    }  # fmt: skip
    assert {(name, column): len(config(name).values[column]) for name, column in sizes} == sizes
    for name, women in (("emodb", 5), ("ravdess", 12), ("esd", 10)):
        assert list(config(name).values["gender"].values()).count("female") == women


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_no_split_puts_a_speaker_on_two_sides(path: Path) -> None:
    split = load_config(path, CorpusConfig).split
    assert split.group == {"mesd": "voice", "words": None}.get(path.stem, "speaker")
    assert not split.allow_leak


def test_what_does_not_fit_is_rejected_and_what_is_no_audio_is_counted(tmp_path: Path) -> None:
    touch(tmp_path, "wav/03a01Fa.wav", "wav/03a01Fa (1).wav", "erkennung.txt", "wav/.DS_Store", "wav/._x.wav")
    imported = config("emodb").read(tmp_path)
    assert [row["id"] for row in imported.rows] == ["03a01Fa"]
    assert imported.rows[0]["path"] == (tmp_path / "wav/03a01Fa.wav").as_posix()
    [rejected] = imported.rejected
    assert (rejected.id, rejected.reason) == ("03a01Fa (1)", "unrecognised_name")
    assert rejected.detail == "03a01Fa (1).wav does not fit EmoDB's names, such as 03a01Fa.wav"
    assert imported.ignored == {".txt": 1, "hidden": 2}


def test_ids_are_what_matches_or_the_group_of_that_name(tmp_path: Path) -> None:
    touch(tmp_path, "x/DC/a01.wav", "x/KL/a01.wav", "0011/Angry/test/0011_000351.wav")
    savee = config("savee").read(tmp_path)
    assert [row["id"] for row in savee.rows] == ["DC/a01", "KL/a01"]
    assert [row["id"] for row in config("esd").read(tmp_path).rows] == ["0011_000351"]


def test_ravdess_speech_and_song(tmp_path: Path) -> None:
    touch(tmp_path, "Actor_01/03-01-03-01-01-01-01.wav", "Actor_01/03-02-03-01-01-01-01.wav")
    speech = config("ravdess").read(tmp_path)
    song = config("ravdess", "keep.channel=[song]").read(tmp_path)
    both = config("ravdess", "keep={}").read(tmp_path)
    assert [row["channel"] for row in speech.rows] == ["speech"]
    assert speech.excluded == {"song": 1}
    assert [row["channel"] for row in song.rows] == ["song"]
    assert len(both.rows) == 2
    assert not both.excluded


def test_linked_folders_are_followed(tmp_path: Path) -> None:
    touch(tmp_path, "elsewhere/SM1_F1_N01.wav")
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / "Neutral").symlink_to(tmp_path / "elsewhere")
    assert len(config("urdu").read(tmp_path / "corpus").rows) == 1


def test_prepare_reads_splits_and_quarantines_by_the_rule(tmp_path: Path) -> None:
    names = [f"{who}/{what}01" for who in ("KL", "DC", "JE") for what in ("sa", "su", "a", "n")]
    for seed, name in enumerate([*names, "DC/sx01"]):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        noise = 0.1 * np.random.default_rng(seed).standard_normal(800)
        soundfile.write(tmp_path / f"{name}.wav", noise, 8000, subtype="PCM_16")
    out = tmp_path / "manifest.parquet"
    result = prepare(config("savee", "max_bad_fraction=0.1", "classes=[sad, surprise, angry]"), tmp_path, out)
    assert result.labels == {"angry": 3, "sad": 3, "surprise": 3}
    assert (result.excluded, result.quarantined) == ({"neutral": 3}, {"unrecognised_name": 1})
    frame = read_manifest(out)
    assert list(frame.columns[6:]) == ["speaker", "emotion", "gender", "language", "fold"]
    assert frame.groupby("fold")["speaker"].unique().map(list).tolist() == [["DC"], ["JE"], ["KL"]]
    assert frame.set_index("id")["emotion"]["JE/su01"] == "surprise"
