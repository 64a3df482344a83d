"""The page about a corpus: its numbers against counts by hand, odd corpora, clips, and in a real browser."""

import base64
import io
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import soundfile

from stillwave.analysis import corpus
from stillwave.analysis.corpus import clips, label_of, read_quarantine, render, write_corpus
from stillwave.analysis.corpus_facts import corpus_facts
from stillwave.analysis.corpus_leaks import leaks
from stillwave.pipeline.cli import main
from stillwave.pipeline.corpora.manifest import read_manifest, write_manifest
from stillwave.pipeline.corpora.prepare import prepare
from stillwave.pipeline.corpora.quarantine import Quarantined, quarantine_csv
from tests.analysis.html_page import Page
from tests.fakes import speech_config, write_speech, write_wave

EVIL = "<script>alert(1)</script>"
LEAKS = "Tested rows that share something with rows to train on"
LEFT_OUT = "Rows left out for a fold, as they share a value with its test rows"


def manifest_of(count: int = 12, **columns: Any) -> pd.DataFrame:
    """Rows of 1 s at 16 kHz, with a fold of 0 to 2 in turn unless a column says otherwise; None drops one."""
    ids = [f"r{i:03d}" for i in range(count)]
    fixed = {
        "id": ids,
        "path": [f"wav/{name}.wav" for name in ids],
        "sha256": ids,
        "sample_rate": 16_000,
        "num_samples": 16_000,
        "duration_s": 1.0,
        "emotion": [("calm", "loud")[i % 2] for i in range(count)],
        "fold": [i % 3 for i in range(count)],
    }
    return pd.DataFrame({name: values for name, values in (fixed | columns).items() if values is not None})


def page_of(manifest: pd.DataFrame, quarantined: list[Quarantined] | None = None, **options: Any) -> Page:
    return Page(render(manifest, quarantined, **options))


