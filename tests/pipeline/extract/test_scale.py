"""Units as Dask tasks: the store of one process, to the bit, whoever writes it and whoever is killed."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import transformers
from distributed import Client, LocalCluster

from stillwave.cache import EmbeddingStore, Item, Spec
from stillwave.cache.verify import verify
from stillwave.pipeline.backbones import build_backbone, wav2vec2
from stillwave.pipeline.backbones.fbank import FbankConfig
from stillwave.pipeline.backbones.fingerprint import fingerprint
from stillwave.pipeline.backbones.wav2vec2 import Wav2Vec2Config
from stillwave.pipeline.backbones.weights import random_weights
from stillwave.pipeline.extract import scale
from stillwave.pipeline.extract.rows import Source
from stillwave.pipeline.extract.stage import extract
from tests.fakes import PYTHON_PATH, files_of

FBANK = FbankConfig(kind="fbank", deltas=0)
TINY = Wav2Vec2Config(kind="wav2vec2", weights="random", size="tiny", max_batch_frames=100)

# distributed leaves sockets and loops to the garbage collector when its processes go
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    """A scheduler with two workers, as a user's own cluster would be."""
    with LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0", memory_limit=0
    ) as cluster:
        yield cluster


@pytest.fixture
def expected(manifest: pd.DataFrame, tmp_path: Path) -> dict[str, bytes]:
    """The store that one process makes with TINY."""
    extract(TINY, manifest, tmp_path / "one.zarr", shard_frames=256)
    return files_of(tmp_path / "one.zarr")


def test_workers_of_our_own_make_the_same_store(
    manifest: pd.DataFrame, tmp_path: Path, expected: dict[str, bytes]
) -> None:
    seen: list[int] = []
    result = extract(
        TINY,
        manifest,
        tmp_path / "a.zarr",
        workers=2,
        shard_frames=256,
        progress=lambda progress: seen.append(progress.done.items),
    )
    assert files_of(tmp_path / "a.zarr") == expected
    assert (result.rows, result.forwards, seen[-1]) == (len(manifest),) * 3
    assert len(seen) == result.units > 4
    assert extract(TINY, manifest, tmp_path / "a.zarr", workers=2, shard_frames=256).units == 0


def test_a_cluster_makes_the_same_store(
    cluster: LocalCluster, manifest: pd.DataFrame, tmp_path: Path, expected: dict[str, bytes]
) -> None:
    scheduler = cluster.scheduler_address
    extract(TINY, manifest[:20], tmp_path / "a.zarr", scheduler=scheduler, shard_frames=256)
    with Client(cluster) as client:
        assert client.submit(_engines).result() == [1]  # the model is built once per process
    extract(FBANK, manifest, tmp_path / "b.zarr", scheduler=scheduler, shard_frames=256)
    extract(TINY, manifest, tmp_path / "c.zarr", scheduler=scheduler, shard_frames=256)
    extract(FBANK, manifest, tmp_path / "d.zarr", shard_frames=256)
    assert files_of(tmp_path / "b.zarr") == files_of(tmp_path / "d.zarr")
    assert files_of(tmp_path / "c.zarr") == expected


def _engines() -> list[int]:
    return [len(scale._engines)]


def test_a_worker_killed_mid_unit_loses_nothing(
    cluster: LocalCluster, manifest: pd.DataFrame, tmp_path: Path, expected: dict[str, bytes]
) -> None:
    """kill -9 of each worker in turn, while it has a unit: the unit is given to another one."""
    killed: list[int] = []

    def kill(progress: Any) -> None:
        if len(killed) < 2:
            killed.append(cluster.workers[len(killed)].pid)
            os.kill(killed[-1], signal.SIGKILL)

    out, scheduler = tmp_path / "a.zarr", cluster.scheduler_address
    result = extract(TINY, manifest, out, scheduler=scheduler, shard_frames=256, progress=kill)
    assert len(set(killed)) == 2
    assert result.rows == result.forwards == len(manifest)
    assert files_of(out) == expected
    assert verify(out).problems == ()


