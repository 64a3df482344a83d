"""A naming rule of the user's own: what it reads, and what is said of one that cannot be used."""

from pathlib import Path

import pytest

from stillwave.pipeline.config.base import ConfigError, parse_config
from stillwave.pipeline.corpora import CorpusConfig
from stillwave.pipeline.corpora.named import Named

RULE = {
    "kind": "named",
    "pattern": r"(?P<speaker>\w+)/(?P<emotion>[hs])\d+",
    "example": "ann/h1.wav",
    "values": {"emotion": {"h": "happy", "s": "sad"}},
    "constants": {"language": "en"},
}


def config(**fields: object) -> Named:
    parsed: Named = parse_config({**RULE, **fields}, CorpusConfig, "mine.yaml")
    return parsed


def files(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def test_groups_values_and_constants_become_columns(tmp_path: Path) -> None:
    files(tmp_path, "deep/ann/h1.wav", "bob/s2.flac", "bob/x3.wav", "s4.wav")
    imported = config().read(tmp_path)
    assert imported.rows == [
        {
            "id": name.rsplit(".", 1)[0].removeprefix("deep/"),
            "path": (tmp_path / name).as_posix(),
            "speaker": speaker,
            "emotion": emotion,
            "language": "en",
        }
        for name, speaker, emotion in [("bob/s2.flac", "bob", "sad"), ("deep/ann/h1.wav", "ann", "happy")]
    ]
    assert {item.id: item.detail for item in imported.rejected} == {
        "s4": "s4.wav does not fit the corpus's names, such as ann/h1.wav",
        "x3": "x3.wav does not fit the corpus's names, such as ann/h1.wav",
    }


def test_names_are_read_in_one_form_of_unicode_and_keep_suffixes_that_tell_them_apart(tmp_path: Path) -> None:
    files(tmp_path, "ju\u0308rgen/h1.wav", "j\u00fcrgen/h2.wav", "ann/h1.wav", "ann/h1.flac")
    rows = config().read(tmp_path).rows
    assert {(row["id"], row["speaker"]) for row in rows} == {
        ("j\u00fcrgen/h1", "j\u00fcrgen"),
        ("j\u00fcrgen/h2", "j\u00fcrgen"),
        ("ann/h1.wav", "ann"),
        ("ann/h1.flac", "ann"),
    }
    assert all(Path(str(row["path"])).is_file() for row in rows)


def test_the_fewest_folders_that_match_are_read(tmp_path: Path) -> None:
    files(tmp_path, "ann/h1.wav", "ann/h2/h3.wav")
    rows = config(pattern=r"((?P<speaker>\w+)/)?(?P<emotion>[hs])\d+").read(tmp_path).rows
    assert [(row["id"], row["speaker"]) for row in rows] == [("h1", None), ("h3", None)]


def test_columns_are_chosen_and_ordered_and_rows_kept_by_value(tmp_path: Path) -> None:
    files(tmp_path, "ann/h1.wav", "ann/s1.wav", "bob/s1.wav")
    imported = config(columns=["emotion", "speaker"], keep={"speaker": ["ann"]}).read(tmp_path)
    assert [list(row.items())[2:] for row in imported.rows] == [
        [("emotion", "happy"), ("speaker", "ann")],
        [("emotion", "sad"), ("speaker", "ann")],
    ]
    assert imported.excluded == {"bob": 1}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"pattern": "("}, r"mine\.yaml: .*pattern: '\(' is not a regular expression: missing \)"),
        (
            {"pattern": r"\w+/(?P<emotion>[hs])\d+"},
            r"split: no column 'speaker'; there are emotion, language\. Name its part of `pattern`, "
            r"\(\?P<speaker>\.\.\.\), or correct `split`",
        ),
        ({"label": "word"}, "label: no column 'word'; there are speaker, emotion, language"),
        ({"pattern": r"\w+", "values": {}, "constants": {}}, "label: no column 'emotion'; there are none"),
        ({"columns": ["emotion"]}, "split: no column 'speaker'; there are emotion"),
        (
            {"columns": ["emotion", "speaker", "text"]},
            "columns: no column 'text'; there are speaker, emotion",
        ),
        ({"values": {"emoton": {"h": "x"}}}, "values: no column 'emoton'; there are speaker, emotion"),
        ({"keep": {"channel": ["x"]}}, "keep: no column 'channel'"),
        ({"split": {"kind": "predefined", "column": "part"}}, "split: no column 'part'"),
        (
            {"constants": {"speaker": "x"}},
            "speaker: reserved, or in both `pattern` and `constants`; rename it",
        ),
        ({"constants": {"sha256": "x"}}, "sha256: reserved"),
        ({"constants": {"end": "x"}}, "end: reserved for spans, .*name the group or constant otherwise"),
        ({"pattern": r"(?P<speaker>\w+)/(?P<emotion>[hs])(?P<start>\d+)"}, "start: reserved for spans"),
        ({"example": "ann/x1.wav"}, r"example: 'ann/x1\.wav' does not match pattern .*; correct either"),
        (
            {"values": {"emotion": {"s": "sad"}}},
            r"values\.emotion: no value for 'h', found in ann/h1\.wav; .*narrow \(\?P<emotion>\.\.\.\)",
        ),
        (
            {"values": {"emotion": {"h": "happy", 1: "x"}}},
            r"`values\.emotion\.1.*YAML reads this as 1, not as text; put it in quotes",
        ),
        ({"constants": {"language": False}}, r"`constants\.language`: .*YAML reads this as False"),
    ],
)
def test_a_rule_that_cannot_be_used_is_refused(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config(**fields)


def test_a_file_whose_value_the_rule_lacks_is_an_error(tmp_path: Path) -> None:
    files(tmp_path, "ann/h1.wav", "ann/s1.wav")
    with pytest.raises(ValueError, match=r"values\.emotion: no value for 's', found in ann/s1\.wav; add it"):
        config(values={"emotion": {"h": "happy"}}).read(tmp_path)


def test_a_rule_that_no_file_matches_is_an_error(tmp_path: Path) -> None:
    files(tmp_path, "happy/ann.wav", "sad/ann.wav", "notes.txt")
    message = (
        r"pattern: none of the 2 audio files below .* matches .*; the first is .*happy/ann\.wav, .*--root"
    )
    with pytest.raises(ValueError, match=message):
        config().read(tmp_path)


@pytest.mark.parametrize("kind", ["emodb", "fsdd", "ravdess", "crema_d", "urdu"])
def test_a_kind_that_is_now_a_named_one_says_so(kind: str) -> None:
    message = rf"mine\.yaml: .*kind: {kind} is now configs/corpora/{kind}\.yaml, of `kind: named`; copy that"
    with pytest.raises(ConfigError, match=message):
        parse_config({"kind": kind, "split": {"kind": "kfold"}}, CorpusConfig, "mine.yaml")
