"""Tables with a column mapping, and a folder per class."""

import json
import os
import sys
import unicodedata
from pathlib import Path

import pandas as pd
import pytest
import soundfile

from stillwave.pipeline.config.base import ConfigError, parse_config
from stillwave.pipeline.corpora import CorpusConfig
from stillwave.pipeline.corpora.folder import Folder
from stillwave.pipeline.corpora.prepare import prepare
from stillwave.pipeline.corpora.table import Table

RECORDS = [
    {"file_path": "a/one.wav", "word": "NA", "speaker": 1},
    {"file_path": "a/two.wav", "word": "grün, blau", "speaker": None},
    {"file_path": None, "word": "lost", "speaker": 2},
]
EXPECTED = [
    {"id": "a/one", "path": "{root}/a/one.wav", "word": "NA", "speaker": "1", "language": "de"},
    {"id": "a/two", "path": "{root}/a/two.wav", "word": "grün, blau", "speaker": None, "language": "de"},
]


def config(name: str, **fields: object) -> Table:
    columns = {"path": "file_path", "word": "word", "speaker": "speaker"}
    raw = {"kind": "table", "table": name, "columns": columns, "constants": {"language": "de"}, **fields}
    parsed: Table = parse_config(raw, CorpusConfig, "test.yaml")
    return parsed


def write(path: Path) -> None:
    frame = pd.DataFrame(RECORDS)
    match path.suffix:
        case ".csv":
            path.write_text(
                'file_path,word,speaker\na/one.wav,NA,1\na/two.wav,"grün, blau",\n,lost,2\n', "utf-8"
            )
        case ".tsv":
            path.write_text(
                "file_path\tword\tspeaker\na/one.wav\tNA\t1\na/two.wav\tgrün, blau\t\n\tlost\t2\n", "utf-8"
            )
        case ".parquet":
            frame.to_parquet(path)  # speaker becomes float with NaN, as tables often are
        case ".jsonl":
            path.write_text("\n".join(json.dumps(record) for record in RECORDS) + "\n\n", "utf-8")


@pytest.mark.parametrize("name", ["list.csv", "list.tsv", "list.parquet", "list.jsonl"])
def test_a_table_reads_alike_in_every_format(tmp_path: Path, name: str) -> None:
    write(tmp_path / name)
    imported = config(name).read(tmp_path)
    expected = [{**row, "path": str(row["path"]).format(root=tmp_path.as_posix())} for row in EXPECTED]
    assert imported.rows == expected
    [rejected] = imported.rejected
    assert (rejected.reason, rejected.id) == ("no_path", "row 3")
    line = {".csv": " (line 4)", ".tsv": " (line 4)", ".jsonl": " (line 3)"}.get(Path(name).suffix, "")
    assert rejected.detail == f"row 3 of {tmp_path / name}{line} has no file_path"


def test_ids_may_come_from_a_column_and_absolute_paths_stay(tmp_path: Path) -> None:
    inside, outside = tmp_path / "root" / "x.wav", tmp_path / "y.wav"
    inside.parent.mkdir()
    (inside.parent / "list.csv").write_text(f"n,file_path\nfirst,{inside}\n,{outside}\n")
    imported = config("list.csv", columns={"id": "n", "path": "file_path"}).read(inside.parent)
    assert [row["id"] for row in imported.rows] == ["first", outside.with_suffix("").as_posix()]
    assert [row["path"] for row in imported.rows] == [inside.as_posix(), outside.as_posix()]


def test_a_missing_column_is_named_with_those_there_are(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("file,word,speaker\na.wav,yes,ann\n")
    message = (
        r"list\.csv: no column 'file_path' \(columns\.path in the corpus config\); .* file, word, speaker"
    )
    with pytest.raises(ValueError, match=message):
        config("list.csv").read(tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("list.csv", "", "list.csv: no rows"),
        (
            "list.csv",
            "file_path,word,speaker\na.wav,yes,ann,what\n",
            "line 2 has more fields than the header",
        ),
        ("list.jsonl", '{"file_path": "a"}\n{oops}\n', "line 2 is not JSON"),
        ("list.jsonl", "[1]\n", "line 1 is not an object"),
        ("list.parquet", "no", "not a Parquet file"),
        ("list.xls", "no", r"cannot read '\.xls'; use \.csv, \.tsv"),
    ],
)
def test_a_broken_table_says_where(tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=message):
        config(name).read(tmp_path)


