"""Rows that are spans of files: as tables write them, what contradicts, and what leaks."""

import csv
import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from stillwave.pipeline.audio.segments import Span, content_of
from stillwave.pipeline.corpora.custom import Custom
from stillwave.pipeline.corpora.manifest import (
    ManifestError,
    check_manifest,
    contents,
    read_manifest,
    write_manifest,
)
from stillwave.pipeline.corpora.prepare import PrepareResult, prepare
from stillwave.pipeline.corpora.spans import read_span, sharing
from stillwave.pipeline.corpora.table import Table

COLUMNS = {"path": "file", "start": "start", "end": "end", "emotion": "emotion", "speaker": "speaker"}
RATE = 8000


@pytest.fixture(autouse=True)
def _files(tmp_path: Path) -> None:
    """Three files of four seconds."""
    (tmp_path / "wav").mkdir()
    for seed, name in enumerate(("a", "b", "c")):
        samples = 0.1 * np.random.default_rng(seed).standard_normal(4 * RATE)
        soundfile.write(tmp_path / f"wav/{name}.wav", samples, RATE)


def prepared(root: Path, lines: str, **fields: Any) -> PrepareResult:
    (root / "table.csv").write_text(lines)
    given = {"columns": COLUMNS, "split": {"kind": "kfold", "folds": 2}, "max_bad_fraction": 0.9} | fields
    config = Table.model_validate({"kind": "table", "table": "table.csv", **given})
    return prepare(config, root, root / "manifest.parquet")


def quarantine(root: Path) -> list[dict[str, str]]:
    with (root / "quarantine.csv").open(newline="") as file:
        return list(csv.DictReader(file))


SEGMENTS = """file,start,end,emotion,speaker
wav/a.wav,0 days 00:00:00.500000,0 days 00:00:01.250000,sad,ann
wav/a.wav,0 days 00:00:01.250000,NaT,calm,ann
wav/b.wav,0 days 00:00:00,0 days 00:00:02,sad,bob
wav/b.wav,0 days 00:00:02,,calm,bob
wav/c.wav,0 days,NaT,calm,bob
"""


def test_the_segmented_index_of_audformat_is_read_as_it_is(tmp_path: Path) -> None:
    result = prepared(tmp_path, SEGMENTS.replace("0 days,NaT", "0 days 00:00:00,NaT"))
    manifest = read_manifest(tmp_path / "manifest.parquet").set_index("id")
    assert manifest.index.tolist() == ["wav/a[0.5-1.25]", "wav/a[1.25-]", "wav/b[0-2]", "wav/b[2-]", "wav/c"]
    assert manifest["num_samples"].tolist() == [6000, 22_000, 16_000, 16_000, 32_000]
    assert manifest["duration_s"].tolist() == [0.75, 2.75, 2.0, 2.0, 4.0]
    assert manifest["start"].tolist()[:4] == [0.5, 1.25, 0.0, 2.0]
    assert manifest["end"].fillna(-1).tolist() == [1.25, -1, 2.0, -1, -1]
    assert manifest["start"].isna().tolist() == 4 * [False] + [True]
    assert manifest["sha256"].nunique() == 3
    assert result.rows == len(set(contents(manifest))) == 5
    assert contents(manifest)[4] == manifest["sha256"].iloc[4]
    table = pd.read_csv(tmp_path / "table.csv")
    for name in ("start", "end"):
        table[name] = pd.to_timedelta(table[name])
    table.to_parquet(tmp_path / "table.parquet")
    config = Table.model_validate(
        {
            "kind": "table",
            "table": "table.parquet",
            "columns": COLUMNS,
            "split": {"kind": "kfold", "folds": 2},
        }
    )
    prepare(config, tmp_path, tmp_path / "again.parquet")
    assert (tmp_path / "again.parquet").read_bytes() == (tmp_path / "manifest.parquet").read_bytes()


def test_a_manifest_has_spans_only_if_a_row_is_one(tmp_path: Path) -> None:
    lines = (
        "file,start,end,emotion,speaker\nwav/a.wav,,,sad,ann\nwav/b.wav,0,NaT,sad,bob\nwav/c.wav,,,sad,bob\n"
    )
    prepared(tmp_path, lines)
    without = (tmp_path / "manifest.parquet").read_bytes()
    columns = {name: theirs for name, theirs in COLUMNS.items() if name not in ("start", "end")}
    prepared(tmp_path, lines, columns=columns)
    assert (tmp_path / "manifest.parquet").read_bytes() == without
    assert "start" not in read_manifest(tmp_path / "manifest.parquet")


