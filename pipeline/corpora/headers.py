"""Sample rates and lengths of a corpus, from the headers of some of its files."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import soundfile

from stillwave.pipeline.audio.decode import BadAudio, decode_noted
from stillwave.pipeline.audio.segments import Span
from stillwave.pipeline.corpora.base import Row
from stillwave.pipeline.corpora.paths import is_there, located
from stillwave.pipeline.corpora.spans import read_span

HEADERS = 100  # files to read
LONGEST_S, SHORTEST_S = 30.0, 0.1


def look_at(files: Sequence[Path], warnings: list[str], spans: Sequence[Span | None] = ()) -> dict[str, Any]:
    """Add warnings from a sample of the files' headers; returns the duration limits that the corpus needs.

    spans: of the rows; their durations count, if some of them are spans.
    """
    some = files[:: max(1, len(files) // HEADERS)][:HEADERS]
    infos, unreadable = list[tuple[int, float]](), []
    for file in some:
        try:
            infos.append(_rate_and_duration(file))
        except BadAudio:
            unreadable.append(file)
    rates = Counter(rate for rate, _ in infos)
    of = f"of {len(some)} files checked"
    if unreadable:
        warnings.append(f"{len(unreadable)} {of} cannot be read, first {unreadable[0]}")
    if len(rates) > 1:
        each = ", ".join(f"{rate} Hz {n}" for rate, n in sorted(rates.items()))
        warnings.append(f"sample rates differ ({each} {of}): they may reveal labels or speakers")
    durations = [duration_s for _, duration_s in infos]
    if any(spans):
        known = [span.end - span.start for span in spans if span is not None and span.end is not None]
        durations = known + (durations if len(known) < len(spans) else [])
        of = f"of {len(durations)} rows"
    if short := sum(duration_s < SHORTEST_S for duration_s in durations):
        warnings.append(f"{short} {of} are shorter than {SHORTEST_S:g} s")
    if long := sum(duration_s > LONGEST_S for duration_s in durations):
        warnings.append(f"{long} {of} are longer than {LONGEST_S:g} s, the usual limit; the draft has none")
        return {"max_duration_s": None}
    return {}


def outside_file(rows: Sequence[Row], columns: Mapping[str, str], root: Path) -> str:
    """The first row behind the end of its file, in words; empty unless more than half of some rows are."""
    outside, checked = list[str](), 0
    for row in rows[:: max(1, len(rows) // HEADERS)]:
        file = located(root, row[columns["path"]] or "")
        try:
            span = read_span({name: row[columns[name]] for name in ("start", "end")})
            if span is not None and is_there(file):
                rate, duration_s = _rate_and_duration(file)
                checked += 1
                span.samples(rate, round(duration_s * rate))
        except BadAudio as error:
            if error.reason == "bad_span":
                outside.append(f"{row[columns['path']]} {error.detail.partition(';')[0]}")
        except ValueError:  # it is quarantined later
            continue
    return outside[0] if 2 * len(outside) > checked else ""


def _rate_and_duration(file: Path) -> tuple[int, float]:
    """From the header, or else by decoding: what phones record has no header that libsndfile knows."""
    try:
        info = soundfile.info(str(file))
        return info.samplerate, info.duration
    except soundfile.LibsndfileError:
        audio = decode_noted(file)
        return audio.sample_rate, len(audio.waveform) / audio.sample_rate
