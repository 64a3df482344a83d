"""Drafts of small corpora: what is guessed, what is warned of, and that they load and run."""

import json
import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import yaml

from stillwave.pipeline.config.base import load_config, parse_config
from stillwave.pipeline.config.recipe import Recipe
from stillwave.pipeline.corpora import CorpusConfig
from stillwave.pipeline.corpora.draft import Draft, draft
from stillwave.pipeline.corpora.prepare import prepare
from tests.fakes import write_wave
from tests.pipeline.test_run import stillwave
from tests.zoo import encode_av, tone

Table = Callable[..., Path]


def corpus_of(found: Draft) -> dict[str, object]:
    """The drafted corpus as it parses, without what is at its default."""
    raw = yaml.safe_load(found.corpus)
    parse_config(raw, CorpusConfig, "corpus.yaml")
    parse_config(yaml.safe_load(found.recipe), Recipe, "recipe.yaml")
    return dict(raw)


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 clips in `clips/`, of no meaning."""
    folder = tmp_path_factory.mktemp("clips")
    for i in range(24):
        write_wave(folder / f"clips/{i:02d}.wav", 0.2, 100 + i, seed=i)
    return folder


@pytest.fixture
def table(clips: Path, tmp_path: Path) -> Table:
    """Writes a table of columns beside a copy of the clips: the folder."""

    def write(file: str = "list.csv", separator: str = ",", **columns: list[object]) -> Path:
        folder = shutil.copytree(clips, tmp_path / "corpus", dirs_exist_ok=True)
        lines = [list(columns), *zip(*columns.values(), strict=True)]
        (folder / file).write_text("\n".join(separator.join(map(str, line)) for line in lines) + "\n")
        return folder

    return write


PATHS: list[object] = [f"clips/{i:02d}.wav" for i in range(24)]
MOODS: list[object] = [("sad", "glad")[i % 2] for i in range(24)]
ACTORS: list[object] = [f"a{i // 2 % 6}" for i in range(24)]


def test_columns_by_name_and_content(table: Table) -> None:
    found = draft(
        table(
            "metadata.tsv",
            "\t",
            clip=PATHS,
            gender=["f", "m"] * 12,
            duration=[f"{i / 7:.2f}" for i in range(24)],
            Emotion=MOODS,
            Actor_ID=ACTORS,
            Sentence=["Ja."] * 24,
        )
    )
    corpus = corpus_of(found)
    assert corpus["table"] == "metadata.tsv"
    assert corpus["columns"] == {
        "path": "clip", "emotion": "Emotion", "speaker": "Actor_ID", "text": "Sentence"
    }  # fmt: skip
    assert corpus["label"] == "emotion"
    assert corpus["split"] == {"kind": "kfold", "folds": 5, "group": "speaker"}
    assert (found.classes, found.speakers, found.warnings) == ({"glad": 12, "sad": 12}, 6, [])
    assert yaml.safe_load(found.recipe)["label"] == "emotion"


def test_a_label_by_content_alone_and_by_request(table: Table) -> None:
    folder = table(path=PATHS, sex=["f", "m"] * 12, mood=MOODS, style=["a", "b", "c"] * 8)
    assert corpus_of(draft(folder))["label"] == "mood"
    found = draft(folder, label="style")
    assert corpus_of(found)["columns"] == {"path": "path", "style": "style"}
    assert "guessed" not in re.search(r"^label: .*", found.corpus, re.M)[0]  # type: ignore[index]
    with pytest.raises(
        ValueError, match=r"list.csv: no column 'tone'; the columns are path, sex, mood, style"
    ):
        draft(folder, label="tone")


def test_a_label_column_with_a_name_that_is_measured_is_renamed(table: Table) -> None:
    found = draft(table(path=PATHS, note=MOODS), label="note")
    assert corpus_of(found)["columns"] == {"path": "path", "label": "note"}


def test_paths_may_be_names_in_a_folder_below(table: Table) -> None:
    found = draft(table(name=[str(path)[6:] for path in PATHS], word=MOODS))
    corpus = corpus_of(found)
    assert str(corpus["root"]).endswith("corpus/clips")
    assert (corpus["table"], corpus["columns"]) == ("../list.csv", {"path": "name", "word": "word"})


def test_without_speakers_rows_are_held_out_with_a_warning(table: Table) -> None:
    found = draft(table(path=PATHS, label=MOODS))
    assert corpus_of(found)["split"] == {"kind": "holdout", "valid": 0.15, "test": 0.15, "group": None}
    assert found.warnings == [
        "speakers are not known: voices may be on both sides of the split, and scores look too good"
    ]


def test_a_split_that_the_table_brings(table: Table, tmp_path: Path) -> None:
    subset: list[object] = ["training"] * 16 + ["dev"] * 4 + ["test"] * 4
    speakers: list[object] = [f"s{i // 4}" for i in range(24)]
    found = draft(table(path=PATHS, label=MOODS, speaker=speakers, subset=subset))
    assert corpus_of(found)["split"] == {
        "kind": "predefined", "column": "split", "group": "speaker",
        "names": {"training": "train", "dev": "valid"},
    }  # fmt: skip
    assert found.warnings == []
    found = draft(table(path=PATHS, label=MOODS, speaker=["s1", "s2", "s3"] * 8, subset=subset))
    assert corpus_of(found)["split"]["allow_leak"] is True  # type: ignore[index]
    assert any("3 speakers are on several sides" in warning for warning in found.warnings)
    assert yaml.safe_load(found.recipe)["train"]["group"] is None  # or `train` would refuse the split
    found = draft(table(path=PATHS, label=MOODS, fold=[i % 3 for i in range(24)]))
    assert corpus_of(found)["split"] == {"kind": "predefined", "column": "fold", "group": None, "folds": True}
    manifest = prepare(
        parse_config(yaml.safe_load(found.corpus), CorpusConfig, "x"), None, tmp_path / "m.parquet"
    )
    assert manifest.rows == 24


def test_classes_that_a_part_of_the_split_could_not_train_are_left_out(table: Table) -> None:
    moods = MOODS.copy()
    moods[0] = moods[12] = "odd"  # of a0 alone
    found = draft(table(path=PATHS, label=moods, speaker=ACTORS))
    assert corpus_of(found)["classes"] == ["glad", "sad"]
    assert any(warning.endswith("no training rows of them: odd") for warning in found.warnings)
    with pytest.raises(ValueError, match=r"0 classes of 'label' have rows.*group speaker"):
        draft(table(path=PATHS, label=["x"] * 12 + ["y"] * 12, speaker=["s1"] * 12 + ["s2"] * 12))


def test_what_is_thin_or_missing_is_warned_of(table: Table, tmp_path: Path) -> None:
    folder = table(path=PATHS, label=["rare"] * 4 + MOODS[4:], speaker=["s1", "s1", "s2", "s2"] * 6)
    write_wave(folder / "clips/extra.wav", 0.2, 100, seed=0, sample_rate=8000)
    (folder / "clips/23.wav").unlink()
    write_wave(folder / "clips/00.wav", 0.05, 100, seed=0)
    text = "\n".join(draft(folder).warnings)
    for expected in (
        r"1 rows name a file that is missing, first .*clips/23.wav",
        r"1 audio files have no row, first .*clips/extra.wav",
        "classes with fewer than 10 rows: glad 9, rare 4",
        "classes with fewer than 3 speakers: glad 2, rare 2, sad 2",
        "sample rates differ .8000 Hz 1, 16000 Hz 23 of 24 files checked.: they may reveal",
        "1 of 24 files checked are shorter than 0.1 s",
    ):
        assert re.search(expected, text), (expected, text)
    assert corpus_of(draft(folder))["max_bad_fraction"] == 0.09


def test_a_folder_per_class(tmp_path: Path) -> None:
    for i in range(24):
        write_wave(tmp_path / f"corpus/wav/{MOODS[i]}/{ACTORS[i]}_{i}.wav", 0.2, 100, seed=i)
    found = draft(tmp_path / "corpus")
    corpus = corpus_of(found)
    assert str(corpus["root"]).endswith("corpus/wav")
    assert (corpus["kind"], corpus["label"]) == ("folder", "label")
    assert re.search(str(corpus["speaker"]), "sad/a3_17.wav")["speaker"] == "a3"  # type: ignore[index]
    assert (found.speakers, found.classes, found.warnings) == (6, {"glad": 12, "sad": 12}, [])


def test_folders_that_are_a_split(tmp_path: Path) -> None:
    for i in range(24):
        side = "train" if i < 16 else "test"
        write_wave(tmp_path / f"corpus/{side}/{MOODS[i]}/s{i // 4}_{i}.wav", 0.2, 100, seed=i)
    found = draft(tmp_path / "corpus")
    corpus = corpus_of(found)
    assert corpus["split"] == {"kind": "predefined", "column": "split", "group": "speaker"}
    assert "kind: folder  # one folder per class in test train\n" in found.corpus
    assert (found.speakers, found.classes, found.warnings) == (6, {"glad": 12, "sad": 12}, [])


def test_a_number_in_a_name_is_no_speaker(tmp_path: Path) -> None:
    for i in range(12):
        write_wave(tmp_path / f"{MOODS[i]}/{MOODS[i]}_{i}.wav", 0.2, 100, seed=i)
    assert "speaker" not in corpus_of(draft(tmp_path))


def test_what_cannot_be_drafted_says_why(table: Table, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"nowhere: no such folder"):
        draft(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"empty: no audio files below it"):
        draft(tmp_path / "empty")
    folder = table(path=PATHS, note=[f"n{i}" for i in range(24)])
    with pytest.raises(ValueError, match=r"list.csv: no column looks like labels.*path, note.*--label"):
        draft(folder)
    folder = table(path=["x.wav"] * 24, label=MOODS)
    with pytest.raises(
        ValueError, match=r"list.csv: no column names the files below .*such as 'clips/00.wav'"
    ):
        draft(folder, folder / "list.csv")
    with pytest.raises(ValueError, match=r"0 folders in .*/clips hold audio. .*stillwave init FOLDER TABLE"):
        draft(folder)


@pytest.mark.slow
def test_the_printed_command_runs(
    speech: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """From a folder, in which a manifest of ours lies, too, to a report."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my speech").symlink_to(speech)
    assert stillwave("init", "my speech") == 0
    printed = capsys.readouterr().out
    assert "from table.csv: 36 rows, word: high 18, low 18\n6 speakers; split: kfold\n" in printed
    assert load_config("corpus.yaml", CorpusConfig).columns["text"] == "text"
    command = shlex.split(printed.splitlines()[-1])
    assert command[:2] == ["stillwave", "run"]
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace("epochs: 60", "epochs: 6"))
    assert stillwave(*command[1:]) == 0
    assert json.loads((tmp_path / "runs/my speech/report/metrics.json").read_text())["uar"] > 0.8

    assert stillwave("init", "my speech") == 1
    assert "corpus.yaml, recipe.yaml: already exist; write elsewhere" in capsys.readouterr().err
    assert "epochs: 6\n" in recipe.read_text()
    assert stillwave("init", "my speech", "--force", "--label", "text") == 0
    assert "epochs: 60" in recipe.read_text()


