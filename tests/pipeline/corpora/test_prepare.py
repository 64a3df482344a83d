"""The stage as a whole: a corpus in, a manifest and a quarantine out, nothing dropped without a word."""

import base64
import csv
import hashlib
import re
import uuid
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import soundfile

from stillwave.analysis.corpus_facts import corpus_facts
from stillwave.pipeline.audio import sndfile
from stillwave.pipeline.audio.files import read_file
from stillwave.pipeline.audio.samples import Samples
from stillwave.pipeline.commands.console import Watch
from stillwave.pipeline.config.base import load_config, parse_config
from stillwave.pipeline.corpora import CorpusConfig
from stillwave.pipeline.corpora.leaks import Size
from stillwave.pipeline.corpora.manifest import read_manifest
from stillwave.pipeline.corpora.prepare import prepare
from tests.fakes import contents_digest
from tests.zoo import encode_av, tone

CONFIGS = Path(__file__).parents[3] / "configs" / "corpora"


def config(**fields: object) -> CorpusConfig:
    split = {"kind": "kfold", "folds": 2}
    speaker = r"(\w+)_\d+\.\w+$"
    parsed: CorpusConfig = parse_config(
        {"kind": "folder", "speaker": speaker, "split": split, **fields}, CorpusConfig, "test"
    )
    return parsed


def write_tone(path: Path, seed: int, seconds: float = 0.2, rate: int = 8000) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = 0.1 * np.random.default_rng(seed).standard_normal(round(seconds * rate))
    soundfile.write(path, samples.astype(np.float32), rate, subtype="PCM_16")


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """Twelve clips: labels happy, sad, bored; speakers ann, bob; two takes each."""
    root = tmp_path / "corpus"
    names = [
        (label, who, take) for label in ("happy", "sad", "bored") for who in ("ann", "bob") for take in (1, 2)
    ]
    for seed, (label, who, take) in enumerate(names):
        write_tone(root / label / f"{who}_{take}.wav", seed)
    return root


