"""Two workers that share one device: the store of one process."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from stillwave.cache import EmbeddingStore
from stillwave.pipeline.backbones.wav2vec2 import Wav2Vec2Config
from stillwave.pipeline.extract.stage import extract
from tests.devices import on_a_gpu

pytest.importorskip("distributed", reason="workers need dask and distributed")

# distributed leaves sockets and loops to the garbage collector when its processes go
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
TINY = Wav2Vec2Config(kind="wav2vec2", weights="random", size="tiny", max_batch_frames=100)


@on_a_gpu
def test_two_workers_on_one_gpu_make_the_same_store(
    device: str, manifest: pd.DataFrame, tmp_path: Path
) -> None:
    extract(TINY, manifest, tmp_path / "one.zarr", device=device, shard_frames=256)
    result = extract(TINY, manifest, tmp_path / "two.zarr", device=device, shard_frames=256, workers=2)
    assert (result.rows, result.quarantined) == (len(manifest), ())
    one, two = EmbeddingStore(tmp_path / "one.zarr"), EmbeddingStore(tmp_path / "two.zarr")
    for frames, expected in zip(two, one, strict=True):
        np.testing.assert_allclose(frames.astype(np.float32), expected, rtol=2e-3, atol=1e-3)