@pytest.mark.parametrize(
    ("cells", "span"),
    [
        (("1.5", "3"), Span(1.5, 3.0)),
        (("1,5", "3,25"), Span(1.5, 3.25)),
        (("", "3"), Span(0.0, 3.0)),
        (("NaT", "nan"), None),
        (("0", ""), None),
        (("0.0", "2"), Span(0.0, 2.0)),
        (("0 days 00:00:01.500000", "0 days 00:01:02.000000001"), Span(1.5, 62.000000001)),
        (("00:00:01.5", "1:00:00"), Span(1.5, 3600.0)),
        (("1 day, 0:00:01", "2 days 00:00:00"), Span(86_401.0, 172_800.0)),
        (("1e-3", "1e1"), Span(0.001, 10.0)),
        (("P0DT0H0M0.500S", "P1DT0H1M2,5S"), Span(0.5, 86_462.5)),
        (("PT0S", "PT1.5S"), Span(0.0, 1.5)),
    ],
)
def test_seconds_and_times(cells: tuple[str, str], span: Span | None) -> None:
    row = {"path": "a", "start": cells[0], "end": cells[1]}
    assert read_span(row) == span
    assert read_span(row) == span  # what it wrote, it reads
    assert [row["start"] is None, row["end"] is None] == [span is None, span is None or span.end is None]


@given(st.floats(0, 1e6), st.floats(1e-6, 1e6))
def test_every_span_keeps_its_value_through_the_row(start: float, duration: float) -> None:
    span = Span(start, start + duration)
    row = {"path": "a", "start": str(start), "end": str(start + duration)}
    assert read_span(row) == span == read_span(row)
    delta = datetime.timedelta(seconds=round(start, 6))
    assert read_span({"path": "a", "start": str(delta)}) == (
        Span(pytest.approx(delta.total_seconds(), abs=1e-9)) if delta else None
    )


@pytest.mark.parametrize(
    ("cells", "said"),
    [
        ("-1,2", "its `start` is '-1', before the file starts; give seconds from its start"),
        ("-1 days +23:59:59,2", "its `start` is '-1 days +23:59:59', before the file starts"),
        ("2,2", "its end, 2 s, is not after its start, 2 s; correct them"),
        ("3,1.5", "its end, 1.5 s, is not after its start, 3 s"),
        ("soon,2", "its `start` is 'soon'; give seconds, as 1.5, or a time, as 00:00:01.5"),
        ("-P0DT0H0M1S,2", "its `start` is '-P0DT0H0M1S', before the file starts"),
        ("P-1DT23H59M59S,2", "its `start` is 'P-1DT23H59M59S'; give seconds"),
        ("PT,2", "its `start` is 'PT'; give seconds"),
        ("1,1e999", "its `end` is '1e999'; give seconds"),
        ("1,00:61:00", "its `end` is '00:61:00'; give seconds"),
    ],
)
def test_a_span_that_cannot_be_is_quarantined_with_its_place(tmp_path: Path, cells: str, said: str) -> None:
    bad = f"wav/a.wav,{cells},sad,ann"
    prepared(tmp_path, SEGMENTS.replace("0 days,NaT", "0,NaT") + bad + "\n")
    (line,) = quarantine(tmp_path)
    assert (line["stage"], line["reason"], line["path"]) == ("import", "bad_span", "wav/a.wav")
    assert line["detail"].startswith(f"row 6 of {tmp_path / 'table.csv'} (line 7): {said}")


def test_a_span_behind_the_end_of_its_file_is_quarantined_with_the_lengths(tmp_path: Path) -> None:
    rows = "wav/a.wav,3.5,4.0004,sad,ann\nwav/a.wav,3,4.1,sad,ann\nwav/b.wav,1,2,sad,bob\n"
    prepared(tmp_path, "file,start,end,emotion,speaker\n" + rows)
    (line,) = quarantine(tmp_path)
    assert (line["id"], line["stage"], line["reason"]) == ("wav/a[3-4.1]", "decode", "bad_span")
    assert "from 3 s to 4.1 s, but the file is 4 s long" in line["detail"]
    manifest = read_manifest(tmp_path / "manifest.parquet").set_index("id")
    assert manifest.loc["wav/a[3.5-4.0004]", ["end", "num_samples"]].tolist() == [4.0, 4000]


