"""The stage: which rows get a text, what is kept and resumed, bad files, languages, and the command."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from typer.testing import CliRunner

from stillwave.pipeline.audio.segments import load_waveform
from stillwave.pipeline.cli import app
from stillwave.pipeline.corpora.manifest import read_manifest, write_manifest
from stillwave.pipeline.transcribe import stage
from stillwave.pipeline.transcribe.config import CtcTranscriberConfig, WhisperTranscriberConfig
from stillwave.pipeline.transcribe.ctc import Ctc
from stillwave.pipeline.transcribe.stage import transcribe
from tests.fakes import write_wave

KEPT = 6  # rows that have a text


@pytest.fixture
def config(ctc_folder: Path) -> CtcTranscriberConfig:
    return CtcTranscriberConfig(kind="ctc", weights=str(ctc_folder), max_bad_fraction=0.5)


@pytest.fixture
def clips(manifest: pd.DataFrame) -> pd.DataFrame:
    """Twelve rows, of which the first six have a text; one that is blank has none."""
    clips = manifest.iloc[:12].copy()
    clips["text"] = [*clips["text"][:KEPT], " ", *[None] * 5]
    return clips


def texts_in(out: Path) -> dict[str, str]:
    """What the file of transcripts has, whichever model heard it."""
    models = json.loads(Path(f"{out}.transcripts.json").read_text()).values()
    return {key: text for model in models for key, text in model["texts"].items()}


def test_rows_with_a_text_keep_it_and_the_others_get_one(
    config: CtcTranscriberConfig, clips: pd.DataFrame, tmp_path: Path
) -> None:
    result = transcribe(config, clips, tmp_path / "a.parquet")
    found, model = read_manifest(tmp_path / "a.parquet"), Ctc(config, torch.device("cpu"))
    heard = [model.transcribe(load_waveform(path, 16000), None) or None for path in clips["path"][KEPT:]]
    assert found["text"].tolist() == [*clips["text"][:KEPT], *heard]
    assert len(set(heard)) > 1
    sources = found["text_source"].tolist()
    assert sources[:KEPT] == KEPT * ["manifest"]
    assert len(set(sources[KEPT:])) == 1
    assert sources[-1].startswith("ctc:")
    pd.testing.assert_frame_equal(
        found.drop(columns=["text", "text_source"]), clips.drop(columns="text").reset_index(drop=True)
    )
    silent = heard.count(None)
    assert (result.rows, result.kept, result.transcribed, result.silent) == (12, KEPT, 6 - silent, silent)
    assert (result.items, result.known) == (6, 0)
    assert result.audio_s == pytest.approx(clips["duration_s"][KEPT:].sum(), abs=0.01)
    assert result.seconds_per_hour == pytest.approx(3600 * result.seconds / result.audio_s)
    # A transcript that is handed on is still not the manifest's own.
    transcribe(config, found, tmp_path / "b.parquet")
    assert read_manifest(tmp_path / "b.parquet")["text_source"].tolist() == sources


def test_nothing_is_decoded_twice(
    config: CtcTranscriberConfig, clips: pd.DataFrame, whisper_folders: dict[str, Path], tmp_path: Path
) -> None:
    out = tmp_path / "a.parquet"
    assert transcribe(config, clips[:-1], out).items == 5
    again = transcribe(config, clips, out)
    assert (again.items, again.known, again.audio_s > 0) == (1, 5, True)
    twins = pd.concat([clips, clips.assign(id=clips["id"] + "-twin")])
    before = out.stat().st_mtime_ns
    assert transcribe(config, twins[12:], tmp_path / "twins.parquet").items == 6
    assert transcribe(config, clips, out).items == 0
    assert out.stat().st_mtime_ns == before
    other = WhisperTranscriberConfig(kind="whisper", weights=str(whisper_folders["english"]), lead_s=0.1)
    assert transcribe(other, clips, out).items == 6
    assert transcribe(config, clips, out).items == 0
    assert len(json.loads(Path(f"{out}.transcripts.json").read_text())) == 2
    assert transcribe(config, clips[:KEPT], tmp_path / "full.parquet").items == 0


def test_a_killed_run_resumes(
    config: CtcTranscriberConfig, clips: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a kill finds on disk at any time is whole, and the end is the same."""
    out = tmp_path / "a.parquet"
    on_disk: list[int] = []
    monkeypatch.setattr(stage, "SAVED_EVERY_S", 0.0)

    def stop(done: int, total: int) -> None:
        on_disk.append(len(texts_in(out)))
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        transcribe(config, clips, out, progress=stop)
    assert on_disk == [1, 2, 3, 4]
    assert not out.exists()
    assert transcribe(config, clips, out).items == 2
    transcribe(config, clips, tmp_path / "whole.parquet")
    assert out.read_bytes() == (tmp_path / "whole.parquet").read_bytes()


def test_texts_do_not_depend_on_the_number_of_threads(
    config: CtcTranscriberConfig, clips: pd.DataFrame, tmp_path: Path
) -> None:
    transcribe(config, clips, tmp_path / "one.parquet")
    torch.set_num_threads(3)
    try:
        transcribe(config, clips, tmp_path / "three.parquet")
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(1)
    assert (tmp_path / "one.parquet").read_bytes() == (tmp_path / "three.parquet").read_bytes()


