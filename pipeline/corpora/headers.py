"""Sample rates and lengths of a corpus, from the headers of some of its files."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import soundfile

from stillwave.pipeline.audio.decode import BadAudio, decode_noted

HEADERS = 100  # files to read
LONGEST_S, SHORTEST_S = 30.0, 0.1


def look_at(files: Sequence[Path], warnings: list[str]) -> dict[str, Any]:
    """Add warnings from a sample of the files' headers; returns the duration limits that the corpus needs."""
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
    if short := sum(duration_s < SHORTEST_S for _, duration_s in infos):
        warnings.append(f"{short} {of} are shorter than {SHORTEST_S:g} s")
    if long := sum(duration_s > LONGEST_S for _, duration_s in infos):
        warnings.append(f"{long} {of} are longer than {LONGEST_S:g} s, the usual limit; the draft has none")
        return {"max_duration_s": None}
    return {}


def _rate_and_duration(file: Path) -> tuple[int, float]:
    """From the header, or else by decoding: what phones record has no header that libsndfile knows."""
    try:
        info = soundfile.info(str(file))
        return info.samplerate, info.duration
    except soundfile.LibsndfileError:
        audio = decode_noted(file)
        return audio.sample_rate, len(audio.waveform) / audio.sample_rate
