"""The importers on the real corpora, where the environment variable STILLWAVE_CORPORA says they are."""

import os
from pathlib import Path

import pytest

from stillwave.pipeline.config.base import load_config
from stillwave.pipeline.corpora import CorpusConfig
from stillwave.pipeline.corpora.manifest import read_manifest
from stillwave.pipeline.corpora.prepare import prepare
from tests.fakes import contents_digest

CONFIGS = Path(__file__).parents[3] / "configs" / "corpora"

pytestmark = [
    pytest.mark.corpora,
    pytest.mark.skipif(
        "STILLWAVE_CORPORA" not in os.environ, reason="set STILLWAVE_CORPORA to the corpora's folder"
    ),
]


def corpus(name: str) -> Path:
    root = Path(os.environ["STILLWAVE_CORPORA"], name)
    if not root.is_dir():
        pytest.skip(f"no {name} in STILLWAVE_CORPORA")
    return root


def test_emodb_four_classes(tmp_path: Path) -> None:
    out = tmp_path / "manifest.parquet"
    result = prepare(load_config(CONFIGS / "emodb.yaml", CorpusConfig), corpus("emodb"), out)
    assert result.labels == {"angry": 127, "happy": 71, "neutral": 79, "sad": 62}
    assert result.excluded == {"boredom": 81, "disgust": 46, "fear": 69}
    assert (result.rows, result.speakers, result.quarantined) == (339, 10, {})
    frame = read_manifest(out, columns=["emotion", "speaker", "language", "text", "fold"])
    assert frame.groupby("fold")["speaker"].unique().map(list).tolist() == [
        ["03"], ["08"], ["09"], ["10"], ["11"], ["12"], ["13"], ["14"], ["15"], ["16"]
    ]  # fmt: skip
    assert frame["text"].nunique() == 10
    # from before notes and FFmpeg; more than half of the files reach full scale, and none is clipped
    assert (contents_digest(out, corpus("emodb")), result.noted) == ("faa23bbcd2a859f2", {})


def test_fsdd(tmp_path: Path) -> None:
    out = tmp_path / "manifest.parquet"
    result = prepare(load_config(CONFIGS / "fsdd.yaml", CorpusConfig), corpus("fsdd"), out)
    assert (result.rows, result.speakers, result.quarantined) == (3000, 6, {})
    assert set(result.labels.values()) == {300}
    assert read_manifest(out)["fold"].value_counts().tolist() == [500] * 6
    assert (contents_digest(out, corpus("fsdd")), result.noted) == ("7bdf52c315045674", {})