@pytest.mark.parametrize("spans", [("1,2", "1.0,00:00:02"), (",", "0,NaT")])
def test_two_labels_for_one_span_are_an_error_that_names_both(tmp_path: Path, spans: tuple[str, str]) -> None:
    rows = f"wav/a.wav,{spans[0]},sad,ann\nwav/b.wav,1,2,sad,bob\nwav/a.wav,{spans[1]},happy,ann\n"
    lines = "file,start,end,emotion,speaker\n" + rows
    table, what = tmp_path / "table.csv", "from 1 s to 2 s" if spans[0] == "1,2" else ""
    with pytest.raises(ValueError, match="emotion: two labels for") as caught:
        prepared(tmp_path, lines)
    assert f"wav/a.wav{what and ' '}{what}: row 1 of {table} (line 2) says 'sad'" in str(caught.value)
    assert f"row 3 of {table} (line 4) says 'happy'; remove one" in str(caught.value)
    assert not (tmp_path / "manifest.parquet").exists()
    # a label that is not used contradicts, too; the same one, once it is mapped, is a repetition
    with pytest.raises(ValueError, match="emotion: two labels for"):
        prepared(tmp_path, lines, classes=["sad"])
    assert prepared(tmp_path, lines, labels={"happy": "sad"}).excluded == {"repeated row": 1}


@pytest.mark.parametrize(
    ("one", "other", "named"),
    [
        ("a.wav,,", "a.wav,0,4", ("'wav/a' (", "'wav/a[0-4]' (", "wav/a.wav from 0.0 s to 4.0 s)")),
        ("a.wav,0,1", "a.wav,0,1.00001", ("'wav/a[0-1]' (", "'wav/a[0-1.00001]' (")),
        ("a.wav,,", "copy.wav,,", ("wav/a.wav) says 'sad'", "wav/copy.wav) says 'happy'")),
        ("a.wav,1,2", "copy.wav,1,2", ("wav/a.wav from 1.0 s to 2.0 s", "wav/copy.wav from 1.0 s to 2.0 s")),
    ],
)  # fmt: skip
def test_two_labels_for_the_same_samples_are_an_error(
    tmp_path: Path, one: str, other: str, named: tuple[str, ...]
) -> None:
    (tmp_path / "wav/copy.wav").write_bytes((tmp_path / "wav/a.wav").read_bytes())
    rows = f"wav/{one},sad,ann\nwav/{other},happy,ann\nwav/b.wav,,,sad,bob\n"
    lines = "file,start,end,emotion,speaker\n" + rows
    with pytest.raises(ValueError, match="emotion: two labels for the same samples: ") as caught:
        prepared(tmp_path, lines)
    assert all(name in str(caught.value) for name in named)
    assert not (tmp_path / "manifest.parquet").exists()
    assert prepared(tmp_path, lines, labels={"happy": "sad"}).rows == 3


def test_a_text_may_have_two_labels(tmp_path: Path) -> None:
    lines = "name,file,emotion,text\n1,,sad,hello\n2,,happy,hello\n"
    columns = {"id": "name", "path": "file", "emotion": "emotion", "text": "text"}
    split = {"kind": "kfold", "folds": 2, "group": None}
    assert prepared(tmp_path, lines, columns=columns, split=split, text_rows=True).rows == 2


def test_two_labels_for_one_file_are_an_error_though_the_ids_differ(tmp_path: Path) -> None:
    lines = "name,file,emotion,speaker\n1,wav/a.wav,sad,ann\n2,wav/b.wav,sad,bob\n3,wav/a.wav,calm,ann\n"
    columns = {"id": "name", "path": "file", "emotion": "emotion", "speaker": "speaker"}
    with pytest.raises(ValueError, match=r"wav/a.wav: row 1 of .* says 'sad', row 3 of .* says 'calm'"):
        prepared(tmp_path, lines, columns=columns)
    assert prepared(tmp_path, lines.replace("calm", "sad"), columns=columns).excluded == {"repeated row": 1}


