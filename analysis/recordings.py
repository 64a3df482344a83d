"""How the explorer's page reaches the recordings: links relative to the page, or small copies inside it."""

import base64
import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

import numpy as np
import pandas as pd
import soundfile

from stillwave.pipeline.audio.decode import BadAudio
from stillwave.pipeline.audio.files import is_url
from stillwave.pipeline.audio.segments import Span, load_waveform, span_of

AUDIO = ("link", "embed", "none")
EMBEDDED_RATE = 16_000  # Hz
MAX_EMBEDDED_MB = 64


class Recording(NamedTuple):
    """What a row plays: a file, or a span of it. path: empty for a row of text alone."""

    path: str
    span: Span | None = None

    @property
    def fragment(self) -> str:
        """The span as a media fragment (W3C), `#t=1.5,3.25`, which players take in the address of a file."""
        return "" if self.span is None else f"#t={str(self.span).strip('-').replace('-', ',')}"


def recordings_of(rows: pd.DataFrame) -> list[Recording]:
    """The recording of each row of a manifest or an analysis."""
    if "path" not in rows:
        return [Recording("")] * len(rows)
    table = rows[[name for name in ("path", "start", "end") if name in rows]].to_dict("records")
    return [Recording(row["path"] if isinstance(row["path"], str) else "", span_of(row)) for row in table]


def links(recordings: Sequence[Recording], folder: Path) -> tuple[list[str | None], list[str]]:
    """The link from a page in `folder` to each recording, percent-encoded, and the paths without one.

    Text-only rows, whose path is empty, have None and are not missing; a URL is missing, as the page makes no
    connections.
    """
    base = os.path.abspath(folder)  # noqa: PTH100 - resolve() would follow links
    missing: list[str] = []
    found: list[str | None] = []
    for recording in recordings:
        path = recording.path
        if not path:
            found.append(None)
        elif is_url(path) or not Path(path).is_file():
            found.append(None)
            missing.append(path)
        else:
            # as text, the way a browser joins the link with the page's own address; ":" is quoted, so that no
            # name can start a scheme
            link = Path(os.path.relpath(os.path.abspath(path), base)).as_posix()  # noqa: PTH100
            found.append(quote(link) + recording.fragment)
    return found, missing


def embedded(
    recordings: Sequence[Recording], known: Mapping[Recording, str]
) -> tuple[dict[Recording, str], list[str]]:
    """FLAC (mono, 16 kHz) in base64 of those that are not `known` already, and the unreadable paths.

    Raises ValueError if they add up to more than MAX_EMBEDDED_MB.
    """
    clips: dict[Recording, str] = {}
    missing: list[str] = []
    size, bound = sum(map(len, known.values())), MAX_EMBEDDED_MB * 2**20
    wanted = [recording for recording in recordings if recording.path]
    for recording in wanted:
        if recording in known or recording in clips:
            continue
        try:
            waveform = load_waveform(recording.path, EMBEDDED_RATE, span=recording.span)
        except BadAudio:
            missing.append(recording.path)
            continue
        buffer = io.BytesIO()
        soundfile.write(buffer, np.clip(waveform, -1, 1), EMBEDDED_RATE, format="FLAC", subtype="PCM_16")
        clips[recording] = base64.b64encode(buffer.getvalue()).decode()
        size += len(clips[recording])
        if size > bound:
            raise ValueError(
                f"the recordings of {len(wanted)} rows are more than {MAX_EMBEDDED_MB} MB inside the page "
                f"({len(known) + len(clips)} of them already are); use --audio link, which plays them from "
                "their place, or analyze fewer rows (-S max_rows=500)"
            )
    return clips, missing
