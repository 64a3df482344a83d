"""The contract of cache.storage, on a local folder, in memory, and on an S3 server."""

from pathlib import Path

import fsspec
import pytest

from stillwave.cache import EmbeddingStore, StoreError
from stillwave.cache.places import open_storage, split
from stillwave.cache.remote import RemotePrefix
from stillwave.cache.storage import LocalFolder


def test_what_is_put_is_read_back_whole_or_in_ranges(place: str) -> None:
    storage = open_storage(f"{place}/a.zarr")
    data = bytes(range(256)) * 40
    storage.put("frames/c/0/0", memoryview(data))
    storage.put("zarr.json", b"{}")
    assert storage.read("frames/c/0/0") == data
    assert storage.read_many(["zarr.json", "gone", "frames/c/0/0"]) == {
        "zarr.json": b"{}",
        "frames/c/0/0": data,
    }
    assert storage.read_ranges([("frames/c/0/0", 3, 8), ("zarr.json", 0, 1), ("frames/c/0/0", 700, 701)]) == [
        data[3:8],
        b"{",
        data[700:701],
    ]
    with storage.open("frames/c/0/0") as file:
        file.seek(-5, 2)
        assert file.read() == data[-5:]


def test_a_put_replaces_and_a_deletion_is_seen_at_once(place: str) -> None:
    storage, other = open_storage(f"{place}/a.zarr"), open_storage(f"{place}/a.zarr")
    storage.put("x/one", b"1")
    storage.put("x/two", b"22")
    storage.put("xy", b"333")
    assert other.sizes() == {"x/one": 1, "x/two": 2, "xy": 3}
    assert other.sizes("x") == {"x/one": 1, "x/two": 2}
    storage.put("x/one", b"longer")
    assert other.read("x/one") == b"longer"
    storage.delete("x/two")
    storage.delete("x/two")
    assert not other.exists("x/two")
    storage.delete_tree("x")
    storage.delete_tree("x")
    assert other.sizes() == {"xy": 3}
    assert other.exists("xy")
    assert not other.exists("x")


def test_what_is_not_there_is_a_file_not_found(place: str) -> None:
    storage = open_storage(f"{place}/a.zarr")
    with pytest.raises(FileNotFoundError):
        storage.read("zarr.json")
    with pytest.raises(FileNotFoundError):
        storage.open("zarr.json").read()
    with pytest.raises(FileNotFoundError):
        storage.read_ranges([("zarr.json", 0, 4)])
    assert storage.read_many(["zarr.json"]) == {}
    assert storage.sizes("frames") == {}
    assert not storage.is_foreign()
    with pytest.raises(StoreError, match="no embedding store here"):
        EmbeddingStore(f"{place}/a.zarr")


def test_brackets_in_a_url_are_no_pattern(remote: str) -> None:
    storage, other = open_storage(f"{remote}/run[12]/a.zarr"), open_storage(f"{remote}/run1/a.zarr")
    for place in (storage, other):
        place.put("units/0.json", b"x")
    assert storage.read_many(["units/0.json"]) == {"units/0.json": b"x"}
    storage.delete_tree("units")
    storage.delete("units/0.json")
    assert storage.sizes() == {}
    assert other.sizes() == {"units/0.json": 1}


def test_a_store_has_a_parent_where_its_lock_lies(place: str) -> None:
    folder, name = split(f"{place}/a.zarr")
    folder.put("a.zarr.lock", b"x")
    assert name == "a.zarr"
    assert folder.sizes() == {"a.zarr.lock": 1}
    assert open_storage(f"{place}/a.zarr").sizes() == {}


def test_only_the_first_of_two_puts_an_object_anew(remote: str) -> None:
    storage = open_storage(remote)
    assert isinstance(storage, RemotePrefix)
    assert storage.put_new("lock", b"first")
    assert not storage.put_new("lock", b"second")
    assert storage.read("lock") == b"first"


def test_a_folder_is_named_by_a_path_or_by_a_file_url(tmp_path: Path) -> None:
    for path in (tmp_path, str(tmp_path), f"file://{tmp_path}"):
        storage = open_storage(path)
        assert isinstance(storage, LocalFolder)
        assert storage.path == tmp_path


def test_a_url_that_cannot_be_used_says_why(s3_server: dict[str, str]) -> None:
    with pytest.raises(StoreError, match=r"s3:/b/a.zarr: a URL that went through Path\(\) has lost a slash"):
        open_storage(Path("s3://b/a.zarr"))
    with pytest.raises(StoreError, match=r"nope://b: fsspec cannot open it .*not known"):
        open_storage("nope://b")
    with pytest.raises(
        StoreError, match=r"s3://nobody-has-this/a.zarr/x: cannot be written .*check the bucket"
    ):
        open_storage("s3://nobody-has-this/a.zarr").put("x", b"")


def test_a_server_that_does_not_answer_is_named(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = open_storage(f"{bucket}/a.zarr")
    gone = fsspec.filesystem(
        "s3",
        client_kwargs={"endpoint_url": "http://127.0.0.1:1"},
        config_kwargs={"retries": {"max_attempts": 1}},
    )
    gone.retries = 1
    monkeypatch.setattr(storage, "_opened", gone)
    with pytest.raises(StoreError, match=r"a.zarr: cannot be read .*127.0.0.1:1.*the endpoint"):
        storage.read("zarr.json")
