"""The manifest: what is checked, and that writing it is exact, repeatable and all or nothing."""

import random
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest

from stillwave.pipeline.corpora.manifest import (
    ManifestError,
    manifest_digest,
    own_folds,
    read_manifest,
    withheld_from,
    write_manifest,
)


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
        *(
            (
                {"withheld": [None, value], **columns},
                rf"withheld of 'a' is '{value}'; it must be the numbers of folds that do not test the row",
            )
            for value, columns in (
                ("", {}),
                ("1", {}),
                ("2 0", {}),
                ("0 0", {}),
                ("0  2", {}),
                (" 0", {}),
                ("0,2", {}),
                ("-1", {}),
                ("0", {"fold": [], "split": ["train", "test"]}),
            )
        ),
        ({"withheld": [None, 2.0]}, r"withheld of 'a' is 2\.0; it must be"),
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


def test_folds_from_which_a_row_is_withheld_are_its_last_column(tmp_path: Path) -> None:
    path = tmp_path / "m.parquet"
    write_manifest(manifest(withheld=["1 12", None]), path)
    frame = read_manifest(path)
    assert list(frame.columns)[-2:] == ["fold", "withheld"]
    assert frame["withheld"].tolist() == [None, "1 12"]
    assert (own_folds(frame), withheld_from(frame)) == ([1, 0], [frozenset(), frozenset({1, 12})])
    # a part of it, saved by pandas: all are empty, and Parquet knows no type
    frame[frame["id"] == "a"].to_parquet(path)
    assert withheld_from(read_manifest(path)) == [frozenset()]
    assert withheld_from(manifest()) == [frozenset(), frozenset()]
    split = manifest(fold=[], split=["test", "valid"], withheld=[None, "0"])
    write_manifest(split, path)
    assert (own_folds(split), withheld_from(split)) == ([0, None], [frozenset(), frozenset({0})])
    assert manifest_digest(split) != manifest_digest(split.assign(withheld=None))


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


def many() -> pd.DataFrame:
    ids = [f"{number:02}" for number in range(30)]
    return pd.DataFrame(
        {
            "id": ids,
            "path": [f"{name}.wav" for name in ids],
            "sha256": [name * 32 for name in ids],
            "sample_rate": 8000,
            "num_samples": range(1000, 1030),
            "duration_s": [n / 8000 for n in range(1000, 1030)],
            "emotion": ["sad", "happy", "angry"] * 10,
            "speaker": [f"speaker {name[0]}" for name in ids],
            "fold": [int(name[0]) for name in ids],
        }
    )


@pytest.mark.parametrize(
    "edit",
    [
        lambda frame: frame.sample(frac=1, random_state=1),
        lambda frame: frame.sort_values(["emotion", "num_samples"]),
        lambda frame: frame[frame["emotion"] != "sad"],
        lambda frame: frame.set_index("id").iloc[::-1],
        lambda frame: frame.astype({"speaker": "category", "emotion": "category"}).sample(frac=1),
        lambda frame: pd.concat([frame[frame["fold"] == 2], frame[frame["fold"] == 0]]),
    ],
    ids=["shuffled", "sorted", "filtered", "indexed", "categories", "joined"],
)
def test_rows_that_pandas_moved_and_saved_stay_whole(tmp_path: Path, edit: object) -> None:
    path = tmp_path / "manifest.parquet"
    write_manifest(many(), path)
    edit(pd.read_parquet(path)).to_parquet(path)  # type: ignore[operator]
    frame = read_manifest(path)
    expected = many().set_index("id").loc[frame["id"]].reset_index()
    assert frame["id"].is_monotonic_increasing
    assert len(frame) in (20, 30)
    for name in expected:
        assert frame[name].tolist() == expected[name].tolist(), name
    assert set(frame.columns) == set(expected.columns)


def test_no_damaged_byte_passes_and_each_message_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "manifest.parquet"
    write_manifest(many(), path)
    whole, good = read_manifest(path), path.read_bytes()
    draw, refused = random.Random(0), 0

    def read() -> object:
        try:
            return read_manifest(path)
        except ManifestError as error:
            return str(error)

    for place in range(0, len(good), 7):
        bad = bytearray(good)
        bad[place] ^= 1 << draw.randrange(8)
        path.write_bytes(bad)
        found = read()
        refused += isinstance(found, str)
        assert whole.equals(found) or str(found).startswith(f"{path}: "), f"byte {place}"
    assert refused > len(good) // 7 * 0.6  # the others are unused: statistics, other programs' metadata
    for end in (3, 4, 100, len(good) // 2, len(good) - 1):
        path.write_bytes(good[:end])
        with pytest.raises(ManifestError, match=r"manifest\.parquet: (damaged|not a Parquet file)"):
            read_manifest(path)


def test_damage_is_told_apart_from_an_edit(tmp_path: Path) -> None:
    path = tmp_path / "manifest.parquet"
    write_manifest(many(), path)
    pq.write_table(pq.read_table(path).slice(0, 12), path)  # keeps the schema's metadata, as pandas does not
    assert len(read_manifest(path)) == 12
    write_manifest(many(), path)
    data = path.read_bytes()
    assert data.count(b"emotion") > 1
    path.write_bytes(data.replace(b"emotion", b"emotiom"))  # a name, of which Parquet has no checksum
    with pytest.raises(ManifestError, match=r"manifest\.parquet: damaged, .*`stillwave prepare` again"):
        read_manifest(path)


def test_the_digest_is_of_the_contents_in_any_order(tmp_path: Path) -> None:
    path = tmp_path / "manifest.parquet"
    write_manifest(many(), path)
    stored = pq.read_metadata(path).metadata[b"sha256"].decode()
    assert manifest_digest(read_manifest(path)) == manifest_digest(many().sample(frac=1)) == stored
    assert manifest_digest(many().assign(speaker="x")) != stored
    assert manifest_digest(many().drop(columns="fold")) != stored  # of a table that is not split yet, too


def test_a_column_of_the_user_may_be_numbers(tmp_path: Path) -> None:
    path = tmp_path / "manifest.parquet"
    write_manifest(many().assign(rating=[0.5] * 29 + [None]), path)
    assert read_manifest(path)["rating"].tolist()[:29] == [0.5] * 29
    with pytest.raises(ManifestError, match="column 'rating' cannot be stored"):
        write_manifest(many().assign(rating=["x", 1] * 15), path)