def test_a_row_of_text_alone_has_no_span(tmp_path: Path) -> None:
    lines = (
        "name,file,start,end,emotion,text\n1,,0,1,sad,hello\n2,,,,sad,hi\n3,wav/a.wav,,,sad,ho\n"
        "4,wav/b.wav,0,1,sad,ho\n"
    )
    columns = {name: name for name in ("start", "end", "emotion", "text")} | {"id": "name", "path": "file"}
    split = {"kind": "kfold", "folds": 2, "group": None}
    result = prepared(tmp_path, lines, columns=columns, split=split, text_rows=True)
    assert (result.rows, result.quarantined) == (3, {"bad_span": 1})
    (line,) = quarantine(tmp_path)
    assert line["id"] == "1"
    assert line["detail"].endswith("(line 2): a row of text alone has no span; leave `start` and `end` empty")


def test_rows_without_a_label_are_counted_whatever_else_is_wrong_with_them(tmp_path: Path) -> None:
    rows = ["wav/a.wav,1,2,sad,ann", "wav/b.wav,1,2,sad,bob", "wav/b.wav,2,1,,bob", ",,,,bob", ",,,sad,bob"]
    result = prepared(tmp_path, "\n".join(["file,start,end,emotion,speaker", *rows]))
    assert (result.rows, result.excluded, result.quarantined) == (2, {"no label": 2}, {"no_path": 1})


def test_spans_that_are_not_mapped_are_told(tmp_path: Path) -> None:
    columns = {name: theirs for name, theirs in COLUMNS.items() if name not in ("start", "end")}
    lines = "file,start,end,emotion,speaker\nwav/a.wav,1,2,sad,ann\nwav/b.wav,0,1,calm,bob\n"
    (said,) = prepared(tmp_path, lines, columns=columns).warnings
    assert "has columns `start` and `end`, but rows are read as whole files" in said
    assert prepared(tmp_path, lines).warnings == ()


def test_rows_of_one_file_may_overlap(tmp_path: Path) -> None:
    rows = "wav/a.wav,0,2,sad,ann\nwav/a.wav,1,3,calm,ann\nwav/a.wav,,,calm,ann\nwav/b.wav,0,1,sad,bob\n"
    assert prepared(tmp_path, "file,start,end,emotion,speaker\n" + rows).rows == 4


def test_ids_keep_the_suffix_of_files_with_one_stem(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "wav/a.flac", 0.1 * np.ones(RATE), RATE)
    rows = "wav/a.wav,0,2,sad,ann\nwav/a.flac,0.5,0.75,sad,ann\nwav/b.wav,1,2,sad,bob\n"
    prepared(tmp_path, "file,start,end,emotion,speaker\n" + rows)
    ids = read_manifest(tmp_path / "manifest.parquet")["id"].tolist()
    assert ids == ["wav/a.flac[0.5-0.75]", "wav/a.wav[0-2]", "wav/b[1-2]"]


def test_overlapping_spans_on_two_sides_are_a_leak(tmp_path: Path) -> None:
    def lines(second: str) -> str:
        rows = ["a.wav,0,2,train", f"a.wav,{second},test", "b.wav,0,2,train", "c.wav,,,test"]
        return "\n".join(["file,start,end,side", *(f"wav/{row},sad" for row in rows)]).replace(
            "side", "side,emotion"
        )

    columns = {"path": "file", "start": "start", "end": "end", "split": "side", "emotion": "emotion"}
    split: dict[str, Any] = {"kind": "predefined", "group": None}
    for second in ("1.9,3", "0,2.5", ",", "0,2"):
        found = lines(second) if second != "0,2" else lines("0,2").replace("a.wav,0,2,test", "d.wav,0,2,test")
        if second == "0,2":  # the same bytes under another name
            (tmp_path / "wav/d.wav").write_bytes((tmp_path / "wav/a.wav").read_bytes())
        with pytest.raises(
            ValueError, match=r"leaks 1 duplicated recording\(s\): wav/a.*overlap.*allow_leak"
        ):
            prepared(tmp_path, found, columns=columns, split=split)
    assert prepared(tmp_path, lines("2,3"), columns=columns, split=split).rows == 4
    with pytest.raises(ValueError, match=r"leaks 1 sha256 group"):
        prepared(tmp_path, lines("2,3"), columns=columns, split={**split, "group": "sha256"})
    assert prepared(tmp_path, lines("1,3"), columns=columns, split={**split, "allow_leak": True}).rows == 4