def test_files_that_cannot_be_used_are_listed_and_their_rows_stay(
    config: CtcTranscriberConfig, clips: pd.DataFrame, tmp_path: Path
) -> None:
    write_wave(tmp_path / "other.wav", 0.5, 200, seed=9)
    write_wave(tmp_path / "short.wav", 0.05, 200, seed=9)
    places = clips.index[-3:]
    clips.loc[places, "path"] = [str(tmp_path / name) for name in ("gone.wav", "other.wav", "short.wav")]
    clips.loc[places[2], "sha256"] = hashlib.sha256((tmp_path / "short.wav").read_bytes()).hexdigest()
    out = tmp_path / "a.parquet"
    result = transcribe(config, clips, out)
    assert [row.reason for row in result.quarantined] == ["missing", "changed", "too_short"]
    listed = pd.read_csv(result.quarantine)
    assert result.quarantine == f"{out}.quarantine.csv"
    assert listed["id"].tolist() == clips["id"][-3:].tolist()
    assert set(listed["stage"]) == {"transcribe"}
    assert listed["detail"].iloc[2] == "0.050 s; a transcript needs at least 0.1 s"
    found = read_manifest(out)
    assert found["id"].tolist() == clips["id"].tolist()
    assert found["text_source"].isna().tolist() == 9 * [False] + 3 * [True]
    assert result.items == 3
    strict = config.model_copy(update={"max_bad_fraction": 0.1})
    with pytest.raises(ValueError, match=r"3 of 12 rows are unusable \(1 changed, 1 missing, 1 too_short\)"):
        transcribe(strict, clips, out)
    assert transcribe(config, clips, out).items == 0  # bad files are tried again, the others are known


def test_a_model_refuses_rows_of_another_language(
    config: CtcTranscriberConfig, clips: pd.DataFrame, whisper_folders: dict[str, Path], tmp_path: Path
) -> None:
    """Only rows that need a text count; a locale and an English name are languages too, and none is ours."""
    clips["language"] = ["ur", "de", "de", "de", "de", "de", "en", "EN", "English", "en-GB", None, ""]
    english = WhisperTranscriberConfig(kind="whisper", weights=str(whisper_folders["english"]), lead_s=0.1)
    assert transcribe(english, clips, tmp_path / "a.parquet").items == 6
    assert {key.split()[1] for key in texts_in(tmp_path / "a.parquet")} == {"en"}
    clips["language"] = [*clips["language"][:-3], "de", "German", "de"]
    first = clips["id"].iloc[-3]
    message = (
        rf"`language`: rows without text are in de \(2 rows\), German \(1 rows\), the first is '{first}'"
    )
    with pytest.raises(ValueError, match=rf"{message}; the model .* takes only en\. Use a model of that"):
        transcribe(english, clips, tmp_path / "b.parquet")
    assert not list(tmp_path.glob("b.parquet*"))
    with pytest.raises(ValueError, match="takes only en"):
        transcribe(config.model_copy(update={"language": "English"}), clips, tmp_path / "b.parquet")
    assert transcribe(config, clips, tmp_path / "b.parquet").items == 6  # it does not say what it knows


def test_transcripts_that_somebody_damaged(
    config: CtcTranscriberConfig, clips: pd.DataFrame, tmp_path: Path
) -> None:
    for damage in ("{", "[]"):
        (tmp_path / "a.parquet.transcripts.json").write_text(damage)
        with pytest.raises(ValueError, match=r"a\.parquet\.transcripts\.json: not a file of transcripts: "):
            transcribe(config, clips, tmp_path / "a.parquet")


def test_the_command(ctc_folder: Path, clips: pd.DataFrame, tmp_path: Path) -> None:
    write_manifest(clips, tmp_path / "manifest.parquet")
    (tmp_path / "mine.yaml").write_text("kind: ctc\nweights: nowhere\n")
    arguments = ["transcribe", "--model", str(tmp_path / "mine.yaml"), "-S", f"weights={ctc_folder}"]
    arguments += ["--manifest", str(tmp_path / "manifest.parquet"), "--out", str(tmp_path / "out.parquet")]
    done = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert done.exit_code == 0
    said = " ".join(done.stderr.split())
    assert f"transcribe mine: 12 rows: {KEPT} kept their text" in said
    assert "6 recordings in" in said
    assert "s per hour of audio" in said
    assert read_manifest(tmp_path / "out.parquet")["text_source"].notna().all()
    assert np.array_equal(read_manifest(tmp_path / "out.parquet")["id"], clips["id"])


def test_spans_are_heard_one_by_one(config: CtcTranscriberConfig, tmp_path: Path) -> None:
    write_wave(tmp_path / "a.wav", 3.0, 200, seed=0)
    sha256 = hashlib.sha256((tmp_path / "a.wav").read_bytes()).hexdigest()
    row = {"path": str(tmp_path / "a.wav"), "sha256": sha256, "sample_rate": 16_000, "fold": 0}
    spans = [(0.0, 1.0), (1.0, 3.0), (0.0, 1.0), (None, None)]
    frame = pd.DataFrame(
        [
            {
                **row,
                "id": str(i),
                "start": start,
                "end": end,
                "duration_s": seconds,
                "num_samples": 16_000 * seconds,
            }
            for i, ((start, end), seconds) in enumerate(zip(spans, (1, 2, 1, 3), strict=True))
        ]
    )
    result = transcribe(config, frame, tmp_path / "out.parquet")
    assert (result.items, result.audio_s) == (3, 6.0)  # two rows are the same span
    model = Ctc(config, torch.device("cpu"))
    found = read_manifest(tmp_path / "out.parquet")
    for text, start, end in found[["text", "start", "end"]].itertuples(index=False):
        whole = load_waveform(tmp_path / "a.wav", 16_000)
        part = whole if start != start else whole[round(start * 16_000) : round(end * 16_000)]
        assert text == (model.transcribe(part, None) or None)
