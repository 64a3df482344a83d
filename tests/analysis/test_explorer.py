"""The explorer's page as it is written; what a browser makes of it: test_explorer_page.py."""

import base64
import hashlib
import html.parser
import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import soundfile

from stillwave.analysis import recordings
from stillwave.analysis.explorer import write_explorer
from stillwave.analysis.recordings import Recording
from stillwave.pipeline.audio.segments import Span
from tests.analysis.folders import rows_of, write_analysis
from tests.fakes import write_wave


class Elements(html.parser.HTMLParser):
    """The elements of a page, with their attributes, and the text of its scripts."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.inside = ""
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.inside = tag
        self.found.append((tag, dict(attrs)))
        if tag == "script":
            self.scripts.append((dict(attrs), ""))

    def handle_endtag(self, tag: str) -> None:
        self.inside = ""

    def handle_data(self, data: str) -> None:
        if self.inside == "script":
            attributes, text = self.scripts[-1]
            self.scripts[-1] = (attributes, text + data)


def data_of(page: Path) -> dict[str, Any]:
    for attributes, text in Elements(page.read_text()).scripts:
        if attributes.get("id") == "data":
            found: dict[str, Any] = json.loads(text)
            return found
    raise AssertionError("no data in the page")


def test_the_same_folders_give_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    pages = []
    for _ in range(2):
        write_explorer([folder / "one", folder / "two"], tmp_path / "page.html")
        pages.append((tmp_path / "page.html").read_bytes())
        (tmp_path / "page.html").unlink()
    assert pages[0] == pages[1]


def test_a_page_asks_for_nothing_and_runs_only_its_own_scripts(folder: Path, tmp_path: Path) -> None:
    write_explorer([folder / "one"], tmp_path / "page.html")
    page = Elements((tmp_path / "page.html").read_text())
    for tag, attributes in page.found:
        for name in ("src", "href", "srcset", "action", "data"):
            value = attributes.get(name) or ""
            assert value.startswith(("#", "data:")) or not value, (tag, name, value)
        assert not [name for name in attributes if name.startswith("on")]
    (policy,) = (a["content"] or "" for t, a in page.found if t == "meta" and "http-equiv" in a)
    assert policy.startswith("default-src 'none'; ")
    scripts = [text for attributes, text in page.scripts if attributes.get("type") != "application/json"]
    allowed = re.findall(r"'sha256-([^']+)'", policy)
    assert allowed == [base64.b64encode(hashlib.sha256(s.encode()).digest()).decode() for s in scripts]
    assert "unsafe-inline" not in policy.split("style-src")[0]


def test_columns_in_common_are_kept_once_and_classes_in_their_order(folder: Path, tmp_path: Path) -> None:
    write_analysis(tmp_path / "three", rows_of(folder), classes=["sad", "calm", "loud"], seed=4)
    write_explorer([folder / "one", tmp_path / "three"], tmp_path / "page.html", audio="none")
    data = data_of(tmp_path / "page.html")
    first, second = (embedding["columns"] for embedding in data["embeddings"])
    assert first["id"] == second["id"]
    assert first["pca_x"] != second["pca_x"]
    assert first["label"] != second["label"]
    labels = data["columns"][second["label"]]
    assert labels["names"] == ["sad", "calm", "loud"]
    assert np.frombuffer(base64.b64decode(labels["codes"]), "<i4")[:4].tolist() == [1, 2, 0, 1]
    assert data["columns"][first["label"]]["names"] == ["calm", "loud", "sad"]


def test_missing_values_and_noise_have_names_of_their_own(tmp_path: Path) -> None:
    rows = pd.DataFrame(
        {"id": list("abcd"), "label": ["x", "x", "y", "y"], "speaker": ["s", None, "t", None]}
    )
    rows["correct"] = pd.Series([True, False, None, None], dtype=object)
    rows["predicted"] = ["class 10", "class 9", "x", "class 10"]
    folder = write_analysis(tmp_path / "one", rows, k=2)
    table = pd.read_parquet(folder / "rows.parquet").assign(hdbscan=[1, -1, 0, 0], fold=[0, 1, 2, 0])
    table["entropy"] = [0.5, np.nan, 0.25, 1]
    table.to_parquet(folder / "rows.parquet")
    write_explorer([folder], tmp_path / "page.html")
    data = data_of(tmp_path / "page.html")

    def column(name: str) -> tuple[Any, list[float]]:
        found = data["columns"][data["embeddings"][0]["columns"][name]]
        kind = "<i4" if found["kind"] == "text" else "<f4"
        values = np.frombuffer(base64.b64decode(found.get("codes") or found["values"]), kind)
        return found.get("names", found["kind"]), values.tolist()

    assert column("speaker") == (["s", "t"], [0, -1, 1, -1])
    # the label's classes first, with their codes there, then others
    assert column("label") == (["x", "y"], [0, 0, 1, 1])
    assert column("predicted") == (["x", "y", "class 9", "class 10"], [3, 2, 0, 3])
    assert column("correct") == (["correct", "wrong"], [0, 1, -1, -1])
    assert column("hdbscan") == (["cluster 0", "cluster 1", "noise"], [1, 2, 0, 0])
    assert column("fold") == ("whole", [0, 1, 2, 0])
    assert column("entropy")[1][::2] == [0.5, 0.25]
    assert np.isnan(column("entropy")[1][1])


def test_names_are_text_even_where_they_are_numbers(tmp_path: Path) -> None:
    rows = pd.DataFrame({"id": [3, 1, 2], "label": [True, False, True], "speaker": [7.0, np.nan, 10.0]})
    folder = write_analysis(tmp_path / "one", rows, k=2, classes=["False", "True"])
    write_explorer([folder], tmp_path / "page.html")
    data = data_of(tmp_path / "page.html")
    found = {name: data["columns"][place] for name, place in data["embeddings"][0]["columns"].items()}
    wanted = {"id": ["1", "2", "3"], "label": ["False", "True"], "speaker": ["7", "10"]}
    assert {name: (found[name]["kind"], found[name]["names"]) for name in wanted} == {
        name: ("text", names) for name, names in wanted.items()
    }
    assert np.frombuffer(base64.b64decode(found["speaker"]["codes"]), "<i4").tolist() == [0, -1, 1]


def test_a_lone_folder_is_called_by_its_store_and_several_by_their_own_names(tmp_path: Path) -> None:
    rows = pd.DataFrame({"id": list("abc"), "label": list("xxy")})
    an = write_analysis(tmp_path / "an", rows, k=2, store="s3://bucket/embeddings/fbank.zarr/")
    two = write_analysis(tmp_path / "two", rows, k=2, store="data/embeddings/fbank.zarr")
    nameless = write_analysis(tmp_path / "nameless", rows, k=2, store="")
    names = {}
    for folders in ([an], [nameless], [an, two]):
        write_explorer(folders, tmp_path / "page.html")
        names[len(names)] = [each["name"] for each in data_of(tmp_path / "page.html")["embeddings"]]
        assert f"explorer: {', '.join(names[len(names) - 1])}</title>" in (tmp_path / "page.html").read_text()
    assert list(names.values()) == [["fbank"], ["nameless"], ["an", "two"]]


def test_the_first_missing_recording_is_named(folder: Path, tmp_path: Path) -> None:
    (notice,) = write_explorer([folder / "two"], tmp_path / "page.html")
    assert notice.startswith("two: 38 of 60 recordings are not where the manifest says")
    assert f"{folder / 'wav' / 'clip #49 100%?.wav'} first: no sound; relative paths count from" in notice


def test_links_are_relative_encoded_and_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["javascript:alert(1)", "a#b?c%20.wav", "ü <b>.wav"]
    (tmp_path / "wav").mkdir()
    for name in names:
        (tmp_path / "wav" / name).write_bytes(b"sound")
    monkeypatch.chdir(tmp_path)
    paths = [*(f"wav/{name}" for name in names), "wav/gone.wav", "s3://bucket/a.wav", ""]
    found, missing = recordings.links([Recording(path) for path in paths], Path("reports/deep"))
    assert found == [
        "../../wav/javascript%3Aalert%281%29", "../../wav/a%23b%3Fc%2520.wav",
        "../../wav/%C3%BC%20%3Cb%3E.wav", None, None, None,
    ]  # fmt: skip
    assert missing == ["wav/gone.wav", "s3://bucket/a.wav"]
    first = [Recording(names[0])]
    assert recordings.links(first, tmp_path) == ([None], names[:1])
    monkeypatch.chdir(tmp_path / "wav")
    assert recordings.links(first, Path())[0] == ["javascript%3Aalert%281%29"]
    spans = [Recording(names[1], Span(1.5, 3.25)), Recording(names[1], Span(0.5))]
    assert recordings.links(spans, Path())[0] == ["a%23b%3Fc%2520.wav#t=1.5,3.25", "a%23b%3Fc%2520.wav#t=0.5"]


def test_embedded_recordings_are_the_recordings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_wave(tmp_path / "a.wav", 0.5, 200, seed=0, sample_rate=44_100)
    (tmp_path / "b.wav").write_text("no sound")
    names = [str(tmp_path / "a.wav"), str(tmp_path / "a.wav"), str(tmp_path / "b.wav"), ""]
    part = Recording(names[0], Span(0.1, 0.3))
    paths = [*map(Recording, names), part]
    clips, missing = recordings.embedded(paths, {})
    assert (list(clips), missing) == ([paths[0], part], [names[2]])
    assert soundfile.info(io.BytesIO(base64.b64decode(clips[part]))).frames == 3200
    samples, rate = soundfile.read(io.BytesIO(base64.b64decode(clips[paths[0]])))
    assert (rate, len(samples)) == (16_000, 8000)
    spectrum = np.abs(np.fft.rfft(samples))
    assert np.argmax(spectrum) == pytest.approx(200 * len(samples) / rate, abs=1)
    monkeypatch.setattr(recordings, "MAX_EMBEDDED_MB", 0.001)
    with pytest.raises(ValueError, match=r"more than 0.001 MB inside the page .* use --audio link"):
        recordings.embedded(paths, {})


def test_what_is_no_analysis_is_refused(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "page.html"
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"empty: not an analysis folder.*stillwave analyze"):
        write_explorer([tmp_path / "empty"], out)
    with pytest.raises(ValueError, match="audio is 'loud'; choose one of link, embed, none"):
        write_explorer([folder / "one"], out, audio="loud")
    with pytest.raises(ValueError, match="no analysis folders"):
        write_explorer([], out)
    broken = write_analysis(tmp_path / "broken", rows_of(folder))
    np.save(broken / "neighbours_cosine.npy", np.zeros((3, 10), np.int32))
    with pytest.raises(ValueError, match=r"neighbours_cosine.npy: shape \(3, 10\) for 60 rows"):
        write_explorer([broken], out)
    np.save(broken / "neighbours_cosine.npy", np.full((60, 10), 60, np.int32))
    with pytest.raises(ValueError, match=r"row numbers from 60 to 60, but there are 60 rows"):
        write_explorer([broken], out)
    facts = (broken / "analysis.json").read_text()
    (broken / "analysis.json").write_text(facts.replace("0.31", "NaN"))
    with pytest.raises(ValueError, match=r"broken: not a complete analysis: analysis.json: NaN is not JSON"):
        write_explorer([broken], out)
    (broken / "analysis.json").write_text(f"[{facts}]")
    with pytest.raises(ValueError, match=r"analysis.json: a list instead of an object"):
        write_explorer([broken], out)
    (broken / "analysis.json").write_text(facts)
    (broken / "rows.parquet").unlink()
    with pytest.raises(ValueError, match=r"broken: not a complete analysis: .*rows.parquet"):
        write_explorer([broken], out)
    assert not out.exists()
