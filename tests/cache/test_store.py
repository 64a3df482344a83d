import pickle
from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stillwave.cache import EmbeddingStore, IncompleteStore, Spec, StoreError, StoreWriter
from tests.fakes import FINGERPRINT, SPEC, frames_of, row, write_store

SPECS = {
    "plain": SPEC,
    "layers": Spec(dim=3, layers=2, chunk_frames=4, shard_frames=16),
    "float32": Spec(dim=2, dtype="float32", chunk_frames=4, shard_frames=8),
    "zstd": Spec(dim=3, chunk_frames=4, shard_frames=16, compressor="zstd"),
}


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lengths=st.lists(st.integers(1, 40), min_size=1, max_size=12))
def test_round_trip_is_exact_and_any_zarr_reader_sees_the_same(
    tmp_path_factory: pytest.TempPathFactory, spec: Spec, lengths: list[int]
) -> None:
    path = tmp_path_factory.mktemp("store") / "a.zarr"
    rows = [row(f"r{i}", n) for i, n in enumerate(lengths)]
    write_store(path, rows, spec)
    store = EmbeddingStore(path)
    group = zarr.open_group(path, mode="r")
    assert list(store.ids) == [r.id for r in rows]
    assert store.lengths.tolist() == lengths
    for i, r in enumerate(rows):
        expected = frames_of(r.item, r.length, spec)
        np.testing.assert_array_equal(store[i], expected)
        begin = int(group["offsets"][i])
        np.testing.assert_array_equal(group["frames"][begin : begin + lengths[i]], expected)
    np.testing.assert_array_equal(store[-1], store[len(rows) - 1])
    lazy = store.to_dask(frames_per_chunk=17)
    np.testing.assert_array_equal(lazy.compute(), np.concatenate([store[i] for i in range(len(rows))]))


def test_rows_are_memory_mapped_without_a_copy_and_read_only(tmp_path: Path) -> None:
    write_store(tmp_path / "a.zarr", [row("a", 5), row("b", 6)])
    store = EmbeddingStore(tmp_path / "a.zarr")
    assert np.shares_memory(store[0], store[0])
    with pytest.raises(ValueError, match="read-only"):
        store[0][0, 0] = 1


def test_no_padding_is_stored(tmp_path: Path) -> None:
    """The shard holds the rows' bytes and at most one chunk of rounding, beside its index."""
    spec = Spec(dim=8, chunk_frames=4, shard_frames=64)
    write_store(tmp_path / "a.zarr", [row("a", 3), row("b", 19)], spec)
    shard = tmp_path / "a.zarr/frames/c/0/0"
    assert shard.stat().st_size == 24 * spec.frame_bytes + 16 * 16 + 4


def test_equal_content_is_stored_once(tmp_path: Path) -> None:
    rows = [row("a", 5, key="same"), row("b", 6), row("c", 5, key="same")]
    units = write_store(tmp_path / "a.zarr", rows)
    assert sum(len(unit.items) for unit in units) == 2
    store = EmbeddingStore(tmp_path / "a.zarr")
    np.testing.assert_array_equal(store[0], store[2])
    assert store.offsets[0] == store.offsets[2]


def test_rows_by_id_and_view(tmp_path: Path) -> None:
    write_store(tmp_path / "a.zarr", [row("a", 5), row("a", 4, view=1), row("b", 6)])
    store = EmbeddingStore(tmp_path / "a.zarr")
    assert store.rows(["b", "a"]).tolist() == [2, 0]
    assert store.rows(["a"], view=1).tolist() == [1]
    with pytest.raises(KeyError, match="2 ids, first 'x'"):
        store.rows(["x", "a", "y"])


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_batches_and_residents_agree_with_the_rows(tmp_path: Path, spec: Spec) -> None:
    import torch

    from stillwave.cache.resident import _gathered

    write_store(tmp_path / "a.zarr", [row("a", 5), row("b", 9), row("c", 1)], spec)
    store = EmbeddingStore(tmp_path / "a.zarr")
    values, lengths = store.batch([2, 1])
    assert lengths.tolist() == [1, 9]
    np.testing.assert_array_equal(values[0, :1], store[2])
    assert not values[0, 1:].any()
    resident = store.resident()
    tensor, valid = resident.batch(torch.tensor([2, 1]))
    np.testing.assert_array_equal(tensor.numpy(), values)
    assert valid.tolist() == [1, 9]
    part, _ = store.resident(rows=[1]).batch(torch.tensor([0]))
    np.testing.assert_array_equal(part[0].numpy(), store[1])
    on_gpu = _gathered(resident.values, resident.starts[[2, 1]], valid)  # the other devices' way
    assert torch.equal(on_gpu, tensor)


def test_rows_beyond_the_end_are_an_error(tmp_path: Path) -> None:
    write_store(tmp_path / "a.zarr", [row("a", 5), row("b", 6)])
    store = EmbeddingStore(tmp_path / "a.zarr")
    np.testing.assert_array_equal(store[-2], store[0])
    for number in (2, -3):
        with pytest.raises(IndexError, match=f"row {number} of 2; rows are 0 to 1"):
            store[number]
    np.testing.assert_array_equal(store[np.int64(1)], store[1])
    for wrong in ("a", 0.0, None):
        with pytest.raises(TypeError, match=f"row {wrong!r} is no number; for the rows of ids, use rows"):
            store[wrong]  # type: ignore[index]
    with pytest.raises(ValueError, match="at least one row"):
        store.batch([])


def test_a_store_travels_to_workers(tmp_path: Path) -> None:
    write_store(tmp_path / "a.zarr", [row("a", 5)])
    store = EmbeddingStore(tmp_path / "a.zarr")
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(store))[0], store[0])


def test_an_unfinished_store_is_refused(tmp_path: Path) -> None:
    with StoreWriter(tmp_path / "a.zarr", SPEC, FINGERPRINT) as writer:
        writer.plan([row("a", 5)])
    with pytest.raises(IncompleteStore, match="run the same `stillwave extract` again"):
        EmbeddingStore(tmp_path / "a.zarr")


def test_what_is_not_a_store_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no embedding store here"):
        EmbeddingStore(tmp_path / "nothing.zarr")
    zarr.create_group(tmp_path / "other.zarr")
    with pytest.raises(StoreError, match="not an embedding store"):
        EmbeddingStore(tmp_path / "other.zarr")


def test_a_missing_shard_is_noticed_on_opening(tmp_path: Path) -> None:
    write_store(tmp_path / "a.zarr", [row("a", 5)])
    (tmp_path / "a.zarr/frames/c/0/0").unlink()
    with pytest.raises(StoreError, match=r"shard 0 is missing.*--repair"):
        EmbeddingStore(tmp_path / "a.zarr")


def test_a_truncated_shard_is_noticed_on_reading(tmp_path: Path) -> None:
    write_store(tmp_path / "a.zarr", [row("a", 5)])
    shard = tmp_path / "a.zarr/frames/c/0/0"
    shard.write_bytes(shard.read_bytes()[:-10])
    with pytest.raises(StoreError, match="truncated"):
        EmbeddingStore(tmp_path / "a.zarr")[0]
