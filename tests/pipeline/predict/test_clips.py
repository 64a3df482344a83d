"""What the arguments of `predict` name, and the samples of a clip."""

import re
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from stillwave.pipeline.audio.decode import BadAudio
from stillwave.pipeline.corpora.manifest import ManifestError, read_manifest, write_manifest
from stillwave.pipeline.predict.clips import (
    Clip,
    Sound,
    check_output,
    clips_of,
    files_of,
    read_sound,
    sound_of,
    warn,
)
from tests.fakes import write_wave


def test_files_folders_and_manifests_are_clips_in_their_order(speech: Path, tmp_path: Path) -> None:
    for name in ("b.wav", "deeper/a.flac", "notes.txt"):
        write_wave(tmp_path / name.replace(".txt", ".wav"), 0.3, 100, seed=0)
    (tmp_path / "notes.wav").rename(tmp_path / "notes.txt")
    table = speech / "manifest.parquet"
    clips = list(clips_of(["lost.wav", str(tmp_path), str(table), "s3://bucket/x.wav"]))
    assert clips[:3] == [
        Clip("lost.wav", "lost.wav"),
        Clip(str(tmp_path / "b.wav"), str(tmp_path / "b.wav")),
        Clip(str(tmp_path / "deeper/a.flac"), str(tmp_path / "deeper/a.flac")),
    ]
    row = read_manifest(table).iloc[0]
    assert clips[3] == Clip(row["id"], row["path"], row["text"], row["speaker"])
    assert len(clips) == 3 + 36 + 1
    assert clips[-1].audio == "s3://bucket/x.wav"


def test_rows_without_audio_or_text_lack_it(speech: Path, tmp_path: Path) -> None:
    table = read_manifest(speech / "manifest.parquet").head(3)
    table.loc[0, "text"] = None
    table.loc[1, ["path", "sample_rate", "num_samples"]] = ["", 0, 0]
    write_manifest(table, tmp_path / "m.parquet")
    first, second, third = clips_of([str(tmp_path / "m.parquet")], speaker="me")
    assert (first.text, first.speaker) == (None, "me")
    assert (second.audio, second.text) == (None, table["text"][1])
    assert third.audio is not None
    assert third.text is not None


def test_a_text_is_of_one_clip(speech: Path, tmp_path: Path) -> None:
    assert list(clips_of(["a.wav"], text="hello")) == [Clip("a.wav", "a.wav", "hello")]
    assert list(clips_of([], text="hello", speaker="s")) == [Clip("text", None, "hello", "s")]
    with pytest.raises(ValueError, match="a text belongs to one file, but there are 2; name one of them"):
        clips_of(["a.wav", "b.wav"], text="hello")
    for many in (str(tmp_path), str(speech / "manifest.parquet")):
        with pytest.raises(ValueError, match="may hold many; give texts in a manifest"):
            clips_of([many], text="hello")
    with pytest.raises(ValueError, match="text is '  '; give words, or leave it out"):
        clips_of(["a.wav"], text="  ")
    with pytest.raises(ValueError, match="nothing to predict: give an audio file, a folder"):
        clips_of([])