@given(
    st.lists(
        st.tuples(st.sampled_from("ab"), st.integers(0, 20), st.one_of(st.none(), st.integers(1, 8))),
        min_size=1, max_size=12,
    )
)  # fmt: skip
def test_sharing_is_the_closure_of_overlaps(rows: list[tuple[str, int, int | None]]) -> None:
    table = pd.DataFrame(
        [
            {"id": str(i), "path": key, "sha256": key, "start": float(start), "sample_rate": 10,
             "end": None if length is None else float(start + length)}
            for i, (key, start, length) in enumerate(rows)
        ]
    )  # fmt: skip
    names = [str(i) for i in range(len(rows))]
    for _ in rows:  # the slow way: names spread over every overlapping pair until nothing changes
        for i, (one, start, length) in enumerate(rows):
            for j, (other, begin, span) in enumerate(rows):
                before = begin + (1000 if span is None else span) > start
                if one == other and before and start + (1000 if length is None else length) > begin:
                    names[i] = names[j] = min(names[i], names[j], key=int)
    assert sharing(table) == names


def test_the_code_of_a_corpus_may_give_spans(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "spans_of_mine.py").write_text(
        "from stillwave.pipeline.corpora.base import Imported\n\n\n"
        "def rows(root, end):\n"
        "    row = {'id': 'x', 'path': f'{root}/wav/a.wav', 'emotion': 'sad', 'start': '1.5', 'end': end}\n"
        "    return Imported([row])\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    fields = {"kind": "custom", "class": "spans_of_mine:rows"}
    (row,) = Custom.model_validate({**fields, "end": "00:00:02"}).read(tmp_path).rows
    assert (row["start"], row["end"]) == ("1.5", "2")
    with pytest.raises(ValueError, match=r"row 1: its end, 1 s, is not after its start, 1.5 s"):
        Custom.model_validate({**fields, "end": "1"}).read(tmp_path)


def manifest(**changes: Any) -> pd.DataFrame:
    row = {
        "id": "x", "path": "a.wav", "sha256": "ab", "sample_rate": 8000, "num_samples": 4000,
        "duration_s": 0.5, "start": 1.5, "end": 2.0, "fold": 0,
    }  # fmt: skip
    return pd.DataFrame([row | {"id": "w", "start": None, "end": None}, row | changes])


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"start": -1.0}, "'x' has start -1, end 2; a span starts at 0 s or later"),
        ({"start": None}, "'x' has start nan, end 2; a span has a start"),
        ({"end": 1.5}, "'x' has start 1.5, end 1.5; a span ends after its start"),
        ({"end": 2.5}, "'x' has start 1.5, end 2.5; its num_samples are others; prepare it again"),
        ({"path": "", "text": "hi"}, "'x' has start 1.5, end 2; a row of text alone has no span"),
        ({"start": "1.5 s"}, "column 'start' holds '1.5 s'; it should hold seconds"),
    ],
)
def test_a_manifest_with_wrong_spans_is_refused(changes: dict[str, Any], said: str) -> None:
    check_manifest(manifest(), "m")
    check_manifest(manifest(end=None), "m")
    with pytest.raises(ManifestError, match=f"m: {said}"):
        check_manifest(manifest(**changes), "m")


def test_a_manifest_with_spans_comes_back_as_it_was_also_from_pandas(tmp_path: Path) -> None:
    frame = manifest()
    write_manifest(frame, tmp_path / "m.parquet")
    found = read_manifest(tmp_path / "m.parquet")
    pd.testing.assert_frame_equal(found[["start", "end"]], frame[["start", "end"]].astype(float))
    found[::-1].to_parquet(tmp_path / "edited.parquet")
    pd.testing.assert_frame_equal(read_manifest(tmp_path / "edited.parquet"), found)
    assert contents(found) == ["ab", content_of(frame.iloc[1].to_dict())]
