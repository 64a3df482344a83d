"""Files that were joined end to end, and Ogg chains: each recording in them is a file by itself."""

import re

from stillwave.pipeline.audio.packets import OGG_START, mp4_boxes, ogg_pages

_FLAC = re.compile(
    rb"fLaC[\x00\x80]\x00\x00\x22"
)  # with the header of its first block, which is always the same


def recordings(data: bytes) -> list[bytes]:
    """The recordings in a file, one after the other: WAV, AIFF, AU, FLAC, MP4 or Ogg; else the file itself.

    Joined streams of MP3, AAC, AMR and WebM need no splitting: FFmpeg reads them on.
    """
    starts = _starts(data)
    return [data[start:stop] for start, stop in zip(starts, [*starts[1:], len(data)], strict=True)]


def _starts(data: bytes) -> list[int]:
    magic = data[:4]
    if magic == b"OggS":
        return _ogg(data)
    if magic == b"fLaC":
        return [0, *(found.start() for found in _FLAC.finditer(data, 4))]
    if data[4:8] == b"ftyp":
        return [at for at, name, _ in mp4_boxes(data) if name == b"ftyp"]
    starts, form = [0], b"" if magic == b".snd" else data[8:12]
    while (at := _end(data, starts[-1])) and data.startswith(magic, at) and data.startswith(form, at + 8):
        starts.append(at)
    return starts


def _end(data: bytes, start: int) -> int:
    """Where the WAV, AIFF or AU file at `start` ends by its own size; 0 for all others."""
    magic, size = data[start : start + 4], data[start + 4 : start + 8]
    if magic in (b"RIFF", b"FORM"):
        count = int.from_bytes(size, "little" if magic == b"RIFF" else "big")
        return start + 8 + count + count % 2
    if magic == b".snd":
        return start + int.from_bytes(size, "big") + int.from_bytes(data[start + 8 : start + 12], "big")
    return 0


def _ogg(data: bytes) -> list[int]:
    """RFC 3533, section 4: streams side by side start together, chained ones when the others have ended."""
    starts, begins = [0], True
    for position, flags, _ in ogg_pages(data):
        if flags & OGG_START and not begins:
            starts.append(position)
        begins = bool(flags & OGG_START)
    return starts
