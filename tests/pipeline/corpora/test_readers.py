"""Tables in the dialects that programs write, and where a table is refused."""

import json
import sys
from pathlib import Path

import pandas as pd
import pytest

from stillwave.pipeline.corpora.readers import read_records
from stillwave.pipeline.corpora.table import read_table

ROWS = [
    {"file": "a.wav", "word": "grün, blau", "rating": "1,5"},
    {"file": "b.wav", "word": 'er sagte "ja"', "rating": "2"},
]


def read(path: Path, encoding: str | None = None) -> list[dict[str, object]]:
    return [record.values for record in read_records(path, encoding)]


def write(tmp_path: Path, name: str, content: str | bytes) -> Path:
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_the_delimiter_is_found(delimiter: str, end: str, tmp_path: Path) -> None:
    lines = [[*ROWS[0]], *([f'"{value}"' for value in row.values()] for row in [ROWS[0]] * 3)]
    text = end.join(delimiter.join(line) for line in lines)
    for name in ("t.csv", "t.tsv"):
        assert read(write(tmp_path, name, text)) == [ROWS[0]] * 3


def test_a_decimal_comma_and_texts_with_commas_keep_the_semicolon(tmp_path: Path) -> None:
    text = "file;word;rating\na.wav;grün, blau;1,5\nb.wav;rot, gelb;2,5\n"
    assert read(write(tmp_path, "t.csv", text))[0] == ROWS[0]
    text = "file,word\na.wav,sad;angry;bored\nb.wav,sad\n"
    assert read(write(tmp_path, "t.csv", text))[0] == {"file": "a.wav", "word": "sad;angry;bored"}
    assert read(write(tmp_path, "t.csv", "file\na.wav\nb.wav\n")) == [{"file": "a.wav"}, {"file": "b.wav"}]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252", "latin-1"])
@pytest.mark.parametrize("name", ["t.csv", "t.tsv", "t.json", "t.jsonl"])
def test_encodings(encoding: str, name: str, tmp_path: Path) -> None:
    rows = [{"file": "a.wav", "word": "größer"}, {"file": "b.wav", "word": "über"}]
    text = {
        ".csv": "file,word\na.wav,größer\nb.wav,über\n",
        ".tsv": "file\tword\na.wav\tgrößer\nb.wav\tüber\n",
        ".json": json.dumps(rows, ensure_ascii=False),
        ".jsonl": "\n".join(json.dumps(row, ensure_ascii=False) for row in rows),
    }[Path(name).suffix]
    path = write(tmp_path, name, text.encode(encoding))
    if encoding.startswith("utf"):
        assert read(path) == rows
        return
    with pytest.raises(
        ValueError, match=rf"{name}: line [12] is not UTF-8 text \(byte 0xf6\); .*encoding: cp1252"
    ):
        read(path)
    assert read(path, encoding) == rows


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-8"])
def test_a_mark_is_no_part_of_the_first_name_though_the_encoding_is_given(
    encoding: str, tmp_path: Path
) -> None:
    path = write(tmp_path, "t.csv", "\ufefffile,word\na.wav,\u00fcber\n".encode(encoding))
    assert read(path, encoding) == [{"file": "a.wav", "word": "\u00fcber"}]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("delimiter", [";", ",", "\t"])
def test_the_delimiter_that_excel_states(delimiter: str, end: str, tmp_path: Path) -> None:
    lines = [f"sep={delimiter}", f"file{delimiter}word", f'a.wav{delimiter}"x;y,z"', f"b.wav{delimiter}z"]
    records = read_records(write(tmp_path, "t.csv", end.join(lines)))
    assert [(list(record.values.values()), record.line) for record in records] == [
        (["a.wav", "x;y,z"], 3), (["b.wav", "z"], 4)
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["t.csv", "t.xlsx"])
def test_blank_rows_are_none(name: str, tmp_path: Path) -> None:
    rows = [["", "", ""], ["file", "word", "n"], ["a.wav", "sad", "1"], ["", " ", ""], ["b.wav", "ok", "2"]]
    rows += [["", "", ""]] * 30
    path = tmp_path / name
    if name == "t.xlsx":
        pytest.importorskip("openpyxl")
        pd.DataFrame(rows).to_excel(path, index=False, header=False)
    else:
        path.write_text("".join(";".join(cells) + "\n" for cells in rows))
    assert [(record.values["file"], record.line) for record in read_records(path)] == [
        ("a.wav", 3), ("b.wav", 5)
    ]  # fmt: skip


