"""Stage `transcribe`: the manifest again, with a text for every recording that had none."""

import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from stillwave.pipeline.audio.decode import BadAudio, content_key
from stillwave.pipeline.audio.files import write_if_changed
from stillwave.pipeline.audio.segments import Span, content_of, load_waveform, span_of
from stillwave.pipeline.backbones.device import pick_device
from stillwave.pipeline.backbones.fingerprint import fingerprint
from stillwave.pipeline.backbones.quiet import quiet
from stillwave.pipeline.config.classes import imported
from stillwave.pipeline.corpora.manifest import write_manifest
from stillwave.pipeline.corpora.quarantine import (
    Quarantined,
    check_bad_fraction,
    quarantine_csv,
    quarantine_path,
)
from stillwave.pipeline.transcribe.base import Transcriber
from stillwave.pipeline.transcribe.config import TranscriberConfig
from stillwave.pipeline.transcribe.languages import languages_of
from stillwave.pipeline.transcribe.transcripts import Transcripts

SAVED_EVERY_S = 30.0  # so much work is lost when a run is killed
MIN_DURATION_S = 0.1  # shorter than any word

# By kind; a module is imported when a config asks for it.
TRANSCRIBERS = {
    "whisper": "stillwave.pipeline.transcribe.whisper:Whisper",
    "ctc": "stillwave.pipeline.transcribe.ctc:Ctc",
    "nemo": "stillwave.pipeline.transcribe.nemo:Nemo",
}


@dataclass(frozen=True)
class TranscribeResult:
    """Counts of rows: `kept` had a text, `transcribed` have one now, `silent` have none: no word was heard.

    known: those of the last two that an earlier run heard. items: distinct recordings decoded in this run.
    audio_s, seconds: duration of these, and what they took. quarantine: the file that lists `quarantined`.
    """

    rows: int
    kept: int
    transcribed: int
    silent: int
    known: int
    items: int
    audio_s: float
    seconds: float
    quarantined: tuple[Quarantined, ...]
    quarantine: str

    @property
    def seconds_per_hour(self) -> float:
        """Seconds of work for an hour of audio, loading the model left out; 0 if nothing was decoded."""
        return 3600 * self.seconds / self.audio_s if self.audio_s else 0.0


Key = tuple[str, str | None]  # of a distinct item: its content key, and the language that is told
File = tuple[str, str, Span | None]  # a path, the sha256 of its bytes, and the part of it


@dataclass
class _Decoded:
    """What a run decoded, and the recordings that it could not."""

    items: int = 0
    audio_s: float = 0.0
    seconds: float = 0.0
    bad: dict[Key, BadAudio] = field(default_factory=dict)


