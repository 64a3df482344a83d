"""Where an analysis may be written, and that nothing of anybody's is lost there."""

import json
from pathlib import Path

import pytest

from stillwave.analysis.folder import building


def write(part: Path, *names: str) -> None:
    for name in names:
        (part / name).write_text(name)
    (part / "analysis.json").write_text(json.dumps({"files": [*names, "analysis.json", "later.html"]}))


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_new_analysis_takes_the_place_of_the_old(tmp_path: Path) -> None:
    with building(tmp_path / "deep/out") as part:
        write(part, "a.png", "b.png")
    (tmp_path / "deep/out/later.html").write_text("by the explorer")
    (tmp_path / "deep/out/.hidden").write_text("of the desktop")
    with building(tmp_path / "deep/out") as part:
        write(part, "b.png", "c.png")
        assert (tmp_path / "deep/out/a.png").exists()
    assert files(tmp_path / "deep/out") == {"analysis.json", "b.png", "c.png", ".hidden"}
    assert files(tmp_path / "deep") == {"out"}


def test_a_file_that_no_analysis_made_stops_it_before_it_begins(tmp_path: Path) -> None:
    with building(tmp_path) as part:
        write(part, "a.png")
    (tmp_path / "notes.md").write_text("two days of notes")
    with (
        pytest.raises(ValueError, match=r"holds 1 files that are not from an analysis \(notes.md\)"),
        building(tmp_path),
    ):
        raise AssertionError("begun")
    assert files(tmp_path) == {"analysis.json", "a.png", "notes.md"}
    (tmp_path / "analysis.json").write_text("[]")
    with pytest.raises(ValueError, match=r"holds 3 files"), building(tmp_path):
        pass
    with pytest.raises(ValueError, match=r"notes.md: a file; give a folder"), building(tmp_path / "notes.md"):
        pass


def test_what_fails_leaves_the_old_one(tmp_path: Path) -> None:
    with building(tmp_path) as part:
        write(part, "a.png")

    def broken() -> None:
        with building(tmp_path) as part:
            write(part, "b.png")
            raise OSError("no space left")

    with pytest.raises(OSError, match="no space left"):
        broken()
    assert files(tmp_path) == {"analysis.json", "a.png"}


def test_the_folder_itself_stays_whoever_stands_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a.png", "b.png"):
        with building(Path()) as part:
            write(part, name)
    assert Path.cwd() == tmp_path
    assert files(Path()) == {"analysis.json", "b.png"}