def test_a_hundred_thousand_columns_are_read_in_no_time_and_not_all_listed(tmp_path: Path) -> None:
    table = {"file": dict.fromkeys(map(str, range(100_000)), "a.wav")}
    path = write(tmp_path, "t.json", json.dumps(table))
    assert len(read(path)) == 100_000
    path = write(tmp_path, "t.json", json.dumps({str(n): {"file": "a"} for n in range(100_000)}))
    with pytest.raises(
        ValueError, match=r"no column 'file' .*; the columns are 0, 1, .*, 19, \.\.\. \(100000 in"
    ):
        read_table(path, tmp_path, {"path": "file"})


def test_quotes_of_a_tsv_are_text_where_they_do_not_quote(tmp_path: Path) -> None:
    """As in Common Voice, whose sentences may open a quote in one line and close it in another."""
    lines = [
        "path\tsentence\tage",
        'a.mp3\t"Come in\t',
        'b.mp3\tshe said."\t',
        'c.mp3\t"Yes" and "no"\tteens',
    ]
    assert read(write(tmp_path, "t.tsv", "\n".join(lines) + "\n")) == [
        {"path": "a.mp3", "sentence": '"Come in', "age": ""},
        {"path": "b.mp3", "sentence": 'she said."', "age": ""},
        {"path": "c.mp3", "sentence": '"Yes" and "no"', "age": "teens"},
    ]
    saved = pd.DataFrame({"path": ["a", "b"], "sentence": ['he said "hi"', "two\nlines"]})
    saved.to_csv(tmp_path / "p.tsv", sep="\t", index=False)
    assert read(tmp_path / "p.tsv") == saved.to_dict("records")
    saved.iloc[:1].to_csv(tmp_path / "p.tsv", sep="\t", index=False)
    assert read(tmp_path / "p.tsv") == saved.to_dict("records")[:1]


@pytest.mark.parametrize("orient", ["records", "columns", "index"])
def test_json_as_pandas_writes_it(orient: str, tmp_path: Path) -> None:
    frame = pd.DataFrame(ROWS, index=["x", "y"])
    frame.to_json(tmp_path / "t.json", orient=orient)  # type: ignore[call-overload]
    if orient == "index":  # of rows by name, which looks like columns: their names are the rows'
        assert list(read(tmp_path / "t.json")[0]) == ["x", "y"]
    else:
        assert read(tmp_path / "t.json") == ROWS


def test_json_lines_in_a_json(tmp_path: Path) -> None:
    pd.DataFrame(ROWS).to_json(tmp_path / "t.json", orient="records", lines=True)
    assert read(tmp_path / "t.json") == ROWS


def test_names_of_columns_lose_their_blanks_and_those_without_are_left_out(tmp_path: Path) -> None:
    pd.DataFrame(ROWS, index=[7, 3]).to_csv(tmp_path / "t.csv")  # an index has no name
    assert read(tmp_path / "t.csv") == ROWS
    path = write(tmp_path, "u.csv", ' file , "wo\u0308rd",\nsad/a.wav, "x, y",\n')
    assert read(path) == [{"file": "sad/a.wav", "w\u00f6rd": "x, y"}]
    [row] = read_table(path, tmp_path, {"path": "file ", "word": "wo\u0308rd"}).rows
    assert row["word"] == "x, y"


def test_excel_without_its_package_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    with pytest.raises(
        ValueError, match=r"t\.xlsx: a table of Excel needs openpyxl, .*`pip install 'stillwave\[excel\]'"
    ):
        read(write(tmp_path, "t.xlsx", "any"))