@pytest.fixture(scope="module")
def speech(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Clips of two words by six speakers, prepared."""
    return write_speech(tmp_path_factory.mktemp("corpus"))


def test_classes_speakers_and_languages_are_counted() -> None:
    found = page_of(
        manifest_of(
            duration_s=[60.0] * 6 + [120.0] * 6,
            speaker=["s2", "s10"] * 3 + ["s2"] * 5 + [None],
            language=["de"] * 4 + ["en"] * 8,
        )
    )
    said = {row[0]: row[1] for row in found.tables["What the manifest holds"]}
    assert (said["rows"], said["audio"], said["speakers"]) == ("12", "18.0 min in 12 recordings", "2")
    assert said["classes"] == "2, column emotion"
    assert found.tables["Each class"] == [
        ["emotion", "rows", "share", "audio", "median", "speakers"],
        ["calm", "6", "50.0 %", "9.0 min", "90.00 s", "1"],
        ["loud", "6", "50.0 %", "9.0 min", "90.00 s", "2"],
    ]
    assert found.tables["Rows by speaker and class"] == [
        ["speaker", "calm", "loud", "all"],
        ["s2", "6", "2", "8"],
        ["s10", "0", "3", "3"],
        ["no speaker", "0", "1", "1"],
    ]
    assert found.tables["Rows by class and language"] == [
        ["emotion", "de", "en", "all"],
        ["calm", "2", "4", "6"],
        ["loud", "2", "4", "6"],
    ]
    assert found.tables["A speaker has"][1:] == [
        ["rows", "3", "5.5", "8"],
        ["audio", "3.0 min", "8.0 min", "13.0 min"],
        ["classes", "1", "1.5", "2"],
    ]
    assert "1 (8.3 %) of the rows have no speaker" in found.text
    columns = {row[0]: row[1:] for row in found.tables["The corpus's own columns"]}
    assert columns["language"] == ["2", "0", "en (8)"]
    assert columns["speaker"] == ["2", "1 (8.3 %)", "s2 (8)"]


def test_durations_and_sample_rates_are_counted() -> None:
    seconds = [0.05, 0.15, 0.15] + [0.25] * 197 + [9.0]
    found = page_of(manifest_of(201, duration_s=seconds, sample_rate=[8_000] * 100 + [44_100] * 101))
    figure = [attributes for tag, attributes in found.elements if tag == "rect"]
    says = re.findall(r"[\d.]+ s (?:to [\d.]+ s|and longer): \d+", found.text)
    assert len(figure) == len(says) == 26 + 1  # of 0.01 s up to the 99th percentile, and one for the rest
    assert [one for one in says if not one.endswith(": 0")] == [
        "0.05 s to 0.06 s: 1", "0.15 s to 0.16 s: 2", "0.25 s to 0.26 s: 197", "0.26 s and longer: 1",
    ]  # fmt: skip
    assert max(float(str(one["height"])) for one in figure) == 160
    durations = dict(found.tables["Duration of a recording"])
    assert (durations["shortest"], durations["median"], durations["longest"]) == (
        "0.05 s",
        "0.25 s",
        "9.00 s",
    )
    assert found.tables["Sample rates"][1:] == [
        ["8,000 Hz", "100", "24.60 s"],
        ["44,100 Hz", "101", "34.00 s"],
    ]


def test_what_folds_share_is_counted_and_named() -> None:
    found = page_of(
        manifest_of(
            speaker=["a", "b", "c"] * 3 + ["a", "b", "a"],  # a: one row of fold 2
            text=["same", "same", "same"] + [f"text {i}" for i in range(8)] + [None],
            sha256=[f"r{i}" for i in range(11)] + ["r0"],
        )
    )
    assert found.tables["Rows by class, of each part"][1:] == [
        ["fold 0", "2", "2", "4"],
        ["fold 1", "2", "2", "4"],
        ["fold 2", "2", "2", "4"],
    ]
    # speaker a has 4 rows in fold 0 and one in fold 2, c none elsewhere
    assert found.tables[LEAKS] == [
        ["part", "tested rows", "speaker", "text", "recording"],
        ["all", "12", "5 (41.7 %)", "3 (25.0 %)", "2 (16.7 %)"],
        ["fold 0", "4", "4 (100.0 %)", "1 (25.0 %)", "1 (25.0 %)"],
        ["fold 1", "4", "0", "1 (25.0 %)", "0"],
        ["fold 2", "4", "1 (25.0 %)", "1 (25.0 %)", "1 (25.0 %)"],
    ]
    assert found.tables["The most frequent of what is shared"][1:] == [
        ["speaker a", "fold 0: 4, fold 2: 1"],
        ["text same", "fold 0: 1, fold 1: 1, fold 2: 1"],
        ["recording r000", "fold 0: 1, fold 2: 1"],
    ]
    assert "3 (25.0 %) of the tested rows share their text with rows to train on" in found.text
    assert "1 of the recordings repeat another, byte for byte" in found.text


def test_test_rows_of_a_split_are_new_to_training_and_to_validation() -> None:
    sides = ["train"] * 6 + ["valid"] * 3 + ["test"] * 3
    speakers = ["a"] * 6 + ["a", "b", "b"] + ["a", "b", "c"]
    split = manifest_of(fold=None, split=sides, speaker=speakers, session=["x"] * 12)
    found = page_of(split, group="session")
    assert found.tables[LEAKS] == [
        ["part", "tested rows", "session", "speaker", "recording"],
        ["all", "6", "6 (100.0 %)", "3 (50.0 %)", "0"],
        ["valid", "3", "3 (100.0 %)", "1 (33.3 %)", "0"],
        ["test", "3", "3 (100.0 %)", "2 (66.7 %)", "0"],
    ]
    assert [row[0] for row in found.tables["Rows by class, of each part"][1:]] == ["train", "valid", "test"]


def test_rows_left_out_are_counted_and_leak_nothing() -> None:
    spelled = {
        "speaker": ["a", "b", "c"] * 4,
        "text": ["one", "One ", "ONE"] + [f"text {i}" for i in range(9)],
    }
    leaking = page_of(manifest_of(**spelled))
    assert leaking.tables[LEAKS][1] == ["all", "12", "0", "3 (25.0 %)", "0"]
    assert leaking.tables["The most frequent of what is shared"][1:] == [
        ["text one", "fold 0: 1, fold 1: 1, fold 2: 1"]
    ]
    assert LEFT_OUT not in leaking.tables
    found = page_of(manifest_of(**spelled, withheld=["1 2", "0 2", "0 1"] + [None] * 9))
    assert found.tables[LEAKS][1] == ["all", "12", "0", "0", "0"]
    assert "The most frequent of what is shared" not in found.tables
    assert found.tables[LEFT_OUT] == [
        ["fold", "test rows", "rows to train on", "left out"],
        *([f"fold {fold}", "4", "6", "2 (25.0 %)"] for fold in range(3)),
    ]
    assert "all other folds, less the rows left out for it." in found.text
    assert "withheld" not in {row[0] for row in found.tables["The corpus's own columns"]}

    sides = ["train"] * 6 + ["valid"] * 3 + ["test"] * 3
    texts = ["x"] + [f"text {i}" for i in range(5)] + ["x", "y", "z"] + ["X", "w", "v"]
    out = ["0"] + [None] * 5 + ["0"] + [None] * 5
    split = page_of(manifest_of(fold=None, split=sides, text=texts, withheld=out))
    assert split.tables[LEFT_OUT][1:] == [["test", "3", "5", "2 (28.6 %)"]]
    assert split.tables[LEAKS][1:] == [
        ["all", "5", "0", "0"], ["valid", "2", "0", "0"], ["test", "3", "0", "0"],
    ]  # fmt: skip


def test_a_split_without_leaks_says_so() -> None:
    found = page_of(manifest_of(speaker=["a", "b", "c"] * 4))
    assert found.tables[LEAKS][1] == ["all", "12", "0", "0"]
    assert "The most frequent of what is shared" not in found.tables
    assert "Worth a look" not in found.text


def test_many_speakers_classes_and_folds_are_added_up() -> None:
    count = 800
    found = page_of(
        manifest_of(
            count,
            speaker=[f"s{i % 200}" for i in range(count - 1)] + ["s0"],
            emotion=[f"e{i % 25}" for i in range(count)],
            fold=[i % 200 for i in range(count)],
        )
    )
    head, *lines = found.tables["Rows by speaker and class"]
    assert len(lines) == 41
    assert lines[-1][0] == "160 others"
    assert (lines[0][0], lines[0][-1]) == ("s0", "5")
    assert len(head) == 1 + 16 + 1 + 1
    assert head[-2:] == ["9 others", "all"]
    assert sum(int(line[-1]) for line in lines) == count
    assert sum(int(cell) for line in lines for cell in line[1:-1]) == count
    assert len(found.tables["Each class"]) == 1 + 25
    assert len(found.tables["Rows by class, of each part"]) == 1 + 41
    parts = found.tables[LEAKS]
    assert (parts[1][:3], len(parts)) == (["all", "800", "5 (0.6 %)"], 2 + 40)
    assert "160 more parts are in the sum alone" in found.text


def test_one_class_without_speakers_and_rows_of_text_alone() -> None:
    plain = page_of(manifest_of(emotion=["calm"] * 12))
    assert plain.tables["Each class"][1][:3] == ["calm", "12", "100.0 %"]
    assert not {"A speaker has", "Rows by speaker and class"} & plain.tables.keys()
    assert plain.tables[LEAKS][0] == ["part", "tested rows", "recording"]
    silent: dict[str, Any] = {"path": "", "sample_rate": 0, "num_samples": 0, "duration_s": 0.0}
    texts = page_of(manifest_of(**silent, text=["a", "a", *"bcdefghijk"], speaker=["x", "y", "z"] * 4))
    said = {row[0]: row[1] for row in texts.tables["What the manifest holds"]}
    assert (said["audio"], said["rows of text alone"]) == ("none", "12")
    assert texts.tables["Each class"][0] == ["emotion", "rows", "share", "speakers"]
    assert texts.tables[LEAKS][1] == ["all", "12", "0", "2 (16.7 %)"]
    assert not {tag for tag, _ in texts.elements} & {"svg", "audio"}
    bare = page_of(manifest_of(emotion=None))
    assert ["classes", "no column may be the label"] in bare.tables["What the manifest holds"]
    assert bare.tables["Each class"][1][:2] == ["all rows", "12"]


def test_notes_are_counted_if_there_are_any() -> None:
    assert "Notes" not in page_of(manifest_of()).text
    notes = [None, "clipping", "silent mix; clipping", "clipping"] + [None] * 8
    assert page_of(manifest_of(note=notes)).tables["What was noted on recordings"][1:] == [
        ["clipping", "3 (25.0 %)", "r001"],
        ["silent mix", "1 (8.3 %)", "r002"],
    ]
    assert "No recording has a note." in page_of(manifest_of(note=[None] * 12)).text


def test_quarantine_is_counted_by_reason(tmp_path: Path) -> None:
    lines = [
        Quarantined("a", "a.wav", "decode", "truncated", "9 samples promised, 4 decoded"),
        Quarantined("b", "b.wav", "decode", "empty", "b.wav: 0 bytes"),
        Quarantined("c", "c.wav", "decode", "truncated", "another"),
    ]
    write_manifest(manifest_of(), tmp_path / "m.parquet")
    assert "There is no quarantine.csv" in Page(Path(write_corpus(tmp_path / "m.parquet")).read_text()).text
    (tmp_path / "quarantine.csv").write_bytes(quarantine_csv([]))
    assert "Nothing was left out" in Page(Path(write_corpus(tmp_path / "m.parquet")).read_text()).text
    (tmp_path / "quarantine.csv").write_bytes(quarantine_csv(lines))
    found = Page(Path(write_corpus(tmp_path / "m.parquet")).read_text())
    assert found.tables["Files and rows left out as unusable, by reason"][1:] == [
        ["truncated", "2", "decode", "a.wav", "9 samples promised, 4 decoded"],
        ["empty", "1", "decode", "b.wav", "b.wav: 0 bytes"],
    ]
    assert ["quarantined", "3"] in found.tables["What the manifest holds"]
    (tmp_path / "quarantine.csv").write_text("name,why\n")
    with pytest.raises(ValueError, match=r"quarantine.csv: no column detail, .*run it again, or delete"):
        write_corpus(tmp_path / "m.parquet")
    assert read_quarantine(str(tmp_path / "none.csv")) is None


def test_clips_are_of_every_class_first_short_and_whole(tmp_path: Path) -> None:
    classes = [*["a"] * 20, *["b"] * 5, "c"]
    paths = [str(tmp_path / f"{i}.wav") for i in range(len(classes))]
    for i, path in enumerate(paths):
        write_wave(Path(path), 0.2 + i / 100, 200, seed=i, sample_rate=8_000)
    rows = manifest_of(26, emotion=classes, path=paths, sha256=[f"{7 * i % 26:02d}" for i in range(26)])
    found = clips(rows, "emotion")
    assert len(found) == 10
    assert [clip["label"] for clip in found] == ["a", "b", "c", "a", "b", "a", "b", "a", "b", "a"]
    assert [clip["id"] for clip in found[:2]] == ["r000", "r023"]  # the smallest sha256 of each class
    numbers = [int(clip["id"][1:]) for clip in found]
    for number, clip in zip(numbers, found, strict=True):
        samples, rate = soundfile.read(io.BytesIO(base64.b64decode(clip["audio"])))
        assert (len(samples), rate) == (round((0.2 + number / 100) * 8_000) * 2, 16_000)
    assert found == clips(rows.sample(frac=1, random_state=0), "emotion")
    long = rows.assign(duration_s=[corpus.LONGEST_CLIP_S + 0.1] * 25 + [1.0])
    assert [clip["label"] for clip in clips(long, "emotion")] == ["c"]
    assert "No recording is as short as 8 s" in page_of(rows.assign(duration_s=9.0)).text


def test_recordings_that_are_not_there_are_named_and_the_rest_is_shown() -> None:
    found = page_of(manifest_of())
    assert found.text.count("Not where the manifest says") == 10
    assert "audio" not in {tag for tag, _ in found.elements}


def test_names_are_shown_and_not_run() -> None:
    evil = manifest_of(
        speaker=[EVIL, '" onload="x'] * 6, emotion=[EVIL, "b"] * 6, text=[EVIL] * 12, note=[EVIL] * 12
    )
    found = page_of(evil, [Quarantined(EVIL, EVIL, "import", EVIL, EVIL)])
    assert "script" not in {tag for tag, _ in found.elements}
    assert not any(name.startswith("on") for _, attributes in found.elements for name in attributes)
    assert EVIL in {row[0] for row in found.tables["Rows by speaker and class"]}
    assert EVIL in {row[0] for row in found.tables["What was noted on recordings"]}


def test_every_table_has_a_caption_and_the_page_needs_no_other_file(speech: Path, tmp_path: Path) -> None:
    html = Path(write_corpus(speech / "manifest.parquet", tmp_path / "page.html")).read_text()
    found = Page(html)
    count = Counter(tag for tag, _ in found.elements)
    assert count["table"] == count["caption"] == len(found.tables) > 8
    assert all(one.get("scope") in ("col", "row") for tag, one in found.elements if tag == "th")
    assert count["audio"] == 10
    assert all(one["aria-label"] for tag, one in found.elements if tag in ("audio", "svg", "nav"))
    ids = Counter(found.attributes("id"))
    assert max(ids.values()) == 1
    assert {target.removeprefix("#") for target in found.attributes("href")} <= ids.keys()
    assert all(source.startswith("data:audio/flac;base64,") for source in found.attributes("src"))
    assert not count.keys() & {"script", "link", "iframe"}
    assert "url(" not in html


def test_prepare_and_corpus_write_the_same_page(
    speech: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "tones.yaml"
    fields = speech_config().model_dump_json()
    config.write_text(fields)
    out = tmp_path / "data/manifest.parquet"
    words = ["prepare", "--corpus", str(config), "--root", str(speech), "--out", str(out)]
    monkeypatch.setattr("sys.argv", ["stillwave", *words])
    with pytest.raises(SystemExit) as stop:
        main()
    assert not stop.value.code
    assert f"look at {tmp_path / 'data/corpus.html'}" in capfd.readouterr().err.replace("\n", "")
    prepared = (tmp_path / "data/corpus.html").read_bytes()
    prepare(speech_config(), speech, tmp_path / "again/manifest.parquet")
    assert out.read_bytes() == (tmp_path / "again/manifest.parquet").read_bytes()
    monkeypatch.setattr("sys.argv", ["stillwave", "corpus", str(tmp_path / "again/manifest.parquet")])
    with pytest.raises(SystemExit) as stop:
        main()
    assert not stop.value.code
    assert (tmp_path / "again/corpus.html").read_bytes() == prepared
    assert "again/corpus.html: open it in a browser" in capfd.readouterr().out


def test_the_label_is_the_usual_column_or_the_first_and_errors_say_what_there_is(tmp_path: Path) -> None:
    rows = manifest_of(emotion=None, channel=["studio"] * 12, take=["1", "2"] * 6, accent=["x", "y"] * 6)
    assert label_of(rows, None) == "take"
    assert label_of(rows, "channel") == "channel"
    assert label_of(rows.assign(word="one"), None) == "word"
    assert label_of(rows[["id", "path", "channel"]], None) == "channel"
    with pytest.raises(ValueError, match="label 'mood' is not a label of the manifest; it has channel, take"):
        label_of(rows, "mood")
    with pytest.raises(ValueError, match=r"is a folder; --out names a file.*corpus.html"):
        write_corpus(tmp_path / "m.parquet", tmp_path)
    with pytest.raises(ValueError, match="no such manifest"):
        write_corpus(tmp_path / "m.parquet")


def test_a_manifest_at_a_url_has_its_page_beside_it(speech: Path) -> None:
    url = "memory://corpus-page/manifest.parquet"
    write_manifest(read_manifest(speech / "manifest.parquet"), url)
    assert write_corpus(url) == "memory://corpus-page/corpus.html"


def contrast(driver: Any, selector: str) -> float:
    """The smallest contrast (WCAG 2) of text with what is behind it, over the elements of a selector."""
    found: float = driver.execute_script(
        """
        const canvas = Object.assign(document.createElement("canvas"), { width: 1, height: 1 });
        const draw = canvas.getContext("2d", { willReadFrequently: true });
        const light = (...colours) => {
          for (const colour of colours) { draw.fillStyle = colour; draw.fillRect(0, 0, 1, 1); }
          const [r, g, b] = [...draw.getImageData(0, 0, 1, 1).data].map(value => {
            const part = value / 255;
            return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
          });
          return 0.2126 * r + 0.7152 * g + 0.0722 * b + 0.05;
        };
        const paper = getComputedStyle(document.body).backgroundColor;
        return Math.min(...[...document.querySelectorAll(arguments[0])].map(element => {
          const { color, backgroundColor } = getComputedStyle(element);
          const [ink, behind] = [light(color), light(paper, backgroundColor)];
          return Math.max(ink, behind) / Math.min(ink, behind);
        }));
        """,
        selector,
    )
    return found


@pytest.mark.browser
@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [400, 1200])
def test_it_is_read_and_heard_in_a_browser(
    chromium: Any, speech: Path, tmp_path: Path, dark: bool, width: int
) -> None:
    rows = read_manifest(speech / "manifest.parquet")
    rows["text"] = "a sentence that is so long that it needs a second line in its table"
    write_manifest(rows, tmp_path / "manifest.parquet")
    page = Path(write_corpus(tmp_path / "manifest.parquet"))
    scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
    chromium.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": scheme})
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    chromium.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    chromium.get_log("browser")
    chromium.get(page.as_uri())
    assert chromium.execute_script("return document.documentElement.scrollWidth") <= width
    wide = "return [...document.querySelectorAll('th, td')].filter(it => it.scrollWidth > it.clientWidth + 1)"
    assert chromium.execute_script(f"{wide}.map(it => it.innerText)") == []
    assert contrast(chromium, ".heat td, .heat th, caption, p, .words th") > 4.5
    shaded = chromium.execute_script(
        "return new Set([...document.querySelectorAll('#speakers .heat td:not(.sum)')].map("
        "cell => getComputedStyle(cell).backgroundColor)).size"
    )
    assert shaded == 1  # three rows of every speaker and class
    chromium.set_script_timeout(15)
    heard = chromium.execute_async_script(
        "const done = arguments[0], player = document.querySelector('audio');"
        "player.addEventListener('ended', () => done(player.duration));"
        "player.addEventListener('error', () => done(0)); player.playbackRate = 4; player.play();"
    )
    (first, *_) = clips(rows, "word")
    assert heard == pytest.approx(first["seconds"], abs=0.01)
    assert [entry for entry in chromium.get_log("browser") if entry["level"] != "INFO"] == []
    chromium.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_spans_are_clips_and_leaks_of_their_own(tmp_path: Path) -> None:
    write_wave(tmp_path / "a.wav", 4.0, 200, seed=0)
    row = {"path": str(tmp_path / "a.wav"), "sha256": "ab", "sample_rate": 16_000, "emotion": "sad"}
    spans = [(0.0, 1.0, 0), (1.0, 2.5, 1), (2.0, 3.0, 0), (3.0, 4.0, 1)]
    rows = pd.DataFrame(
        [
            {**row, "id": f"a[{start}-{end}]", "start": start, "end": end, "fold": fold,
             "duration_s": end - start, "num_samples": round(16_000 * (end - start))}
            for start, end, fold in spans
        ]
    )  # fmt: skip
    found = clips(rows, "emotion")
    assert sorted(clip["id"] for clip in found) == rows["id"].tolist()
    for clip in found:
        sound = soundfile.info(io.BytesIO(base64.b64decode(clip["audio"])))
        assert sound.frames / sound.samplerate == clip["seconds"]
    (recording,) = (leak for leak in leaks(rows) if leak.what == "recording")
    assert (recording.rows, recording.shared) == ({"fold 0": 1, "fold 1": 1}, 1)
    assert recording.examples == {"a[1.0-2.5]": {"fold 0": 1, "fold 1": 1}}
    assert corpus_facts(rows, "emotion")["copies"] == 0
