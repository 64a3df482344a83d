"""Spans of files: the samples that they name, at the cost of one reading of the file."""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stillwave.pipeline.audio import segments
from stillwave.pipeline.audio.decode import BadAudio, decode, resample
from stillwave.pipeline.audio.levels import CHANNELS_CANCEL, SILENT
from stillwave.pipeline.audio.segments import (
    Span,
    content_of,
    content_of_samples,
    load_waveform,
    read_audio,
    span_of,
)
from tests.zoo import RATE, encode, encode_av, tone

NOISE = np.random.default_rng(0).uniform(-0.5, 0.5, 2 * RATE).astype(np.float32)
KINDS: dict[str, bytes] = {  # those that libsndfile seeks in, and those that are decoded as a whole
    "pcm16.wav": encode(NOISE, format="WAV", subtype="PCM_16"),
    "float.wav": encode(NOISE, format="WAV", subtype="FLOAT"),
    "stereo.flac": encode(np.stack([NOISE, NOISE[::-1]], axis=1), format="FLAC", subtype="PCM_24"),
    "ulaw.au": encode(NOISE, format="AU", subtype="ULAW"),
    "vorbis.ogg": encode(NOISE, format="OGG", subtype="VORBIS"),
    "adpcm.wav": encode(NOISE, format="WAV", subtype="IMA_ADPCM"),
    "mp3.mp3": encode_av(NOISE, "mp3", "mp3"),
    "opus.webm": encode_av(NOISE, "libopus", "webm", 48_000),
    "joined.wav": 2 * encode(NOISE, format="WAV", subtype="PCM_16"),
}


@pytest.fixture(autouse=True)
def _nothing_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segments, "_kept", segments._Kept())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("spans")
    for name, data in KINDS.items():
        (folder / name).write_bytes(data)
    return folder


