"""The manifest: what is checked, and that writing it is exact, repeatable and all or nothing."""

from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest

from stillwave.pipeline.corpora.manifest import ManifestError, read_manifest, write_manifest


def manifest(**columns: list[object]) -> pd.DataFrame:
    base: dict[str, list[object]] = {
        "id": ["b", "a"],
        "path": ["x/b.wav", "x/a.wav"],
        "sha256": ["1" * 64, "2" * 64],
        "sample_rate": [16000, 8000],
        "num_samples": [16000, 4000],
        "duration_s": [1.0, 0.5],
        "emotion": ["sad", "happy"],
        "text": [None, "Hallo, Grüße."],
        "fold": [0, 1],
    }
    return pd.DataFrame({name: values for name, values in (base | columns).items() if values})


def test_round_trip_is_exact_and_sorted_by_id(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "manifest.parquet"
    assert write_manifest(manifest(), path)
    frame = read_manifest(path, columns=["emotion"])
    assert frame["id"].tolist() == ["a", "b"]
    assert frame["text"].tolist() == ["Hallo, Grüße.", None]
    assert frame["num_samples"].tolist() == [4000, 16000]
    assert frame["fold"].tolist() == [1, 0]
    assert frame["duration_s"].tolist() == [0.5, 1.0]
    names = [*manifest().columns[:6], "emotion", "text", "fold"]
    assert list(frame.columns) == names == pq.read_schema(path).names


def test_the_same_rows_in_any_order_give_the_same_bytes_and_leave_the_file_alone(tmp_path: Path) -> None:
    path = tmp_path / "manifest.parquet"
    write_manifest(manifest(), path)
    before = path.read_bytes(), path.stat().st_mtime_ns, path.stat().st_ino
    assert not write_manifest(manifest().iloc[::-1].reset_index(drop=True), path)
    assert (path.read_bytes(), path.stat().st_mtime_ns, path.stat().st_ino) == before
    assert write_manifest(manifest(emotion=["sad", "angry"]), path)
    assert [item.name for item in tmp_path.iterdir()] == ["manifest.parquet"]


def test_what_is_read_can_be_written_back_unchanged(tmp_path: Path) -> None:
    write_manifest(manifest(), tmp_path / "a.parquet")
    write_manifest(read_manifest(tmp_path / "a.parquet"), tmp_path / "b.parquet")
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"id": ["a", "a"]}, r"id 'a' occurs more than once"),
        ({"sha256": []}, r"no column 'sha256'; the columns are id, path, sample_rate"),
        ({"fold": []}, r"needs either a `fold` or a `split` column"),
        ({"split": ["train", "test"]}, r"and not both"),
        (
            {"fold": [], "split": ["train", "dev"]},
            r"split of 'a' is 'dev'; it must be train or valid or test",
        ),
        ({"fold": [0, -1]}, r"fold number, counted from 0"),
        ({"path": ["x", None]}, r"column 'path' has no value in row 1"),
        ({"num_samples": [5, 0]}, r"num_samples of 'a' is 0; it must be positive"),
    ],
)
def test_a_broken_manifest_is_refused_and_not_written(
    tmp_path: Path, columns: dict[str, list[object]], message: str
) -> None:
    path = tmp_path / "manifest.parquet"
    with pytest.raises(ManifestError, match=message):
        write_manifest(manifest(**columns), path)
    assert not list(tmp_path.iterdir())


def test_reading_says_what_is_wrong_with_the_file(tmp_path: Path) -> None:
    path = tmp_path / "manifest.parquet"
    with pytest.raises(ManifestError, match=r"no such manifest; `stillwave prepare` writes it"):
        read_manifest(path)
    path.write_text("id,path\n")
    with pytest.raises(ManifestError, match=r"manifest\.parquet: not a Parquet file"):
        read_manifest(path)
    path.unlink()
    write_manifest(manifest(), path)
    with pytest.raises(ManifestError, match=r"manifest\.parquet: no column 'word'; the columns are id, "):
        read_manifest(path, columns=["emotion", "word"])