def test_what_cannot_be_listed_is_said_before_the_first_clip(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no audio")
    with pytest.raises(ValueError, match=f"{tmp_path}: no audio files below it"):
        clips_of(["a.wav", str(tmp_path)])
    with pytest.raises(ManifestError, match="no such manifest"):
        clips_of(["a.wav", str(tmp_path / "m.parquet")])


@pytest.mark.parametrize("name", ["table.csv", "T.TSV", "rows.jsonl", "s3://bucket/x.xlsx"])
def test_a_table_is_no_manifest(name: str) -> None:
    with pytest.raises(
        ValueError, match=rf"{name}: neither .* which is the \.parquet that `stillwave prepare`"
    ):
        clips_of(["a.wav", name])


def test_what_is_read_is_not_written_over(speech: Path, tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    table, wav, link = tmp_path / "m.parquet", tmp_path / "deep/a.wav", tmp_path / "link.json"
    write_wave(wav, 0.3, 100, seed=0)
    link.symlink_to(wav)
    manifest = read_manifest(speech / "manifest.parquet")
    write_manifest(manifest, table)
    row = Path(manifest["path"][4])
    for sources, out in (
        ([wav], wav),
        ([wav], link),
        ([tmp_path], wav),
        (["s3://b/x.wav", tmp_path], link),
        ([table], table),
        ([table], row),
    ):
        with pytest.raises(
            ValueError, match=f"--out {out} would overwrite .*, which is an input; name another"
        ):
            check_output(out, files_of([str(source) for source in sources]))
    (tmp_path / "old.csv").touch()
    for out in (tmp_path / "new.json", tmp_path / "old.csv"):
        check_output(out, files_of(["lost.wav", str(tmp_path), str(table)]))
    check_output(tmp_path / "old.csv", files_of([]))


def test_samples_far_beyond_full_scale_are_refused(tmp_path: Path) -> None:
    wave = np.random.default_rng(0).uniform(-1, 1, 900).astype(np.float32)
    wave /= np.abs(wave).max()
    path = str(tmp_path / "x.wav")
    for scale, shown in ((1.3, ""), (99, ""), (32768, "3.28e+04"), (-32768, "3.28e+04"), (1e30, "1e+30")):
        loud = (wave * scale).astype(np.float32)
        soundfile.write(path, loud, 8000, subtype="FLOAT")
        if not shown:
            np.testing.assert_array_equal(read_sound(path, 1).waveform, loud)
            np.testing.assert_array_equal(sound_of(loud, 8000).waveform, loud)
            continue
        message = re.escape(f"samples reach {shown}, but full scale is 1; at most 100 is read: divide 16-bit")
        with pytest.raises(ValueError, match=message):
            read_sound(path, 1)
        with pytest.raises(ValueError, match=message):
            read_sound(Sound(loud, 8000), 1)
        with pytest.raises(ValueError, match=message):
            sound_of(loud, 8000)
    with pytest.raises(ValueError, match=r"samples reach 1e\+300"):
        sound_of(np.array([0, 1e300]), 8000)  # no overflow on the way to float32


def test_samples_of_the_caller_become_those_of_a_file(tmp_path: Path) -> None:
    stereo = np.random.default_rng(0).uniform(-1, 1, (500, 2)).astype(np.float32)
    soundfile.write(tmp_path / "x.wav", stereo, 8000, subtype="FLOAT")
    for channels in (1, 2):
        file = read_sound(str(tmp_path / "x.wav"), channels)
        for samples in (stereo, stereo.astype(np.float64), torch.from_numpy(stereo)):
            ours = sound_of(samples, 8000, channels)
            np.testing.assert_array_equal(ours.waveform, file.waveform)
            assert ours.waveform.dtype == np.float32
            assert ours.sample_rate == file.sample_rate == 8000
            assert read_sound(ours, channels) is ours
    assert sound_of(stereo[:, 0], 8000, 2).waveform.shape == (500, 2)
    assert file.duration_s == 500 / 8000
    assert len(file.at(16000)) == 1000


@pytest.mark.parametrize(
    ("samples", "rate", "message"),
    [
        (np.zeros(9), None, "sample_rate is None; samples need the rate"),
        (np.zeros(9), 0, "sample_rate is 0;"),
        (np.zeros(9), -16000, "sample_rate is -16000;"),
        (np.zeros(9), 0.5, "sample_rate is 0.5;"),
        (np.zeros(9), float("nan"), "sample_rate is nan;"),
        (np.zeros(9), float("inf"), "sample_rate is inf;"),
        (
            np.zeros((1, 9)),
            16000,
            r"shape \(1, 9\) have 9 channels, but 8 .* \(samples, channels\): transpose",
        ),
        (torch.zeros(2, 16000), 16000, r"shape \(2, 16000\) have 16000 channels"),
        (np.zeros((1, 0)), 16000, "zero_length: no samples"),
        (np.zeros((2, 2, 2)), 16000, r"samples of shape \(2, 2, 2\); give \(samples,\) or"),
        (np.zeros(9, np.int16), 16000, "samples of type int16; give floats in .* divided by 32768"),
        (np.zeros(0), 16000, "zero_length: no samples"),
        (np.array([0, np.nan, np.inf]), 16000, "non_finite: 2 of 3 samples are NaN or infinite"),
    ],
)
def test_samples_that_are_none_are_refused(samples: object, rate: int | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sound_of(samples, rate)


def test_a_file_that_is_no_audio_says_so(tmp_path: Path) -> None:
    (tmp_path / "x.wav").write_bytes(b"")
    with pytest.raises(BadAudio, match="empty: "):
        read_sound(str(tmp_path / "x.wav"), 1)
    assert read_sound(Sound(np.zeros(3, np.float32), 8), 1).duration_s == 3 / 8


def test_what_a_folder_holds_beside_audio_is_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_wave(tmp_path / "a.wav", 0.3, 100, seed=0)
    for name in ("a.txt", "b.txt", "c.pdf"):
        (tmp_path / name).write_text("no audio")
    assert len(list(clips_of([str(tmp_path)]))) == 1
    assert caplog.messages == [
        f"{tmp_path}: 1 audio files; not audio by their names, ignored: .pdf 1, .txt 2"
    ]


def test_what_is_unusual_about_a_clip_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_wave(tmp_path / "a.wav", 0.3, 100, seed=0)
    data = (tmp_path / "a.wav").read_bytes()
    at = data.index(b"data") + 4
    (tmp_path / "a.wav").write_bytes(data[:at] + b"\xff\xff\xff\x7f" + data[at + 4 :])
    (clip,) = clips_of([str(tmp_path / "a.wav")])
    sound = read_sound(clip.name, 1)
    assert sound.duration_s == pytest.approx(0.3)
    warn(clip, sound)
    silence = sound_of(np.zeros(800), 8000)
    warn(Clip("samples", silence), silence)
    assert caplog.messages == [
        f"{clip.name}: the file {sound.note}",
        "samples: the audio is digital silence",
    ]
    assert sound.note == "states no length that can be true: read to the end"