@pytest.fixture
def readings(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The files that are read, one entry per reading."""
    found: list[str] = []
    original = segments.read_bytes

    def read(path: str | Path) -> bytes:
        found.append(Path(path).name)
        return original(path)

    monkeypatch.setattr(segments, "read_bytes", read)
    return found


@pytest.mark.parametrize("name", KINDS)
@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(cuts=st.sets(st.integers(1, 2 * RATE - 1), max_size=6), channels=st.sampled_from([1, 2]))
def test_spans_that_tile_a_file_are_the_file(folder: Path, name: str, cuts: set[int], channels: int) -> None:
    whole, rate = decode(folder / name, channels=channels)
    edges = [0.0, *(cut / rate for cut in sorted(cuts)), None]
    spans = [Span(start or 0.0, end) for start, end in pairwise(edges)]
    audio = [read_audio(folder / name, span, channels=channels)[0] for span in reversed(spans)]
    np.testing.assert_array_equal(np.concatenate([part.waveform for part in audio[::-1]]), whole)
    assert {part.sample_rate for part in audio} == {rate}


def test_a_span_is_cut_at_the_files_rate_and_then_resampled(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(encode(tone(2, 44_100), 44_100, format="WAV", subtype="PCM_16"))
    whole, _ = decode(tmp_path / "a.wav")
    part = load_waveform(tmp_path / "a.wav", RATE, span=Span(0.33333, 1.2))
    np.testing.assert_array_equal(part, resample(whole[14_700:52_920], 44_100, RATE))
    (tmp_path / "b.wav").write_bytes(encode(whole[14_700:52_920], 44_100, format="WAV", subtype="FLOAT"))
    np.testing.assert_array_equal(part, load_waveform(tmp_path / "b.wav", RATE))


@pytest.mark.parametrize(
    ("span", "detail"),
    [
        (Span(1.0, 2.01), r"from 1 s to 2.01 s, but the file is 2 s long; correct `start` and `end`"),
        (Span(2.0), r"from 2 s to its end, but the file is 2 s long"),
        (Span(3.0, 4.0), r"from 3 s to 4 s, but the file is 2 s long"),
        (Span(1.0, 1.00001), r"1-1.00001 s is less than one sample at 16000 Hz"),
    ],
)
@pytest.mark.parametrize("name", ["pcm16.wav", "vorbis.ogg"])
def test_a_span_that_is_not_in_the_file_is_refused(folder: Path, name: str, span: Span, detail: str) -> None:
    with pytest.raises(BadAudio, match=f"bad_span: {detail}"):
        read_audio(folder / name, span)


def test_an_end_may_be_rounded_up_to_milliseconds() -> None:
    assert Span(0.0, 1.0004).samples(RATE, RATE) == (0, RATE)
    with pytest.raises(BadAudio, match="but the file is 1 s long"):
        Span(0.0, 1.0006).samples(RATE, RATE)
    assert Span(0.1, 1.00012).samples(8_000, 8_000) == (800, 8_000)


def test_durations_are_those_of_the_span(folder: Path) -> None:
    with pytest.raises(BadAudio, match=r"too_long: 1.500 s; at most max_duration_s = 1 s"):
        read_audio(folder / "pcm16.wav", Span(0.5), max_duration_s=1.0)
    with pytest.raises(BadAudio, match=r"too_short: 0.100 s; at least min_duration_s = 0.2 s"):
        read_audio(folder / "mp3.mp3", Span(0.5, 0.6), min_duration_s=0.2)
    assert len(read_audio(folder / "pcm16.wav", Span(0.5, 1.0), 0.2, 1.0)[0].waveform) == RATE // 2


def test_a_damaged_sample_is_that_of_its_span(tmp_path: Path) -> None:
    samples = NOISE.copy()
    samples[100] = np.nan
    (tmp_path / "a.wav").write_bytes(encode(samples, format="WAV", subtype="FLOAT"))
    assert len(read_audio(tmp_path / "a.wav", Span(1.0))[0].waveform) == RATE
    with pytest.raises(BadAudio, match="non_finite: 1 of 1600 samples"):
        read_audio(tmp_path / "a.wav", Span(0.0, 0.1))


@pytest.mark.parametrize("name", ["stereo.flac", "mp3.mp3"])
def test_a_file_is_read_once_for_all_its_spans_and_threads(
    folder: Path, readings: list[str], name: str
) -> None:
    spans = [Span(i / 100, i / 100 + 0.3) for i in range(100)]
    whole, rate = decode(folder / name)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda span: read_audio(folder / name, span)[0].waveform, spans))
    for span, part in zip(spans, found, strict=True):
        first = round(span.start * rate)
        np.testing.assert_array_equal(part, whole[first : round((span.end or 0) * rate)])
    assert readings == [name]


def test_a_bad_file_is_read_once_and_refused_each_time(tmp_path: Path, readings: list[str]) -> None:
    (tmp_path / "a.wav").write_bytes(KINDS["pcm16.wav"][:-100])
    for start in (0.0, 0.5, 1.0):
        with pytest.raises(BadAudio, match="truncated: the header promises"):
            read_audio(tmp_path / "a.wav", Span(start, start + 0.1))
    assert readings == ["a.wav"]


def test_a_file_that_changes_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(KINDS["pcm16.wav"])
    before, sha256 = read_audio(path, Span(0.0, 1.0))
    path.write_bytes(encode(NOISE[::-1], format="WAV", subtype="PCM_16"))
    os.utime(path, ns=(0, 0))
    after, _ = read_audio(path, Span(0.0, 1.0))
    np.testing.assert_array_equal(after.waveform, decode(path)[0][:RATE])
    assert not np.array_equal(before.waveform, after.waveform)
    with pytest.raises(BadAudio, match=r"changed: .*a\.wav: sha256 is"):
        load_waveform(path, RATE, sha256, span=Span(0.0, 1.0))
    path.unlink()
    with pytest.raises(BadAudio, match="missing: "):
        read_audio(path, Span(0.0, 1.0))
    path.write_bytes(KINDS["pcm16.wav"])
    assert read_audio(path, Span(0.0, 1.0))[1] == sha256


def test_so_many_bytes_are_kept(folder: Path, readings: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["pcm16.wav", "ulaw.au", "vorbis.ogg"]
    sizes = [len(KINDS["pcm16.wav"]), len(KINDS["ulaw.au"]), 4 * 2 * RATE]
    monkeypatch.setattr(segments, "KEPT_BYTES", sum(sizes))
    for _ in range(2):
        for name in names:
            read_audio(folder / name, Span(0.5, 1.0))
    assert readings == names
    monkeypatch.setattr(segments, "KEPT_BYTES", sizes[0])
    for name in ("float.wav", "float.wav", "pcm16.wav"):  # the first is larger, and kept all the same
        read_audio(folder / name, Span(0.5, 1.0))
    assert readings == [*names, "float.wav", "pcm16.wav"]


@pytest.mark.parametrize("name", ["a.wav", "a.ogg", "a.mp3"])
def test_notes_are_those_of_the_span(tmp_path: Path, name: str) -> None:
    """Of both channels, also where the file is decoded as a whole."""
    wanted = {"a.wav": {}, "a.ogg": {"subtype": "VORBIS"}, "a.mp3": {"subtype": "MPEG_LAYER_III"}}[name]
    sides = [np.concatenate([tone(), 0 * tone(), sign * tone()]) for sign in (1, -1)]
    data = encode(np.stack(sides, axis=1), format=name[2:].upper(), **wanted)
    (tmp_path / name).write_bytes(data)
    notes = [read_audio(tmp_path / name, Span(at + 0.1, at + 0.9))[0].notes for at in range(3)]
    assert notes == [(), (SILENT,), (CHANNELS_CANCEL,)]


def test_so_many_files_are_kept_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each may hold a file of the system, of which a process has a thousand."""
    monkeypatch.setattr(segments, "KEPT_FILES", 3)
    opened = Path("/proc/self/fd")
    before = len(list(opened.iterdir())) if opened.exists() else 0
    for number in range(12):
        path = tmp_path / f"{number}.wav"
        path.write_bytes(encode(np.tile(NOISE, 5), format="WAV", subtype="PCM_16"))
        load_waveform(path, RATE, span=Span(0.5, 1.0))
    assert len(segments._kept._places) == 3
    if opened.exists():  # Linux
        assert len(list(opened.iterdir())) <= before + 3


def test_contents_of_rows() -> None:
    row: dict[str, Any] = {"sha256": "ab", "sample_rate": 8000, "num_samples": 4000}
    assert content_of(row) == content_of({**row, "start": None, "end": float("nan")}) == "ab"
    part = content_of({**row, "start": 1.5, "end": 2.0})
    assert part == content_of({**row, "start": 1.5, "end": None}) == content_of_samples("ab", 12_000, 4000)
    others = [
        {"start": 1.0},
        {"start": 0.0},
        {"start": 1.5, "num_samples": 3999},
        {"start": 1.5, "sha256": "c"},
    ]
    assert len({part, "ab", *(content_of(row | other) for other in others)}) == 6
    assert part[:12] == "a6c63f87bdc7"  # of stores on disk


def test_spans_of_rows_and_their_names() -> None:
    assert span_of({"start": 1.5, "end": float("nan")}) == Span(1.5)
    assert span_of({"start": "0.25", "end": "12.0"}) == Span(0.25, 12.0)
    assert span_of({"start": float("nan"), "end": None}) is None
    assert span_of({}) is None
    assert str(Span(1.5, 3.25)) == "1.5-3.25"
    assert str(Span(0.0, 1e-05)) == "0-0.00001"
    assert str(Span(36_000.1)) == "36000.1-"
