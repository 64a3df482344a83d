"""Pooled vectors and statistics of a store against GlobalPooling and NumPy, row by row and all at once."""

import threading
import tracemalloc
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from dask.callbacks import Callback
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from stillwave.analysis import embeddings
from stillwave.analysis.embeddings import POOLINGS, merge, moments, pool_layers, pool_store
from stillwave.cache import EmbeddingStore, Item, Row, Spec, StoreWriter, write_unit
from stillwave.heads.global_pooling import GlobalPooling, deviation
from tests.fakes import FINGERPRINT, row, write_store

SPECS = {
    "plain": Spec(dim=5, chunk_frames=4, shard_frames=32),
    "float32": Spec(dim=5, dtype="float32", chunk_frames=4, shard_frames=32),
    "layers": Spec(dim=5, layers=3, chunk_frames=4, shard_frames=32),
    "zstd": Spec(dim=5, layers=3, chunk_frames=4, shard_frames=32, compressor="zstd"),
}
LENGTHS = (7, 1, 40, 3, 12, 9, 2, 31, 18, 5)


@pytest.fixture(scope="module", params=SPECS.values(), ids=SPECS)
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> EmbeddingStore:
    """Ten rows with two views each, of very different lengths, over many shards."""
    rows = [
        row(f"r{i}", length + view, key=f"r{i}-{view}", view=view)
        for i, length in enumerate(LENGTHS)
        for view in range(2)
    ]
    path = tmp_path_factory.mktemp("store") / "a.zarr"
    write_store(path, rows, request.param)
    return EmbeddingStore(path)


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of a few rows, and batches of fewer: what a large store has many of."""
    monkeypatch.setattr(embeddings, "BLOCK_BYTES", 600)
    monkeypatch.setattr(embeddings, "BATCH_BYTES", 400)


def write_frames(path: Path | str, items: Sequence[NDArray[Any]], spec: Spec) -> EmbeddingStore:
    """A store whose row i holds the frames `items[i]`."""
    rows = [Row(f"r{i}", Item(f"key-{i}", 0), len(frames)) for i, frames in enumerate(items)]
    of = {r.item: frames for r, frames in zip(rows, items, strict=True)}
    with StoreWriter(path, spec, FINGERPRINT) as writer:
        for unit in writer.plan(rows):
            write_unit(path, spec, unit, ((item, of[item].astype(spec.dtype)) for item in unit.items))
        writer.finish()
    return EmbeddingStore(path)


def layer_of(frames: NDArray[Any], layer: int | str) -> NDArray[np.float32]:
    frames = frames.astype(np.float32)
    if frames.ndim == 2:
        return frames
    return frames.mean(1) if layer == "mean" else frames[:, int(layer)]


def alone(pooling: str, frames: NDArray[np.float32]) -> NDArray[Any]:
    """One row by itself, unpadded, through the module that heads pool with."""
    values, length = torch.from_numpy(frames)[None], torch.tensor([len(frames)])
    if pooling == "std":
        return deviation(values, length)[0].numpy()
    if pooling == "mean_std":
        return np.concatenate([alone("mean", frames), alone("std", frames)])
    return GlobalPooling(frames.shape[1], pooling)(values, length)[0].numpy()  # type: ignore[arg-type]


@pytest.mark.parametrize("layer", [-1, 0, "mean"])
@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.usefixtures("small_blocks")
def test_a_row_is_pooled_as_it_is_alone(store: EmbeddingStore, pooling: str, layer: Any) -> None:
    rows = np.random.default_rng(0).permutation(len(store))
    rows = np.append(rows, rows[:3])  # in any order, any view, some twice
    pooled = pool_store(store, rows, pooling, layer, workers=2)
    expected = [alone(pooling, layer_of(store[number], layer)) for number in rows.tolist()]
    assert pooled.values.dtype == np.float32
    np.testing.assert_allclose(pooled.values, np.stack(expected), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.usefixtures("small_blocks")
def test_layers_in_one_pass_are_the_layers_one_by_one(store: EmbeddingStore, pooling: str) -> None:
    rows = np.array([4, 0, 19, 7])
    layers = pool_layers(store, rows, pooling, workers=2)
    count = max(1, store.spec.layers)
    expected = np.stack([pool_store(store, rows, pooling, layer).values for layer in range(count)])
    np.testing.assert_allclose(layers, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("layer", [-1, "mean"])
@pytest.mark.usefixtures("small_blocks")
def test_statistics_are_those_of_all_frames_at_once(store: EmbeddingStore, layer: Any) -> None:
    rows = np.array([3, 18, 2, 11, 3])
    table = pool_store(store, rows, "mean", layer, workers=2).statistics
    frames = np.concatenate([layer_of(store[number], layer) for number in rows.tolist()]).astype(float)
    assert table.columns.tolist() == ["mean", "std", "min", "max", "zeros", "flag"]
    np.testing.assert_allclose(table["mean"], frames.mean(0), rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(table["std"], frames.std(0), rtol=1e-6)
    np.testing.assert_array_equal(table["min"], frames.min(0))
    np.testing.assert_array_equal(table["max"], frames.max(0))


@given(
    parts=st.lists(st.integers(1, 50), min_size=1, max_size=6),
    offset=st.sampled_from([0.0, 1e3, -1e6]),
    seed=st.integers(0, 99),
)
@settings(deadline=None, max_examples=40)
def test_moments_merge_to_those_of_the_whole(parts: list[int], offset: float, seed: int) -> None:
    """A mean far from zero costs no digits of the deviation."""
    whole = (np.random.default_rng(seed).standard_normal((sum(parts), 3)) + offset).astype(np.float32)
    whole[:, 2] = offset
    whole[::3, 1] = 0
    found = merge([moments(part) for part in np.split(whole, np.cumsum(parts)[:-1])])
    exact = whole.astype(np.float64)
    assert found.frames == len(whole)
    np.testing.assert_allclose(found.mean, exact.mean(0), rtol=1e-12, atol=1e-7)
    np.testing.assert_allclose(found.m2, exact.var(0) * len(whole), rtol=1e-5, atol=1e-9)
    assert found.m2[2] == 0
    np.testing.assert_array_equal(found.zeros, (exact == 0).sum(0))


def test_dimensions_that_say_nothing_or_too_much_are_flagged(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    frames = rng.standard_normal((200, 8))
    frames[:, 1] = 0.5  # constant
    frames[:, 2] = 2 + 1e-7 * frames[:, 2]  # all but constant
    frames[:, 3] *= 40  # varies too much
    frames[7, 4] = 500.0  # one spike
    frames[:, 5] *= 8  # large, but not out of line
    frames[::2, 6] = 0
    store = write_frames(tmp_path / "a.zarr", np.split(frames, 10), Spec(dim=8, dtype="float32"))
    table = pool_store(store, np.arange(10), "mean").statistics
    assert table["flag"].tolist() == ["", "dead", "dead", "exploding", "exploding", "", "", ""]
    assert table["zeros"].tolist() == pytest.approx([0, 0, 0, 0, 0, 0, 0.5, 0])
    assert table.loc[1, ["mean", "std"]].tolist() == [0.5, 0]


def test_a_store_in_which_nothing_varies_is_dead_and_divides_by_nothing(tmp_path: Path) -> None:
    store = write_frames(tmp_path / "a.zarr", [np.ones((3, 2)), np.ones((4, 2))], Spec(dim=2))
    assert pool_store(store, np.arange(2), "std").statistics["flag"].tolist() == ["dead", "dead"]


@pytest.mark.usefixtures("small_blocks")
def test_the_number_of_workers_changes_no_bit(store: EmbeddingStore) -> None:
    rows = np.arange(len(store))
    one, three = (pool_store(store, rows, "multi_scale", workers=workers) for workers in (1, 3))
    np.testing.assert_array_equal(one.values, three.values)
    assert one.statistics.equals(three.statistics)
    assert torch.get_num_threads() == 1  # what it was


class Watched(EmbeddingStore):
    """Counts the bytes of the frames that were asked for and not yet let go, over all threads."""

    held = most = asked = 0
    lock = threading.Lock()

    def each(self, rows: Any) -> Iterator[tuple[int, NDArray[Any]]]:
        size = int(self.lengths[list(rows)].sum()) * self.spec.frame_bytes
        with self.lock:
            Watched.held, Watched.asked = self.held + size, self.asked + 1
            Watched.most = max(Watched.most, Watched.held)
        yield from super().each(rows)

    def done(self, rows: Any) -> None:
        with self.lock:
            Watched.held -= int(self.lengths[list(rows)].sum()) * self.spec.frame_bytes


def test_memory_is_bounded_by_the_blocks_of_the_workers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = Spec(dim=64, chunk_frames=32, shard_frames=1024, compressor="zstd")  # each row read is a copy
    rng = np.random.default_rng(0)
    write_frames(tmp_path / "a.zarr", list(rng.standard_normal((200, 50, 64), dtype=np.float32)), spec)
    store = Watched(tmp_path / "a.zarr")
    row_bytes = 50 * spec.frame_bytes
    monkeypatch.setattr(embeddings, "BLOCK_BYTES", 10 * row_bytes)
    monkeypatch.setattr(embeddings, "BATCH_BYTES", 5 * 4 * 50 * 64)
    block = embeddings._pool_block

    def watched(store: Watched, rows: NDArray[np.int64], *arguments: Any) -> Any:
        try:
            return block(store, rows, *arguments)
        finally:
            store.done(rows)

    monkeypatch.setattr(embeddings, "_pool_block", watched)
    keys: list[Any] = []
    pool_store(store, np.arange(20), "mean", workers=2)  # imports and thread pools are not counted below
    Watched.most = Watched.asked = 0
    tracemalloc.start()
    with Callback(pretask=lambda key, graph, state: keys.append(key)):
        pool_store(store, np.arange(200), "mean", workers=2)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert Watched.asked == 20
    assert len(keys) > 20  # blocks and what merges them were all Dask's tasks
    assert Watched.held == 0
    assert Watched.most <= 2 * 10 * row_bytes
    # Two blocks of 64 kB, their copies, the output and the graph: far from the 1.3 MB of all frames.
    assert peak < 0.5 * 200 * row_bytes


def test_layers_on_disk_are_the_same_and_not_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = Spec(dim=64, layers=12, chunk_frames=4, shard_frames=64)
    write_store(tmp_path / "a.zarr", [row(f"r{i:03d}", 2) for i in range(200)], spec)
    store, rows = EmbeddingStore(tmp_path / "a.zarr"), np.arange(200)
    monkeypatch.setattr(embeddings, "BLOCK_BYTES", 4 * spec.frame_bytes)
    expected = pool_layers(store, rows, "mean", workers=1)
    tracemalloc.start()
    found = pool_layers(store, rows, "mean", workers=1, file=tmp_path / "layers.npy")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 0.6 * expected.nbytes
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(np.load(tmp_path / "layers.npy"), expected)


@pytest.mark.parametrize("place", ["memory", "s3"])
@pytest.mark.usefixtures("small_blocks")
def test_a_remote_store_gives_the_same(place: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    url = f"memory://{tmp_path.name}" if place == "memory" else request.getfixturevalue("bucket")
    rows = [row(f"r{i}", length) for i, length in enumerate(LENGTHS)]
    for path in (tmp_path / "a.zarr", f"{url}/a.zarr"):
        write_store(path, rows, SPECS["layers"])
    order = np.random.default_rng(1).permutation(len(rows))
    here, there = (
        pool_store(EmbeddingStore(path), order, "multi_scale", 1, workers=2)
        for path in (tmp_path / "a.zarr", f"{url}/a.zarr")
    )
    np.testing.assert_array_equal(here.values, there.values)
    assert here.statistics.equals(there.statistics)


def test_what_there_is_not_is_an_error(tmp_path: Path) -> None:
    write_store(tmp_path / "a.zarr", [row("a", 5), row("b", 6)], SPECS["layers"])
    store = EmbeddingStore(tmp_path / "a.zarr")
    both = np.arange(2)
    with pytest.raises(ValueError, match="pooling is 'median'; choose one of mean, max, std"):
        pool_store(store, both, "median")
    with pytest.raises(ValueError, match=r"layer is 3, but .* stores 3; choose 0 to 2"):
        pool_store(store, both, "mean", 3)
    for rows, asked in (([0, 2], "row 2"), ([-1], "row -1"), ([], "no rows")):
        with pytest.raises(ValueError, match=f"asked for {asked}; give at least one, from 0 to 1"):
            pool_store(store, np.array(rows, dtype=np.int64), "mean")
    with pytest.raises(ValueError, match="workers is 0"):
        pool_layers(store, both, "mean", workers=0)


def test_a_damaged_store_is_named(tmp_path: Path) -> None:
    write_store(tmp_path / "a.zarr", [row("a", 5)], SPECS["plain"])
    shard = tmp_path / "a.zarr/frames/c/0/0"
    shard.write_bytes(shard.read_bytes()[:-10])
    with pytest.raises(ValueError, match="truncated"):
        pool_store(EmbeddingStore(tmp_path / "a.zarr"), np.arange(1), "mean")
