"""Whether an audio file holds all the bytes that its own headers promise.

libsndfile reads a WAV or OGG file that was cut short without an error, so the container is checked here
first.
"""

import struct
from typing import NamedTuple

# Sizes that mean "unknown", as written by programs that stream to a pipe (ffmpeg, sox).
_UNKNOWN_SIZES = {0xFFFFFFFF, 0x7FFFFFFF, 0x7FFFF000, 0xFFFFFFFFFFFFFFFF}


class _Chunks(NamedTuple):
    """How a chunked container is laid out; byte counts."""

    first: int  # where the first chunk starts
    id_bytes: int
    size_format: str  # for struct
    data_id: bytes
    align: int
    size_counts_header: bool = False


_LAYOUTS = {
    b"RIFF": _Chunks(12, 4, "<I", b"data", 2),
    b"RIFX": _Chunks(12, 4, ">I", b"data", 2),
    b"RF64": _Chunks(12, 4, "<I", b"data", 2),
    b"FORM": _Chunks(12, 4, ">I", b"SSND", 2),  # AIFF
    b"caff": _Chunks(8, 4, ">Q", b"data", 1),
    b"riff": _Chunks(40, 16, "<Q", b"data", 8, True),  # Sony Wave64
}
# These wrappers may hold other data than audio (AVI, 8SVX): leave those to the decoder.
_WAVE = (b"WAVE",)
_FORMS = {b"RIFF": _WAVE, b"RIFX": _WAVE, b"RF64": _WAVE, b"FORM": (b"AIFF", b"AIFC")}


def missing_bytes(data: bytes) -> str | None:
    """What is missing of an audio file's promised content, in words; None if nothing is known to be missing.

    Covers WAV (RIFF, RIFX, RF64), AIFF, CAF, Wave64, AU and OGG. FLAC and MP3 must be decoded to see.
    """
    magic = data[:4]
    if magic == b"OggS":
        return _ogg(data)
    if magic == b".snd":
        return _au(data)
    if magic in _LAYOUTS and data[8:12] in _FORMS.get(magic, (data[8:12],)):
        return _chunked(data, _LAYOUTS[magic])
    return None


def _chunked(data: bytes, layout: _Chunks) -> str | None:
    size_bytes = struct.calcsize(layout.size_format)
    header_bytes = layout.id_bytes + size_bytes
    position = layout.first
    data_size_64 = None
    while position + header_bytes <= len(data):
        chunk_id = data[position : position + 4]
        (size,) = struct.unpack_from(layout.size_format, data, position + layout.id_bytes)
        body = position + header_bytes
        if layout.size_counts_header:
            size = max(0, size - header_bytes)
        if chunk_id == b"ds64" and body + 16 <= len(data):
            (data_size_64,) = struct.unpack_from("<Q", data, body + 8)
        if chunk_id == layout.data_id:
            if size == 0xFFFFFFFF and data_size_64 is not None:
                size = data_size_64
            return _short_of(size, len(data) - body)
        position = body + -(-size // layout.align) * layout.align
    return "the file ends before its samples begin"


def _au(data: bytes) -> str | None:
    if len(data) < 12:
        return "the file ends inside its header"
    offset, size = struct.unpack_from(">II", data, 4)
    return _short_of(size, len(data) - offset)


def _short_of(size: int, here: int) -> str | None:
    if size in _UNKNOWN_SIZES or size <= here:
        return None
    return f"the header promises {size} bytes of samples, the file holds {max(0, here)}"


def _ogg(data: bytes) -> str | None:
    """Walk the pages (RFC 3533, section 6): each must be whole and the last must be marked end of stream."""
    position = 0
    ended = False
    while data[position : position + 4] == b"OggS":
        segments = data[position + 26] if position + 26 < len(data) else 0
        table = data[position + 27 : position + 27 + segments]
        end = position + 27 + segments + sum(table)
        if len(data) < position + 27 or len(table) < segments or end > len(data):
            return f"the OGG page at byte {position} is cut"
        ended = bool(data[position + 5] & 0x04)
        position = end
    return None if ended else "the last OGG page is not marked as the end of the stream"
