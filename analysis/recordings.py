"""How the explorer's page reaches the recordings: links relative to the page, or small copies inside it."""

import base64
import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

import numpy as np
import soundfile

from stillwave.pipeline.audio.decode import BadAudio
from stillwave.pipeline.audio.files import is_url
from stillwave.pipeline.audio.segments import load_waveform

AUDIO = ("link", "embed", "none")
EMBEDDED_RATE = 16_000  # Hz
MAX_EMBEDDED_MB = 64


def links(paths: Sequence[str], folder: Path) -> tuple[list[str | None], list[str]]:
    """The link from a page in `folder` to each recording, percent-encoded, and the paths without one.

    Text-only rows, whose path is empty, have None and are not missing; a URL is missing, as the page makes no
    connections.
    """
    base = os.path.abspath(folder)  # noqa: PTH100 - resolve() would follow links
    missing: list[str] = []
    found: list[str | None] = []
    for path in paths:
        if not path:
            found.append(None)
        elif is_url(path) or not Path(path).is_file():
            found.append(None)
            missing.append(path)
        else:
            # as text, the way a browser joins the link with the page's own address; ":" is quoted, so that no
            # name can start a scheme
            found.append(quote(Path(os.path.relpath(os.path.abspath(path), base)).as_posix()))  # noqa: PTH100
    return found, missing


def embedded(paths: Sequence[str], known: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """Path -> FLAC (mono, 16 kHz) in base64, for those not `known` already, and the unreadable paths.

    Raises ValueError if they add up to more than MAX_EMBEDDED_MB.
    """
    clips: dict[str, str] = {}
    missing: list[str] = []
    size, bound = sum(map(len, known.values())), MAX_EMBEDDED_MB * 2**20
    wanted = [path for path in paths if path]
    for path in wanted:
        if path in known or path in clips:
            continue
        try:
            waveform = load_waveform(path, EMBEDDED_RATE)
        except BadAudio:
            missing.append(path)
            continue
        buffer = io.BytesIO()
        soundfile.write(buffer, np.clip(waveform, -1, 1), EMBEDDED_RATE, format="FLAC", subtype="PCM_16")
        clips[path] = base64.b64encode(buffer.getvalue()).decode()
        size += len(clips[path])
        if size > bound:
            raise ValueError(
                f"the recordings of {len(wanted)} rows are more than {MAX_EMBEDDED_MB} MB inside the page "
                f"({len(known) + len(clips)} of them already are); use --audio link, which plays them from "
                "their place, or analyze fewer rows (-S max_rows=500)"
            )
    return clips, missing
