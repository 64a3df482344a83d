"""Everything on S3: the audio, the manifest and the store."""

import os
import subprocess
import sys
import time
from pathlib import Path

import fsspec
import numpy as np
import pandas as pd
import pytest

from stillwave.cache import EmbeddingStore, ledger
from stillwave.cache.places import open_storage
from stillwave.pipeline.backbones.fbank import FbankConfig
from stillwave.pipeline.corpora.manifest import read_manifest, write_manifest
from stillwave.pipeline.corpora.quarantine import quarantine_path
from stillwave.pipeline.extract.stage import extract
from tests.fakes import PYTHON_PATH, files_of

FBANK = FbankConfig(kind="fbank", deltas=0, max_bad_fraction=0.2)
COORDINATOR = """
import sys
from stillwave.cache import locks
from stillwave.pipeline.extract.stage import extract
from stillwave.pipeline.corpora.manifest import read_manifest
from tests.pipeline.extract.test_remote import FBANK
if __name__ == "__main__":
    locks.REFRESH_S, locks.EXPIRE_S, locks.SETTLE_S = 0.2, 2.0, 0.05
    workers = int(sys.argv[3])
    extract(FBANK, read_manifest(sys.argv[1]), sys.argv[2], workers=workers, shard_frames=256)
"""


@pytest.fixture
def uploaded(bucket: str, manifest: pd.DataFrame) -> str:
    """The URL of a manifest whose audio is in the bucket."""
    files = fsspec.filesystem("s3")
    for path in manifest["path"]:
        files.pipe_file(f"{bucket}/{Path(path).name}", Path(path).read_bytes())
    remote = manifest.assign(path=[f"{bucket}/{Path(path).name}" for path in manifest["path"]])
    write_manifest(remote, f"{bucket}/manifest.parquet")
    return f"{bucket}/manifest.parquet"


def stored(url: str) -> dict[str, bytes]:
    """Every object of a store, by key."""
    storage = open_storage(url)
    return {key: storage.read(key) for key in storage.sizes()}


def test_the_store_on_s3_is_the_local_one(
    uploaded: str, bucket: str, manifest: pd.DataFrame, tmp_path: Path
) -> None:
    extract(FBANK, manifest, tmp_path / "a.zarr", shard_frames=256)
    fsspec.filesystem("s3").rm_file(f"{bucket}/{Path(manifest['path'][3]).name}")
    url = f"{bucket}/stores/a.zarr"
    result = extract(FBANK, read_manifest(uploaded), url, shard_frames=256)
    assert [(row.id, row.reason) for row in result.quarantined] == [(manifest["id"][3], "missing")]
    assert b"missing" in fsspec.filesystem("s3").cat_file(quarantine_path(url))
    local, store = EmbeddingStore(tmp_path / "a.zarr"), EmbeddingStore(url)
    assert len(store) == len(local) - 1
    for id_ in store.ids.tolist():
        row, expected = store.rows([id_])[0], local[local.rows([id_])[0]]
        np.testing.assert_array_equal(store[row], expected)
    assert extract(FBANK, read_manifest(uploaded).drop(index=3), url, shard_frames=256).forwards == 0


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_killed_on_s3_the_next_run_ends_byte_identical(
    workers: int,
    uploaded: str,
    bucket: str,
    s3_server: dict[str, str],
    manifest: pd.DataFrame,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    """kill -9 of the coordinator, whose lease runs out; units that it, or its workers, recorded are kept."""
    for name, seconds in (("REFRESH_S", 0.2), ("EXPIRE_S", 2.0), ("SETTLE_S", 0.05)):
        monkeypatch.setattr(f"stillwave.cache.locks.{name}", seconds)
    extract(FBANK, manifest, tmp_path / "whole.zarr", shard_frames=256)
    script, url = tmp_path / "coordinator.py", f"{bucket}/a.zarr"
    script.write_text(COORDINATOR)
    child = subprocess.Popen(
        [sys.executable, script, uploaded, url, str(workers)],
        env=os.environ | s3_server | {"PYTHONPATH": PYTHON_PATH, "OMP_NUM_THREADS": "1"},
    )
    storage = open_storage(url)
    while len([key for key in storage.sizes("units") if key.endswith(".json")]) < 2:
        assert child.poll() is None
        time.sleep(0.01)
    child.kill()
    child.wait()
    plan = ledger.load_plan(storage)
    assert plan is not None
    time.sleep(3)  # for the lease to run out; orphaned workers notice that their scheduler is gone
    result = extract(FBANK, read_manifest(uploaded), url, shard_frames=256)
    assert 0 < result.forwards < len(manifest)
    assert stored(url) == files_of(tmp_path / "whole.zarr")
