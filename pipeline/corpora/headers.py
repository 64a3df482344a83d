"""Sample rates and lengths of a corpus, from the headers of some of its files."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import soundfile

HEADERS = 100  # files to read
LONGEST_S, SHORTEST_S = 30.0, 0.1


def look_at(files: Sequence[Path], warnings: list[str]) -> dict[str, Any]:
    """Add warnings from a sample of the files' headers; returns the duration limits that the corpus needs."""
    some = files[:: max(1, len(files) // HEADERS)][:HEADERS]
    infos, unreadable = [], []
    for file in some:
        try:
            infos.append(soundfile.info(str(file)))
        except soundfile.LibsndfileError:
            unreadable.append(file)
    rates = Counter(info.samplerate for info in infos)
    of = f"of {len(some)} files checked"
    if unreadable:
        warnings.append(f"{len(unreadable)} {of} cannot be read, first {unreadable[0]}")
    if len(rates) > 1:
        each = ", ".join(f"{rate} Hz {n}" for rate, n in sorted(rates.items()))
        warnings.append(f"sample rates differ ({each} {of}): they may reveal labels or speakers")
    if short := sum(info.duration < SHORTEST_S for info in infos):
        warnings.append(f"{short} {of} are shorter than {SHORTEST_S:g} s")
    if long := sum(info.duration > LONGEST_S for info in infos):
        warnings.append(f"{long} {of} are longer than {LONGEST_S:g} s, the usual limit; the draft has none")
        return {"max_duration_s": None}
    return {}