def test_what_phones_record_is_looked_at_too(tmp_path: Path) -> None:
    for i in range(24):
        path = tmp_path / ("glad", "sad")[i % 2] / f"s{i // 2 % 6}_{i:02d}.m4a"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(encode_av(tone(0.3, hz=200 + 10 * i), "aac", "ipod", (16_000, 8_000)[i % 2]))
    (tmp_path / "sad" / "s5_23.m4a").write_bytes(b"\0\0\0\x18ftypM4A " + bytes(12))
    text = "\n".join(draft(tmp_path).warnings)
    assert "sample rates differ (8000 Hz 11, 16000 Hz 12 of 24 files checked)" in text
    assert f"1 of 24 files checked cannot be read, first {tmp_path / 'sad/s5_23.m4a'}" in text


def test_spans_are_found_by_name_and_checked_against_the_files(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    (tmp_path / "wav").mkdir()
    lines = []
    for number in range(8):
        soundfile.write(tmp_path / f"wav/{number}.wav", 0.1 * rng.standard_normal(60 * 8000), 8000)
        for part in range(6):
            lines.append(f"wav/{number}.wav,{10 * part},{10 * part + 8.5},{('sad', 'calm')[part % 2]}")
    lines += ["wav/0.wav,59,61,sad", "wav/1.wav,9,9,sad"]  # to be quarantined
    for names in ("start,end", "Start Time,End Time", "onset,offset", "start_s,end_s"):
        (tmp_path / "table.csv").write_text("\n".join([f"file,{names},emotion", *lines]))
        found = draft(tmp_path)
        config = parse_config(yaml.safe_load(found.corpus), CorpusConfig, "test")
        start, end = names.split(",")
        assert config.columns == {"path": "file", "start": start, "end": end, "emotion": "emotion"}
        assert config.max_duration_s == 30  # of rows, not of files
        assert (config.split.kind, config.split.group) == ("kfold", "path")
        assert any("rows of one file are kept together" in warning for warning in found.warnings)
        result = prepare(config, tmp_path, tmp_path / "out/manifest.parquet")
        assert (result.rows, result.quarantined) == (48, {"bad_span": 2})
    many = [
        f"wav/{i % 8}.wav,{1000 * (i // 8)},{1000 * (i // 8) + 900},{('sad', 'calm')[i // 8 % 2]}"
        for i in range(48)
    ]
    (tmp_path / "table.csv").write_text("\n".join(["file,start,end,emotion", *many]))
    with pytest.raises(ValueError, match="two labels for"):
        draft(tmp_path)  # of whole files, as milliseconds are no seconds
    single = [f"wav/{i}.wav,{1000 * i},{1000 * i + 900},{('sad', 'calm')[i % 2]}" for i in range(8)]
    (tmp_path / "table.csv").write_text("\n".join(["file,start,end,emotion", *single]))
    found = draft(tmp_path)
    assert "start" not in yaml.safe_load(found.corpus)["columns"]
    said = next(warning for warning in found.warnings if "are not used" in warning)
    assert said == (
        "columns 'start' and 'end' are not used, as they are not seconds of the files: wav/0.wav from 0 s to "
        "900 s, but the file is 60 s long"
    )