def test_the_first_sheet_of_excel(tmp_path: Path) -> None:
    pytest.importorskip("openpyxl")
    frame = pd.DataFrame({"file": ["a.wav", "b.wav"], "word": ["grün", None], "number": [1, 2]})
    frame.to_excel(tmp_path / "t.xlsx", index=False)
    rows = read_table(tmp_path / "t.xlsx", tmp_path, {"path": "file", "word": "word", "n": "number"}).rows
    assert [(row["word"], row["n"]) for row in rows] == [("grün", "1"), (None, "2")]
    with pytest.raises(ValueError, match=r"u\.xlsx: not an Excel file"):
        read(write(tmp_path, "u.xlsx", "no"))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.csv", "a,b,a\n1,2,3\n", r"t\.csv: the header names the column 'a' twice"),
        ("t.csv", "a,b, a \n1,2,3\n", "the header names the column 'a' twice"),
        ("t.csv", 'a,b\n1,"x\ny"\n\n2,"z\n3,4\n', "line 5 is not CSV: unexpected end of data"),
        (
            "t.tsv", 'a\tb\tc\n1\t"x\t2\n3\ty\n4\tz\t5\n',
            r"line 2 is not CSV: unexpected end of data\. If quotes .*: line 3 has 2 cells, and the header 3",
        ),
        ("t.csv", 'a,b\n1,"x\ny"\n\n2,3,4\n', "line 5 has more fields than the header"),
        ("t.csv", b"a,b\n1,x\n2,\xfc\n", r"line 3 is not UTF-8 text \(byte 0xfc\)"),
        ("t.jsonl", '{"a": 1}\n\n{"a": 1, "a": 2}', "line 3: an object names 'a' twice"),
        ("t.jsonl", '{"a": 1}\n{"a": oops}', "line 2 is not JSON: Expecting value$"),
        ("t.jsonl", '{"a": 1}\n{"a": "x\\u0000"}', r"t\.jsonl: line 2, column 'a' holds '\\x00', which is"),
        ("t.json", '[{"a": "x\\ud800y"}]', r"t\.json: element 1, column 'a' holds '\\ud800', which is not"),
        ("t.jsonl", '{"a": 1, " a": 2}', "line 1 names the column 'a' twice"),
        ("t.json", '[{"a": 1}, {"a": 1, "a": 2}]', r"t\.json: an object names 'a' twice"),
        ("t.json", '[{"a": 1},\n{"a": oops}]', "line 2 is not JSON"),
        ("t.json", '{"a": 1}', "holds no list of objects"),
        ("t.json", '[{"a": 1}, 2]', "element 2 is not an object"),
        ("t.csv", "a,b\n1,2\n".encode("utf-16-le"), "holds NUL characters; .*`encoding: utf-16-le`"),
        ("t.txt", "a,b", r"cannot read '\.txt'; use \.csv, \.tsv"),
    ],
)  # fmt: skip
def test_a_table_that_would_be_read_wrong_is_refused(
    name: str, content: str | bytes, message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        read(write(tmp_path, name, content))


def test_a_cell_that_holds_several_values_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, "t.json", '[{"file": "a.wav", "word": ["sad", "angry"], "more": [1]}]')
    with pytest.raises(
        ValueError, match=r"row 1, column 'word': \['sad', 'angry'\] is not one value; give each row one"
    ):
        read_table(path, tmp_path, {"path": "file", "word": "word"})
    assert len(read_table(path, tmp_path, {"path": "file"}).rows) == 1


def test_a_damaged_parquet_is_named(tmp_path: Path) -> None:
    pd.DataFrame(ROWS * 50).to_parquet(tmp_path / "t.parquet")
    good = (tmp_path / "t.parquet").read_bytes()
    path = write(tmp_path, "t.parquet", good[:20] + b"\xff" * 40 + good[60:])
    with pytest.raises(ValueError, match=r"t\.parquet: not a Parquet file, or damaged"):
        read(path)