def quarantine(out: Path) -> list[dict[str, str]]:
    with (out.parent / "quarantine.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_manifest_says_what_the_files_say(corpus: Path, tmp_path: Path) -> None:
    out = tmp_path / "data" / "manifest.parquet"
    seen: list[tuple[int, int]] = []
    result = prepare(config(), corpus, out, progress=lambda done, total: seen.append((done, total)))
    frame = read_manifest(out, columns=["emotion", "speaker", "fold"])
    assert seen == [(number, 12) for number in range(1, 13)]
    assert frame["id"].tolist() == sorted(frame["id"])
    row = frame.set_index("id").loc["sad/bob_1"]
    assert (row["emotion"], row["speaker"], row["sample_rate"], row["num_samples"]) == (
        "sad",
        "bob",
        8000,
        1600,
    )
    assert row["duration_s"] == 0.2
    assert row["path"] == (corpus / "sad" / "bob_1.wav").as_posix()
    assert row["sha256"] == hashlib.sha256((corpus / "sad" / "bob_1.wav").read_bytes()).hexdigest()
    assert frame.groupby("speaker")["fold"].nunique().tolist() == [1, 1]
    assert (result.rows, result.speakers, result.quarantined, result.excluded) == (12, 2, {}, {})
    assert result.labels == {"bored": 4, "happy": 4, "sad": 4}
    assert result.hours == pytest.approx(12 * 0.2 / 3600)
    assert quarantine(out) == []


def test_a_relative_root_stays_relative(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    prepare(config(root="corpus"), None, Path("manifest.parquet"))
    assert read_manifest("manifest.parquet")["path"][0] == "corpus/bored/ann_1.wav"


def test_the_same_input_leaves_the_outputs_untouched(corpus: Path, tmp_path: Path) -> None:
    out = tmp_path / "manifest.parquet"
    files = out, tmp_path / "quarantine.csv"
    assert prepare(config(), corpus, out).changed
    before = [(file.read_bytes(), file.stat().st_mtime_ns) for file in files]
    assert not prepare(config(), corpus, out).changed
    assert [(file.read_bytes(), file.stat().st_mtime_ns) for file in files] == before
    write_tone(corpus / "sad" / "bob_1.wav", seed=99)
    assert prepare(config(), corpus, out).changed


def test_the_manifest_may_lie_at_a_url(corpus: Path, tmp_path: Path) -> None:
    url = f"memory://{uuid.uuid4().hex}/manifest.parquet"
    result = prepare(config(), corpus, url)
    prepare(config(), corpus, tmp_path / "manifest.parquet")
    assert read_file(url) == (tmp_path / "manifest.parquet").read_bytes()
    assert (result.manifest, result.quarantine) == (url, url.replace("manifest.parquet", "quarantine.csv"))
    assert read_file(result.quarantine) == (tmp_path / "quarantine.csv").read_bytes()
    assert not prepare(config(), corpus, url).changed


def test_classes_are_filtered_and_the_rest_is_counted(corpus: Path, tmp_path: Path) -> None:
    out = tmp_path / "manifest.parquet"
    result = prepare(config(classes=["sad", "happy"]), corpus, out)
    assert result.excluded == {"bored": 4}
    assert set(read_manifest(out)["emotion"]) == {"sad", "happy"}
    with pytest.raises(ValueError, match=r"no row has emotion 'hapy'; the labels are bored, happy, sad"):
        prepare(config(classes=["sad", "hapy"]), corpus, out)


def test_each_unusable_file_is_quarantined_with_its_reason(corpus: Path, tmp_path: Path) -> None:
    folder = corpus / "sad"
    (folder / "ann_10.wav").write_bytes(b"")
    (folder / "ann_11.wav").write_bytes(b"not a sound")
    (folder / "ann_12.wav").write_bytes((folder / "ann_1.wav").read_bytes()[:-100])
    soundfile.write(folder / "ann_13.wav", np.full(800, np.nan, np.float32), 8000, subtype="FLOAT")
    soundfile.write(folder / "ann_14.wav", np.zeros(0, np.float32), 8000)
    write_tone(folder / "ann_15.wav", seed=50, seconds=0.01)
    write_tone(folder / "ann_16.wav", seed=51, seconds=2.0)
    (folder / "ann_17.wav").symlink_to(folder / "gone")
    write_tone(folder / "nameless.wav", seed=52)
    (folder / "notes.txt").write_text("ignored")
    limits = {"min_duration_s": 0.05, "max_duration_s": 1.0}

    out = tmp_path / "manifest.parquet"
    with pytest.raises(ValueError, match=r"9 of 21 rows are unusable \(1 empty.*max_bad_fraction = 10\.0%"):
        prepare(config(**limits, max_bad_fraction=0.1), corpus, out)
    assert not out.exists()
    expected = {
        "ann_10": ("decode", "empty"),
        "ann_11": ("decode", "not_audio"),
        "ann_12": ("decode", "truncated"),
        "ann_13": ("decode", "non_finite"),
        "ann_14": ("decode", "zero_length"),
        "ann_15": ("decode", "too_short"),
        "ann_16": ("decode", "too_long"),
        "ann_17": ("decode", "missing"),
        "nameless": ("import", "unrecognised_name"),
    }
    lines = quarantine(out)
    assert {line["id"]: (line["stage"], line["reason"]) for line in lines} == {
        f"sad/{name}": reason for name, reason in expected.items()
    }
    assert all(line["path"].startswith(corpus.as_posix()) and line["detail"] for line in lines)

    result = prepare(config(**limits, max_bad_fraction=0.5), corpus, out)
    assert result.rows == 12
    assert sum(result.quarantined.values()) == 9
    assert result.ignored == {".txt": 1}


def test_the_bound_itself_is_allowed_and_no_usable_file_never_is(corpus: Path, tmp_path: Path) -> None:
    for number in range(4):
        (corpus / "sad" / f"ann_{number + 20}.wav").write_bytes(b"")
    assert prepare(config(max_bad_fraction=0.25), corpus, tmp_path / "m.parquet").rows == 12
    for path in corpus.rglob("*.wav"):
        path.write_bytes(b"")
    with pytest.raises(
        ValueError, match=r"16 of 16 rows are unusable \(16 empty\).*quarantine\.csv lists them"
    ):
        prepare(config(max_bad_fraction=1.0), corpus, tmp_path / "m.parquet")


def test_a_split_by_an_unknown_speaker_is_refused(corpus: Path, tmp_path: Path) -> None:
    out = tmp_path / "m.parquet"
    with pytest.raises(ValueError, match=r"has no column 'speaker'; .*set split\.group: null"):
        prepare(config(speaker=None), corpus, out)
    rows_apart = {"kind": "kfold", "folds": 4, "group": None}
    assert prepare(config(speaker=None, split=rows_apart), corpus, out).speakers == 0
    assert read_manifest(out)["fold"].value_counts().tolist() == [3, 3, 3, 3]


def test_the_same_recording_on_both_sides_is_a_leak(corpus: Path, tmp_path: Path) -> None:
    twin = corpus / "happy" / "bob_9.wav"
    twin.write_bytes((corpus / "happy" / "ann_1.wav").read_bytes())
    with pytest.raises(
        ValueError, match=r"leaks 1 duplicated recording\(s\): happy/ann_1 \(.*allow_leak: true"
    ):
        prepare(config(), corpus, tmp_path / "m.parquet")
    split = {"kind": "kfold", "folds": 2, "allow_leak": True}
    assert prepare(config(split=split), corpus, tmp_path / "m.parquet").rows == 13


def table(corpus: Path, sides: Sequence[str]) -> dict[str, object]:
    files = sorted(corpus.rglob("*.wav"))
    lines = [
        f"{file.relative_to(corpus)},{file.parent.name},{file.stem[:3]},{side}"
        for file, side in zip(files, sides, strict=True)
    ]
    (corpus / "list.csv").write_text("\n".join(["file_path,word,speaker,side", *lines]))
    columns = {"path": "file_path", "word": "word", "speaker": "speaker", "side": "side"}
    return {"kind": "table", "table": "list.csv", "columns": columns, "label": "word"}


def test_a_predefined_split_that_leaks_speakers_is_refused_unless_asked_for(
    corpus: Path, tmp_path: Path
) -> None:
    fields = table(corpus, ["train", "test"] * 6)
    out = tmp_path / "m.parquet"
    split = {"kind": "predefined", "column": "side"}
    with pytest.raises(
        ValueError, match=r"leaks 2 speaker group\(s\): ann \(test: 3 rows, train: 3 rows\); bob"
    ):
        prepare(parse_config({**fields, "split": split}, CorpusConfig, "t"), corpus, out)
    prepare(parse_config({**fields, "split": {**split, "allow_leak": True}}, CorpusConfig, "t"), corpus, out)
    assert read_manifest(out)["split"].tolist() == ["train", "test"] * 6


def with_texts(corpus: Path, texts: Sequence[str]) -> dict[str, object]:
    """The corpus as a table with a text for each file: bored, happy, sad; of each ann, ann, bob, bob."""
    files = sorted(corpus.rglob("*.wav"))
    lines = [
        f"{file.relative_to(corpus)},{file.parent.name},{file.stem[:3]},{text}"
        for file, text in zip(files, texts, strict=True)
    ]
    (corpus / "list.csv").write_text("\n".join(["file_path,emotion,speaker,text", *lines]))
    columns = {"path": "file_path", "emotion": "emotion", "speaker": "speaker", "text": "text"}
    return {"kind": "table", "table": "list.csv", "columns": columns}


def test_sentences_on_both_sides_are_told_and_may_be_left_out(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # bob's first sentence in each class is ann's, too
    fields = with_texts(corpus, [f"{label} {take}" for label in "bhs" for take in ("1", "2", " 1", "3")])
    out = tmp_path / "m.parquet"
    by_speaker: dict[str, object] = {"kind": "kfold", "folds": 2}
    result = prepare(parse_config({**fields, "split": by_speaker}, CorpusConfig, "t"), corpus, out)
    assert (result.leaks, result.folds) == ({"text": 6}, {})
    assert result.warnings == (
        "text: 6 of 12 test rows (50.0 %) have a text that rows to train on have, too, so scores may be too "
        "good for new texts; `split.group: text` splits by it, `split.disjoint: [speaker, text]` leaves out "
        "training rows that share any of them",
    )
    assert "withheld" not in read_manifest(out)

    both = {**by_speaker, "disjoint": ["speaker", "text"]}
    result = prepare(parse_config({**fields, "split": both}, CorpusConfig, "t"), corpus, out)
    assert (result.leaks, result.warnings) == ({}, ())
    assert result.folds == {0: Size(6, 3, 3), 1: Size(6, 3, 3)}
    Watch().prepared(result)
    assert capsys.readouterr().err.splitlines()[1:] == [
        f"prepare: fold {fold}: 6 test rows, 3 training rows, 3 left out" for fold in (0, 1)
    ]
    done = read_manifest(out)
    assert done["withheld"].isna().tolist() == [False, True] * 6
    assert (done["withheld"].dropna() == (1 - done["fold"])[::2].map(str)).all()

    split = {"kind": "kfold", "folds": 3, "group": "text"}
    by_text = prepare(parse_config({**fields, "split": split}, CorpusConfig, "t"), corpus, out)
    assert by_text.leaks == {"speaker": 12}
    assert [warning.partition(" have")[0] for warning in by_text.warnings] == [
        "speaker: 12 of 12 test rows (100.0 %)"
    ]
    folds = read_manifest(out)["fold"].tolist()
    assert (folds[::4], set(folds)) == (folds[2::4], {0, 1, 2})


def test_the_remedy_for_a_leak_keeps_the_corpuss_own_split(corpus: Path, tmp_path: Path) -> None:
    fields = with_texts(corpus, ["a", "b", "a", "c"] * 3)
    file = corpus / "list.csv"
    head, *lines = file.read_text().splitlines()
    sides = ["train", "train", "test", "test"] * 3
    file.write_text(
        "\n".join([f"{head},split", *(f"{line},{side}" for line, side in zip(lines, sides, strict=True))])
    )
    columns = {**fields["columns"], "split": "split"}  # type: ignore[dict-item]
    result = prepare(parse_config({**fields, "columns": columns}, CorpusConfig, "t"), corpus, tmp_path / "m")
    assert read_manifest(tmp_path / "m")["split"].tolist() == sides
    (told,) = result.warnings
    assert told.startswith("text: 3 of 6 test rows")
    assert "split.group: text" not in told
    assert "`split.disjoint: [speaker, text]` leaves out" in told


def test_predefined_names_and_folds(corpus: Path, tmp_path: Path) -> None:
    out = tmp_path / "m.parquet"
    fields = table(corpus, ["0", "0", "1", "1"] * 3)  # files are sorted: ann, ann, bob, bob
    names = {"kind": "predefined", "column": "side", "names": {"0": "train", "1": "test"}}
    prepare(parse_config({**fields, "split": names}, CorpusConfig, "t"), corpus, out)
    assert read_manifest(out)["split"].tolist() == ["train", "train", "test", "test"] * 3
    folds = {"kind": "predefined", "column": "side", "folds": True}
    prepare(parse_config({**fields, "split": folds}, CorpusConfig, "t"), corpus, out)
    assert read_manifest(out)["fold"].tolist() == [0, 0, 1, 1] * 3


def test_a_missing_root_says_where_to_give_it(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"corpus folder: its folder is not known; give --root DIR"):
        prepare(config(), None, tmp_path / "m.parquet")
    with pytest.raises(ValueError, match=r"nowhere: no such folder"):
        prepare(config(), tmp_path / "nowhere", tmp_path / "m.parquet")
    (tmp_path / "void").mkdir()
    with pytest.raises(ValueError, match=r"void: no audio files below it"):
        prepare(config(), tmp_path / "void", tmp_path / "m.parquet")


def test_files_that_differ_in_their_suffix_alone_keep_it_in_their_ids(corpus: Path, tmp_path: Path) -> None:
    write_tone(corpus / "sad" / "ann_1.flac", seed=53)
    out = tmp_path / "m.parquet"
    assert prepare(config(), corpus, out).rows == 13
    ids = read_manifest(out)["id"].tolist()
    assert {name for name in ids if "." in name} == {"sad/ann_1.flac", "sad/ann_1.wav"}


def test_folders_called_train_and_test_are_a_split(corpus: Path, tmp_path: Path) -> None:
    for side, who in (("Training", "ann"), ("test", "bob")):
        for label in ("happy", "sad", "bored"):
            folder = tmp_path / "sides" / side / label
            folder.mkdir(parents=True)
            for take in (1, 2):
                (corpus / label / f"{who}_{take}.wav").rename(folder / f"{who}_{take}.wav")
    out = tmp_path / "m.parquet"
    plain = parse_config({"kind": "folder"}, CorpusConfig, "t")
    assert prepare(plain, tmp_path / "sides", out).labels == {"bored": 4, "happy": 4, "sad": 4}
    rows = read_manifest(out).set_index("id")
    assert rows["split"].value_counts().to_dict() == {"test": 6, "train": 6}
    assert rows.loc["Training/sad/ann_2", ["emotion", "split"]].tolist() == ["sad", "train"]
    prepare(config(), tmp_path / "sides", out)  # another split, if the config asks for one
    assert read_manifest(out)["fold"].nunique() == 2
    write_tone(tmp_path / "sides" / "test" / "loose.wav", seed=99)
    assert prepare(plain.model_copy(update={"max_bad_fraction": 0.1}), tmp_path / "sides", out).rows == 12
    assert [(line["id"], line["reason"]) for line in quarantine(out)] == [("test/loose", "unrecognised_name")]
    write_tone(tmp_path / "sides" / "noise" / "x.wav", seed=98)  # which is no side, so the others are classes
    rows_apart = config(speaker=None, split={"kind": "kfold", "folds": 2, "group": None})
    result = prepare(rows_apart, tmp_path / "sides", out)
    assert result.labels == {"Training": 6, "noise": 1, "test": 7}
    assert result.warnings == (
        "emotion: Training, test seem to be the sides of a split, not classes; if they are classes, list "
        "them in `classes`",
    )


def test_a_single_class_is_told_above_all_if_it_is_a_side(tmp_path: Path) -> None:
    for seed, name in enumerate(("happy/a", "happy/b", "sad/a")):
        write_tone(tmp_path / f"data/train/{name}_1.wav", seed)
    rows = config(speaker=None, split={"kind": "kfold", "folds": 2, "group": None})
    told = {
        folder: prepare(rows, folder, tmp_path / "m.parquet").warnings
        for folder in (tmp_path, tmp_path / "data")
    }
    assert list(told.values()) == [
        (
            "emotion: all rows have 'data', so there is only one class; if the classes are the folders in "
            "it, set `root` to it",
        ),
        (
            "emotion: all rows have 'train', the name of a side of a split, so there is only one class; if "
            "the classes are the folders in it, set `root` to it",
        ),
    ]
    assert prepare(rows, tmp_path / "data/train", tmp_path / "m.parquet").warnings == ()


def labelled(corpus: Path, rows: Sequence[tuple[str, str]], **fields: object) -> CorpusConfig:
    """A table of (label, speaker) for the corpus's files, in their order."""
    files = sorted(corpus.rglob("*.wav"))[: len(rows)]
    lines = [f'{f.relative_to(corpus)},"{row[0]}","{row[1]}"' for f, row in zip(files, rows, strict=True)]
    (corpus / "list.csv").write_text("\n".join(["file_path,word,speaker", *lines]))
    columns = {"path": "file_path", "word": "word", "speaker": "speaker"}
    split = {"kind": "kfold", "folds": 2, "group": None}
    table = {"kind": "table", "table": "list.csv", "columns": columns, "label": "word", "split": split}
    parsed: CorpusConfig = parse_config({**table, **fields}, CorpusConfig, "t")
    return parsed


def test_blanks_and_forms_of_unicode_make_no_two_of_one(corpus: Path, tmp_path: Path) -> None:
    composed, apart = "J\u00fcrgen", "Ju\u0308rgen"
    rows = [("sad ", "anna"), ("sad", " anna "), ("gl\u00fccklich", composed), ("glu\u0308cklich", apart)] * 2
    out = tmp_path / "m.parquet"
    result = prepare(labelled(corpus, rows), corpus, out)
    assert result.labels == {"gl\u00fccklich": 4, "sad": 4}
    assert (sorted(set(read_manifest(out)["speaker"])), result.warnings) == (["J\u00fcrgen", "anna"], ())


def test_spellings_that_differ_in_case_are_told_and_can_be_mapped(corpus: Path, tmp_path: Path) -> None:
    rows = [("Angry", "anna"), ("angry", "Anna"), ("angry", "bob"), ("ok now", "bob"), ("ok  now", "bob")]
    result = prepare(labelled(corpus, rows), corpus, tmp_path / "m.parquet")
    assert [warning.partition(" differ")[0] for warning in result.warnings] == [
        "word: 'Angry' (1 rows) and 'angry' (2 rows)",
        "word: 'ok  now' (1 rows) and 'ok now' (1 rows)",
        "speaker: 'Anna' (1 rows) and 'anna' (1 rows)",
    ]
    labels = {"Angry": "angry", "ok  now": "fine", "ok now": "fine"}
    mapped = prepare(
        labelled(corpus, rows, labels=labels, classes=["angry", "fine"]), corpus, tmp_path / "m.parquet"
    )
    assert mapped.labels == {"angry": 3, "fine": 2}
    assert [warning[:7] for warning in mapped.warnings] == ["speaker"]
    with pytest.raises(ValueError, match=r"labels: no row has word 'Angri'; the labels are Angry, angry, ok"):
        prepare(labelled(corpus, rows, labels={"Angri": "angry"}), corpus, tmp_path / "m.parquet")


def test_missing_labels_and_repeated_rows_are_counted_but_not_unusable(corpus: Path, tmp_path: Path) -> None:
    rows = [("sad", "a"), ("nan", "a"), ("N/A", "a"), ("  ", "a"), ("", "a"), ("null", "a"), ("N/A", "a")]
    chosen = labelled(corpus, rows, max_bad_fraction=0.0)
    table = corpus / "list.csv"
    table.write_text(table.read_text() + "\n" + table.read_text().splitlines()[1])
    out = tmp_path / "m.parquet"
    result = prepare(chosen, corpus, out)
    assert (result.labels, result.quarantined) == ({"null": 1, "sad": 1}, {})
    assert result.excluded == {"no label": 5, "repeated row": 1}
    assert [warning.partition(",")[0] for warning in result.warnings] == [
        "word: 2 rows have 'N/A'", "word: 1 rows have 'nan'"
    ]  # fmt: skip
    wanted = chosen.model_copy(update={"classes": ["sad", "N/A"]})
    assert prepare(wanted, corpus, out).labels == {"N/A": 2, "sad": 1}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([f"{n / 4:g}" for n in range(1, 13)], r"12 distinct values are all numbers, from 0\.25 to 3,"),
        (["1,5", "2,5", "3"] * 4, "3 distinct values are all numbers, from 1.5 to 3"),
        (["sad", "angry", "sad;angry"] * 4, r"1 values seem to hold several .* 'sad;angry' \(4 rows"),
        (["sad|fear", "angry|fear", "ok"] * 4, r"2 values seem to hold several labels, such as 'sad\|fear'"),
        (["0", "1", "2", "7", "9", "10"] * 2, None),
        (["left", "right, then left again", "AC/DC"] * 4, None),
    ],
)  # fmt: skip
def test_labels_that_are_no_classes_are_told(
    values: list[str], message: str | None, corpus: Path, tmp_path: Path
) -> None:
    rows = [(value, "anna") for value in values]
    result = prepare(labelled(corpus, rows), corpus, tmp_path / "m.parquet")
    told = [re.search(message or "$^", text) for text in result.warnings]
    assert len(told) == (message is not None)
    assert all(told)
    chosen = labelled(corpus, rows, classes=sorted(set(values)))
    assert prepare(chosen, corpus, tmp_path / "m.parquet").warnings == ()


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_corpus_config_loads(path: Path) -> None:
    loaded: CorpusConfig = load_config(path, CorpusConfig)
    assert loaded.kind in (path.stem, "named", "table")


def test_what_phones_record_is_prepared_and_says_who_decoded_it(corpus: Path, tmp_path: Path) -> None:
    out = tmp_path / "m.parquet"
    prepare(config(), corpus, out)
    assert not {"decoder", "note"} & {*read_manifest(out)}
    (corpus / "sad" / "ann_3.m4a").write_bytes(encode_av(tone(0.5), "aac", "ipod"))
    streamed = bytearray((corpus / "sad" / "ann_1.wav").read_bytes())
    at = streamed.index(b"data") + 4
    streamed[at : at + 4] = bytes(4)
    (corpus / "sad" / "ann_4.wav").write_bytes(streamed + bytes(2))
    result = prepare(config(), corpus, out)
    assert (result.rows, result.ignored, result.quarantined) == (14, {}, {})
    assert result.noted == {"states no length that can be true: read to the end": 1}
    (note,) = read_manifest(out).set_index("id")["note"].dropna().items()
    assert note == ("sad/ann_4", "states no length that can be true: read to the end")
    decoders = read_manifest(out).set_index("id")["decoder"]
    assert decoders["sad/ann_3"] == "ffmpeg"
    assert decoders.drop("sad/ann_3").isna().all()


# WAV and FLAC of 48 and of 2 x 24 samples.
CLEAN = {
    "low/a_1.wav": (
        "UklGRoQAAABXQVZFZm10IBAAAAABAAEAQB8AAIA+AAACABAAZGF0YWAAAAAw+H4HKwfYBoUGMgbfBYwFOQXmBJMEQATtA5oD"
        "RwP0AqECTgL7AagBVQECAa8AXAAJALb/Y/8Q/73+av4X/sT9cf0e/cv8ePwl/NL7f/ss+9n6hvoz+uD5jfk6+ef4lPg="
    ),
    "low/b_1.flac": (
        "ZkxhQwAAACIQABAAAAAfAAAfAfQA8AAAADDGUmRGG4NPyUSCzJ79GQs3hAAAKCAAAAByZWZlcmVuY2UgbGliRkxBQyAxLjQu"
        "MyAyMDIzMDYyMwAAAAD/+GQIAC8uFPgwB38OgHQYAQAgAH4fh+H4fh+H4B+T"
    ),
    "high/a_2.flac": (
        "ZkxhQwAAACIQABAAAAAgAAAgAfQC8AAAABh+8pINsrR61dqmw1KGdE1MhAAAKCAAAAByZWZlcmVuY2UgbGliRkxBQyAxLjQu"
        "MyAyMDIzMDYyMwAAAAD/+GSYABcvEvhYB2PQoAA4cOHDhw4rB4ANvAD///xZyw=="
    ),
    "high/b_2.wav": (
        "UklGRoQAAABXQVZFZm10IBAAAAABAAIAQB8AAAB9AAAEABAAZGF0YWAAAAAw+IEHMQfhBpEGQQbxBaEFUQUBBbEEYQQRBMED"
        "cQMhA9ECgQIxAuEBkQFBAfEAoQBRAAEAsf9h/xH/wf5x/iH+0f2B/TH94fyR/EH88fuh+1H7Afux+mH6EfrB+XH5Ifk="
    ),
}


def test_the_manifest_of_wav_and_flac_never_changes(tmp_path: Path) -> None:
    """The digest is from before FFmpeg read anything, and before recordings had notes."""
    for name, data in CLEAN.items():
        (tmp_path / "c" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "c" / name).write_bytes(base64.b64decode(data))
    prepare(config(speaker=r"/(\w)_"), tmp_path / "c", tmp_path / "m.parquet")
    assert contents_digest(tmp_path / "m.parquet", tmp_path / "c") == "6782acc4676cee4a"


def test_several_notes_of_a_file_share_its_cell(corpus: Path, tmp_path: Path) -> None:
    loud = np.clip(3 * tone(0.5) + 0.3, -1, 1)
    soundfile.write(corpus / "sad" / "ann_1.wav", loud, 16_000, subtype="PCM_16")
    soundfile.write(corpus / "sad" / "ann_2.wav", np.zeros(99), 16_000, subtype="PCM_16")
    result = prepare(config(), corpus, tmp_path / "m.parquet")
    offset = "has a DC offset: the mean of its samples is beyond 0.05 of full scale"
    clipped, silent = "is clipped: samples stay at full scale", "is digital silence"
    assert result.noted == {offset: 1, clipped: 1, silent: 1}
    manifest = read_manifest(tmp_path / "m.parquet")
    page = corpus_facts(manifest, "emotion")
    assert page["notes"] == [
        (offset, 1, "sad/ann_1"), (clipped, 1, "sad/ann_1"), (silent, 1, "sad/ann_2")
    ]  # fmt: skip
    assert [column["name"] for column in page["columns"]] == ["emotion", "speaker"]
    notes = manifest.set_index("id")["note"]
    assert notes["sad/ann_1"] == f"{offset}; {clipped}"
    assert notes["sad/ann_2"] == silent
    assert notes.count() == 2


@pytest.mark.parametrize("fields", [{"label": "note"}, {"constants": {"note": "x", "decoder": "y"}}])
def test_a_measured_name_is_not_for_a_corpuss_own_column(
    corpus: Path, tmp_path: Path, fields: dict[str, object]
) -> None:
    with pytest.raises(ValueError, match=r"note: measured from the audio; give the corpus's column another"):
        prepare(config(**fields), corpus, tmp_path / "m.parquet")


def test_integers_stored_as_floats_are_quarantined(corpus: Path, tmp_path: Path) -> None:
    soundfile.write(corpus / "sad" / "ann_1.wav", 1e4 * tone(0.5), 16_000, subtype="FLOAT")
    out = tmp_path / "m.parquet"
    assert prepare(config(max_bad_fraction=0.2), corpus, out).quarantined == {"too_loud": 1}
    (line,) = quarantine(out)
    assert line["detail"].startswith("samples reach 5e+03, but full scale is 1; at most 100 is read: divide")


def test_whatever_a_decoder_raises_is_a_line_of_the_quarantine(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = sndfile.read

    def trip(data: bytes, samples: Samples) -> None:
        if hashlib.sha256(data).hexdigest() == broken:
            raise ValueError("array is too big")
        read(data, samples)

    broken = hashlib.sha256((corpus / "sad" / "ann_1.wav").read_bytes()).hexdigest()
    monkeypatch.setattr(sndfile, "read", trip)
    out = tmp_path / "m.parquet"
    assert prepare(config(max_bad_fraction=0.2), corpus, out).rows == 11
    (line,) = quarantine(out)
    assert line["path"] == (corpus / "sad" / "ann_1.wav").as_posix()
    assert (line["reason"], line["detail"]) == ("not_audio", "decoding failed: ValueError: array is too big")


def test_kinds_that_cannot_be_read_are_named_with_the_remedy(corpus: Path, tmp_path: Path) -> None:
    (corpus / "sad" / "ann_3.shn").write_bytes(b"ajkg\x02" + bytes(99))
    (corpus / "sad" / "ann_4.wav").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    out = tmp_path / "m.parquet"
    assert prepare(config(max_bad_fraction=0.2), corpus, out).quarantined == {"not_audio": 2}
    assert [line["detail"] for line in quarantine(out)] == [
        "Shorten (.shn): convert it to FLAC with the `shorten` or `shntool` program",
        "a Git LFS pointer: run `git lfs pull`",
    ]