def test_no_table(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no such table; `table` is relative to `root`"):
        config("list.csv").read(tmp_path)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"kind": "tabel"}, r"`kind`: must be one of 'table', 'folder', .*'custom' \(got 'tabel'\)$"),
        ({"kind": ["table"]}, r"`kind`: must be one of .*\(got \['table'\]\)$"),
        ({"columns": {"word": "word"}}, "columns must name the one with the audio paths"),
        ({"encoding": "cp1525"}, "encoding: 'cp1525' is not known; use cp1252"),
        ({"encoding": "base64"}, "encoding: 'base64' is not known; use cp1252"),  # of Python, but not of text
        ({"classes": [True, False]}, r"`classes\.0`: .*YAML reads this as True, not as text; put it in"),
        ({"classes": [0, 1]}, r"`classes\.1`: .*YAML reads this as 1, not as text; put it in quotes"),
        ({"labels": {False: "no"}}, "YAML reads this as False, not as text"),
        ({"constants": {"language": False}}, r"`constants\.language`: .*reads this as False"),  # Norwegian
        ({"constants": {"word": "x"}}, "word: both in `columns` and in `constants`; keep one"),
        ({"constants": {"sha256": "x"}}, "sha256: measured from the audio"),
        ({"constants": {"start": "0,1"}}, "start: reserved for spans, which only the `columns` of a table"),
        ({"split": {"kind": "kfold", "disjoint": ["speaker", "speaker"]}}, "names a column twice; leave one"),
        ({"split": {"kind": "kfold", "flods": 3}}, r"test\.yaml: `split\.flods`: Extra inputs are not"),
        ({"split": {"kind": "holdout", "valid": 0.5, "test": 0.5}}, "leaves no training rows"),
    ],
)
def test_a_config_that_cannot_be_used_is_refused(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config("list.csv", **fields)


def test_folder_per_class(tmp_path: Path) -> None:
    for name in ("happy/ann_1.wav", "happy/deep/bob_2.flac", "sad/ann_3.mp3", "sad/what.wav", "loose.wav"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    rule = Folder(kind="folder", speaker=r"(?P<speaker>[a-z]+)_\d", constants={"language": "en"})
    imported = rule.read(tmp_path)
    assert imported.rows == [
        {
            "id": name.rsplit(".", 1)[0],
            "path": (tmp_path / name).as_posix(),
            "emotion": name.split("/")[0],
            "speaker": speaker,
            "language": "en",
        }
        for name, speaker in [
            ("happy/ann_1.wav", "ann"),
            ("happy/deep/bob_2.flac", "bob"),
            ("sad/ann_3.mp3", "ann"),
        ]
    ]
    assert {item.id: item.detail for item in imported.rejected} == {
        "loose": "loose.wav lies in no class folder",
        "sad/what": r"sad/what.wav does not match speaker: (?P<speaker>[a-z]+)_\d",
    }


def test_a_folder_is_one_class_in_either_form_of_unicode(tmp_path: Path) -> None:
    for name in ("w\u00fctend/a.wav", "wu\u0308tend/b.wav"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    rows = Folder(kind="folder", speaker=r"w\u00fctend/(\w)").read(tmp_path).rows
    assert sorted((row["id"], row["emotion"], row["speaker"]) for row in rows) == [
        ("w\u00fctend/a", "w\u00fctend", "a"), ("w\u00fctend/b", "w\u00fctend", "b")
    ]  # fmt: skip
    assert all(Path(str(row["path"])).is_file() for row in rows)


def test_a_folder_has_no_spans() -> None:
    with pytest.raises(
        ValueError, match=r"end, start: reserved for spans, .*name the group or constant otherw"
    ):
        Folder(kind="folder", constants={"start": "0,1", "end": "0,2"})


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_a_name_that_is_not_utf_8_is_named(tmp_path: Path) -> None:
    (tmp_path / "sad").mkdir()
    (tmp_path / "sad" / os.fsdecode(b"\xe9.wav")).touch()
    with pytest.raises(ValueError, match=r"sad/\\udce9\.wav': this name is not UTF-8, .*; rename the file"):
        Folder(kind="folder").read(tmp_path)


def test_a_folder_needs_no_speakers(tmp_path: Path) -> None:
    (tmp_path / "yes").mkdir()
    (tmp_path / "yes" / "x.wav").touch()
    [row] = Folder(kind="folder", label="word").read(tmp_path).rows
    assert row == {"id": "yes/x", "path": (tmp_path / "yes/x.wav").as_posix(), "word": "yes"}


@pytest.mark.parametrize(
    ("speaker", "message"),
    [("(", "not a regular expression"), (r"\w+", "no group; put the speaker's part in")],
)
def test_a_speaker_expression_that_cannot_be_used_is_refused(
    tmp_path: Path, speaker: str, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Folder(kind="folder", speaker=speaker).read(tmp_path)


@pytest.mark.parametrize(
    ("cell", "file"),
    [
        ("wav/a.wav ", "wav/a.wav"),
        ("wav\\a.wav", "wav/a.wav"),
        ("wav/\u00fc.wav", "wav/u\u0308.wav"),
        ("wav/u\u0308.wav", "wav/\u00fc.wav"),
        ("wav\\u\u0308.wav", "wav/\u00fc.wav"),
        ("odd\\name.wav", "odd\\name.wav"),
    ],
)
def test_a_path_is_found_however_it_is_spelled(cell: str, file: str, tmp_path: Path) -> None:
    (tmp_path / "wav").mkdir()
    (tmp_path / file).touch()
    (tmp_path / "list.csv").write_text(f"file_path,word,speaker\n{cell},yes,ann\n")
    [row] = config("list.csv").read(tmp_path).rows
    assert row["path"] == (tmp_path / file).as_posix()
    assert row["id"] == unicodedata.normalize("NFC", file.removesuffix(".wav"))


@pytest.mark.parametrize("cell", [".", "/", ".///", "..", "\0"])
def test_a_cell_that_names_no_file_is_a_line_of_the_quarantine(cell: str, tmp_path: Path) -> None:
    lines = {"file_path": ["a.wav", "b.wav", cell], "word": ["yes", "no", "yes"], "speaker": ["x", "y", "z"]}
    for name in ("a", "b"):
        soundfile.write(tmp_path / f"{name}.wav", [0.1 * len(name), 0.2, ord(name) / 200], 8000)
    pd.DataFrame(lines).to_parquet(tmp_path / "list.parquet")
    split = {"kind": "kfold", "folds": 2}
    chosen = config("list.parquet", max_bad_fraction=0.5, split=split, label="word")
    result = prepare(chosen, tmp_path, tmp_path / "m.parquet")
    assert (result.rows, result.quarantined) == (2, {"missing": 1})


def test_paths_and_tables_may_start_at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "a.wav").touch()
    (tmp_path / "list.csv").write_text("file_path,word,speaker\n~/a.wav,yes,ann\n~/lost.wav,yes,ann\n")
    found, lost = config("~/list.csv").read(tmp_path / "elsewhere").rows
    assert found["path"] == (tmp_path / "a.wav").as_posix()
    assert str(lost["path"]).endswith("~/lost.wav")


def test_ids_from_paths_keep_the_suffix_where_stems_collide(tmp_path: Path) -> None:
    cells = ["x.wav", "x.flac", "y.wav", "y.wav", "z.wav"]
    (tmp_path / "list.csv").write_text("file_path,word,speaker\n" + "".join(f"{c},yes,ann\n" for c in cells))
    ids = [row["id"] for row in config("list.csv").read(tmp_path).rows]
    assert ids == ["x.wav", "x.flac", "y", "y", "z"]