COORDINATOR = """
import sys
from stillwave.pipeline.extract.stage import extract
from stillwave.pipeline.corpora.manifest import read_manifest
from tests.pipeline.extract.test_scale import TINY
if __name__ == "__main__":
    extract(TINY, read_manifest(sys.argv[1]), sys.argv[2], scheduler=sys.argv[3], shard_frames=256)
"""


def test_a_coordinator_killed_is_taken_over_by_the_next_run(
    cluster: LocalCluster,
    speech: Path,
    manifest: pd.DataFrame,
    tmp_path: Path,
    expected: dict[str, bytes],
    request: pytest.FixtureRequest,
) -> None:
    """What the workers had written is kept, and the end is the same store."""
    out = tmp_path / "a.zarr"
    script = tmp_path / "coordinator.py"
    script.write_text(COORDINATOR)
    child = subprocess.Popen(
        [sys.executable, script, speech / "manifest.parquet", out, cluster.scheduler_address],
        env=os.environ | {"PYTHONPATH": PYTHON_PATH, "OMP_NUM_THREADS": "1"},
    )
    while len(list(out.glob("units/*/*.json"))) < 2:
        assert child.poll() is None
        time.sleep(0.002)
    child.kill()
    child.wait()
    result = extract(TINY, manifest, out, scheduler=cluster.scheduler_address, shard_frames=256)
    assert result.forwards < len(manifest)
    assert files_of(out) == expected


def test_a_worker_never_uses_old_weights_for_a_new_fingerprint(
    cluster: LocalCluster, manifest: pd.DataFrame, tmp_path: Path
) -> None:
    """The same config, but what its `weights` folder holds has changed since the worker built its model."""
    config = TINY.model_copy(update={"weights": str(tmp_path / "model")})
    for name, seed in (("old", 0), ("new", 1)):
        save_small_wav2vec2(tmp_path / "model", seed)
        extract(config, manifest[:6], tmp_path / f"{name}.zarr", scheduler=cluster.scheduler_address)
    extract(config, manifest[:6], tmp_path / "here.zarr")
    assert files_of(tmp_path / "new.zarr") == files_of(tmp_path / "here.zarr")
    assert files_of(tmp_path / "new.zarr") != files_of(tmp_path / "old.zarr")


def save_small_wav2vec2(folder: Path, seed: int) -> None:
    settings = wav2vec2.SIZES["tiny"]
    model = random_weights(seed, lambda: transformers.Wav2Vec2Model(transformers.Wav2Vec2Config(**settings)))
    model.save_pretrained(folder)


def test_two_coordinators_may_share_a_cluster(
    cluster: LocalCluster, manifest: pd.DataFrame, tmp_path: Path, expected: dict[str, bytes]
) -> None:
    configs = {"a": TINY, "b": FBANK, "c": FBANK.model_copy(update={"num_mels": 40})}

    def run(name: str) -> int:
        out = tmp_path / f"{name}.zarr"
        return extract(
            configs[name], manifest, out, scheduler=cluster.scheduler_address, shard_frames=256
        ).rows

    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(run, configs)) == [len(manifest)] * 3
    assert files_of(tmp_path / "a.zarr") == expected