def transcribe(
    config: TranscriberConfig,
    manifest: pd.DataFrame,
    out: str | Path,
    *,
    device: str = "auto",
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> TranscribeResult:
    """Write `manifest` to `out`, a path or URL, with a `text` for every row that has audio and none.

    Rows that have a text keep it. A column `text_source` says `manifest`, or which model heard the text.
    Transcripts are kept in `<out>.transcripts.json`: the same model never decodes the same bytes twice. Rows
    without a usable recording stay without text, and `<out>.quarantine.csv` has the reason.

    progress: gets the items done, and all of them. Raises ValueError for rows in a language that the model
    does not know, and if more than `config.max_bad_fraction` of the rows cannot be transcribed.
    """
    target = pick_device(device)
    frame = manifest.reset_index(drop=True)
    for name in ("text", "text_source"):
        frame[name] = _without_blanks(frame, name)
    lacking = frame["text"].isna()
    frame.loc[lacking, "text_source"] = None
    frame.loc[~lacking & frame["text_source"].isna(), "text_source"] = "manifest"
    rows: list[dict[Any, Any]] = frame[lacking].to_dict("records")
    decoded, known_rows, quarantined = _Decoded(), 0, list[Quarantined]()
    if rows:
        transcriber: Transcriber = imported(TRANSCRIBERS[config.kind], "kind")(config, target)
        languages = languages_of(rows, transcriber.languages, transcriber.default, config.weights)
        known = Transcripts(out, fingerprint(transcriber))
        keys: list[Key] = [
            (content_key(content_of(row), row.get("decoder")), language)
            for row, language in zip(rows, languages, strict=True)
        ]
        files: dict[Key, File] = {
            key: (row["path"], row["sha256"], span_of(row))
            for key, row in zip(keys, rows, strict=True)
            if key not in known
        }
        known_rows = sum(key not in files for key in keys)
        decoded = _decode_all(transcriber, files, known, progress)
        for place, key, row in zip(frame.index[lacking], keys, rows, strict=True):
            if (bad := decoded.bad.get(key)) is None:
                frame.at[place, "text"], frame.at[place, "text_source"] = known[key] or None, known.name
            else:
                line = Quarantined(row["id"], row["path"], "transcribe", bad.reason, bad.detail)
                quarantined.append(line)
    path, usable = quarantine_path(out), len(frame) - len(quarantined)
    write_if_changed(path, quarantine_csv(quarantined))
    check_bad_fraction(quarantined, usable, config.max_bad_fraction, path)
    write_manifest(frame, out)
    silent = usable - int(frame["text"].notna().sum())
    return TranscribeResult(
        rows=len(frame),
        kept=len(frame) - len(rows),
        transcribed=len(rows) - len(quarantined) - silent,
        silent=silent,
        known=known_rows,
        items=decoded.items,
        audio_s=decoded.audio_s,
        seconds=decoded.seconds,
        quarantined=tuple(quarantined),
        quarantine=path,
    )


def _without_blanks(frame: pd.DataFrame, name: str) -> pd.Series:
    """A column's texts, as objects; None for those that are absent or blank."""
    values: list[Any] = frame[name].tolist() if name in frame else [None] * len(frame)
    texts = [value if isinstance(value, str) and value.strip() else None for value in values]
    return pd.Series(texts, dtype=object)


def _decode_all(
    transcriber: Transcriber,
    files: Mapping[Key, File],
    known: Transcripts,
    progress: Callable[[int, int], None],
) -> _Decoded:
    """Put the text of each file into `known`, which is saved on the way, and at the end whatever happens.

    On a CPU each file is decoded by one thread, with as many at once as there are threads: this is faster,
    and no text depends on their number.
    """
    total, threads = _Decoded(), torch.get_num_threads()
    on_host = transcriber.device.type == "cpu"
    one_each = partial(torch.set_num_threads, 1) if on_host else None
    pool = ThreadPoolExecutor(threads if on_host else 1, "stillwave-transcribe", initializer=one_each)
    started = saved = time.perf_counter()
    try:
        with quiet():  # transformers warns of what its own `generate` does
            texts = pool.map(partial(_decode, transcriber), files.items())
            for done, (key, (text, duration_s)) in enumerate(zip(files, texts, strict=True), start=1):
                if isinstance(text, BadAudio):
                    total.bad[key] = text
                else:
                    known[key] = text
                    total.items, total.audio_s = total.items + 1, total.audio_s + duration_s
                if time.perf_counter() - saved >= SAVED_EVERY_S:
                    known.save()
                    saved = time.perf_counter()
                progress(done, len(files))
    finally:  # also after Ctrl-C
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)
        known.save()
    total.seconds = time.perf_counter() - started
    return total


def _decode(transcriber: Transcriber, item: tuple[Key, File]) -> tuple[str | BadAudio, float]:
    """The text of a file, or why it has none, and its duration in seconds."""
    (_, language), (path, sha256, span) = item
    try:
        waveform = load_waveform(path, transcriber.sample_rate, expected_sha256=sha256, span=span)
    except BadAudio as error:
        return error, 0.0
    duration_s = len(waveform) / transcriber.sample_rate
    if duration_s < MIN_DURATION_S:
        detail = f"{duration_s:.3f} s; a transcript needs at least {MIN_DURATION_S:g} s"
        return BadAudio("too_short", detail), 0.0
    return transcriber.transcribe(waveform, language), duration_s
