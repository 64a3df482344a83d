"""Manifests and audio at URLs."""

from pathlib import Path

import fsspec
import numpy as np
import pytest

from stillwave.pipeline.audio.decode import BadAudio, read_bytes
from stillwave.pipeline.audio.files import read_file, write_if_changed
from stillwave.pipeline.audio.segments import load_waveform
from stillwave.pipeline.corpora.manifest import ManifestError, read_manifest, write_manifest
from tests.fakes import write_wave


def test_a_manifest_on_s3_has_the_bytes_of_a_local_one(speech: Path, bucket: str) -> None:
    local, url = speech / "manifest.parquet", f"{bucket}/data/manifest.parquet"
    frame = read_manifest(local)
    assert write_manifest(frame, url)
    assert not write_manifest(frame, url)
    assert read_file(url) == local.read_bytes()
    assert read_manifest(url, columns=["word"]).equals(frame)
    assert write_manifest(frame[:3], url)
    assert len(read_manifest(url)) == 3


def test_a_manifest_that_is_not_at_its_url_is_named(bucket: str) -> None:
    with pytest.raises(ManifestError, match=rf"{bucket}/no.parquet: no such manifest; `stillwave prepare`"):
        read_manifest(f"{bucket}/no.parquet")


def test_audio_is_read_from_s3(tmp_path: Path, bucket: str) -> None:
    write_wave(tmp_path / "a.wav", 0.3, 200.0, seed=0)
    fsspec.filesystem("s3").put_file(str(tmp_path / "a.wav"), f"{bucket}/wav/a.wav")
    np.testing.assert_array_equal(
        load_waveform(f"{bucket}/wav/a.wav", 16_000), load_waveform(tmp_path / "a.wav", 16_000)
    )


@pytest.mark.parametrize("url", ["{bucket}/gone.wav", "s3://no-such-bucket-here/a.wav", "nope://x/a.wav"])
def test_audio_that_cannot_be_fetched_is_missing(url: str, bucket: str) -> None:
    url = url.format(bucket=bucket)
    with pytest.raises(BadAudio, match=url) as caught:
        read_bytes(url)
    assert caught.value.reason == "missing"


def test_an_empty_object_is_empty_audio(bucket: str) -> None:
    assert write_if_changed(f"{bucket}/a.wav", b"")
    with pytest.raises(BadAudio, match="0 bytes") as caught:
        read_bytes(f"{bucket}/a.wav")
    assert caught.value.reason == "empty"


def test_a_file_that_is_put_gets_the_mode_of_any_new_file(tmp_path: Path) -> None:
    (tmp_path / "usual").write_text("")
    write_if_changed(tmp_path / "sub" / "ours.csv", b"a\n")
    assert (tmp_path / "sub/ours.csv").stat().st_mode == (tmp_path / "usual").stat().st_mode
    assert [file.name for file in (tmp_path / "sub").iterdir()] == ["ours.csv"]