def test_relative_paths_are_those_of_the_coordinator(
    cluster: LocalCluster, manifest: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(manifest["path"][0]).parents[1]
    monkeypatch.chdir(folder)
    manifest["path"] = [str(Path(path).relative_to(folder)) for path in manifest["path"]]
    out = os.path.relpath(tmp_path / "a.zarr")
    assert extract(FBANK, manifest, out, scheduler=cluster.scheduler_address).rows == len(manifest)
    assert (tmp_path / "a.zarr/zarr.json").exists()


def test_a_scheduler_lost_on_the_way_is_named_and_what_is_done_is_kept(
    manifest: pd.DataFrame, tmp_path: Path, expected: dict[str, bytes]
) -> None:
    options = {"threads_per_worker": 1, "processes": True, "dashboard_address": ":0", "memory_limit": 0}
    cluster = LocalCluster(n_workers=1, **options)
    out = tmp_path / "a.zarr"
    with pytest.raises(ValueError, match="the Dask scheduler was lost; finished units are kept"):
        extract(
            TINY,
            manifest,
            out,
            scheduler=cluster.scheduler_address,
            shard_frames=256,
            progress=lambda _: cluster.close(),
        )
    assert extract(TINY, manifest, out, shard_frames=256).forwards < len(manifest)
    assert files_of(out) == expected


def test_what_cannot_start_leaves_a_complete_store_as_it_is(
    manifest: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scale, "_ANSWER_S", 1)
    out = tmp_path / "a.zarr"
    extract(FBANK, manifest[:10], out)
    with pytest.raises(ValueError, match="no Dask scheduler answers"):
        extract(FBANK, manifest, out, scheduler="tcp://127.0.0.1:1")
    with pytest.raises(ValueError, match="device 'cuda:99' cannot be used"):
        extract(FBANK, manifest, out, device="cuda:99")
    assert len(EmbeddingStore(out)) == 10


def test_a_scheduler_without_workers_is_named(
    manifest: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scale, "_ANSWER_S", 2)
    words = "it has no workers after 2 s; start some with `dask worker"
    with LocalCluster(n_workers=0, dashboard_address=":0") as empty, pytest.raises(ValueError, match=words):
        extract(FBANK, manifest, tmp_path / "a.zarr", scheduler=empty.scheduler_address)


def test_a_worker_that_would_compute_other_numbers_is_refused(
    cluster: LocalCluster, manifest: pd.DataFrame, tmp_path: Path
) -> None:
    """Other weights under the same name, say, or another release of torch."""
    backbone = build_backbone(FBANK)
    made_by = fingerprint(backbone)
    there = made_by | {"libraries": made_by["libraries"] | {"torch": "1.13"}}
    job = scale.Job(FBANK, there, "cpu", str(tmp_path / "a.zarr"), Spec(dim=80), "plan", 0)
    with Client(cluster) as client, pytest.raises(ValueError, match=r"libraries.torch: stored '1.13', now"):
        client.submit(scale._write_unit, job, None, {}, pure=False).result()


def test_a_worker_that_would_decode_with_another_ffmpeg_is_refused(
    cluster: LocalCluster, tmp_path: Path
) -> None:
    planned = Source("a", "a.mp3", None, "0" * 64, 16_000, decoder="ffmpeg")
    job = scale.Job(FBANK, {}, "cpu", str(tmp_path / "a.zarr"), Spec(dim=80), "plan", 0)
    with (
        Client(cluster) as client,
        pytest.raises(ValueError, match="a worker would decode with another FFmpeg"),
    ):
        client.submit(scale._write_unit, job, None, {Item("1" * 64, 0): planned}, pure=False).result()


def test_no_scheduler_there(manifest: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scale, "_ANSWER_S", 2)
    with pytest.raises(ValueError, match=r"--scheduler tcp://127.0.0.1:1: no Dask scheduler answers there"):
        extract(FBANK, manifest, tmp_path / "a.zarr", scheduler="tcp://127.0.0.1:1")


def test_workers_or_a_scheduler_not_both(manifest: pd.DataFrame, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="give a number >= 1, or an address"):
        extract(FBANK, manifest, tmp_path / "a.zarr", workers=2, scheduler="tcp://127.0.0.1:1")


def test_threads_of_workers_fill_the_machine_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.get_num_threads", lambda: 8)
    assert [scale.threads_per_worker(n) for n in (1, 2, 3, 8, 20)] == [8, 4, 2, 1, 1]
