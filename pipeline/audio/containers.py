"""Whether an audio file holds all the bytes that its own headers promise.

Decoders read many files that were cut short without an error, so the container is checked here first.
"""

import re
import struct
from typing import NamedTuple

from stillwave.pipeline.audio.headers import stated_end
from stillwave.pipeline.audio.samples import NO_LENGTH, NOT_READ, BadAudio

# Programs that write to a pipe do not know the size yet, and put a large one (ffmpeg, sox, arecord, Python's
# wave): at one of these limits, or as much below it as a header or a rounding to whole blocks takes.
_LIMITS = (0x7F00_0000, 2_000_000_000, 2**31, 2**32)
_BELOW, _ABOVE = 8192, 16
_ENDLESS = 2**40  # no file holds a terabyte


class _Chunks(NamedTuple):
    """How a chunked container is laid out; byte counts."""

    first: int  # where the first chunk starts
    id_bytes: int
    size_format: str  # for struct
    data_id: bytes
    align: int
    size_counts_header: bool = False
    skip: int = 0  # what the size counts in front of the samples


class _Promise(NamedTuple):
    """What a header says: a size at a place, in a struct's format, for what starts at `body`."""

    at: int
    size_format: str
    size: int
    body: int
    extra: int = 0  # how much more the field counts than the bytes behind `body`


_AIFF, _SVX = (b"AIFF", b"AIFC"), (b"8SVX", b"16SV")
_LAYOUTS = {
    b"RIFF": _Chunks(12, 4, "<I", b"data", 2),
    b"RIFX": _Chunks(12, 4, ">I", b"data", 2),
    b"RF64": _Chunks(12, 4, "<I", b"data", 2),
    b"BW64": _Chunks(12, 4, "<I", b"data", 2),
    b"FORM": _Chunks(12, 4, ">I", b"SSND", 2, skip=8),
    b"caff": _Chunks(8, 4, ">Q", b"data", 1, skip=4),
    b"riff": _Chunks(40, 16, "<Q", b"data", 8, True),  # Sony Wave64
}
# These wrappers may hold other data than audio (AVI): leave those to the decoder.
_WAVE = (b"WAVE",)
_FORMS = {b"RIFF": _WAVE, b"RIFX": _WAVE, b"RF64": _WAVE, b"BW64": _WAVE, b"FORM": (*_AIFF, *_SVX)}
_CHUNK = re.compile(rb"[A-Za-z_][A-Za-z0-9_ ]{3}")


def check_header(data: bytes) -> None:
    """Raise BadAudio("unsupported") if a Wave64's or CAF's is followed by another one instead of samples."""
    promise = _promise(data, data[:4]) if data[:4] in (b"riff", b"caff") else None
    if promise and data[promise.body : promise.body + 4] == data[:4]:
        raise BadAudio(
            "unsupported",
            "its header is there again where samples should be: a program wrote it to a pipe, and tried to "
            "correct the header; let it write to a file",
        )


def whole(data: bytes) -> tuple[bytes, tuple[str, ...]]:
    """The file, with the size that is there if its own was implausible; and what is to be noted of it.

    Covers WAV, AIFF, SVX, CAF, Wave64, AU and the old formats that state a length. FLAC and MP3 must be
    decoded to see. Raises BadAudio("truncated") if something is missing.
    """
    magic = data[:4]
    if (end := stated_end(data)) is not None and end > len(data):
        raise BadAudio("truncated", f"the header promises a file of {end} bytes, but it has {len(data)}")
    promise = _promise(data, magic)
    if promise is None:
        return data, ()
    here = len(data) - promise.body
    if not _is_implausible(promise, data):
        if promise.size > here:
            raise BadAudio(
                "truncated",
                f"the header promises {promise.size} bytes of samples, the file holds {max(0, here)}",
            )
        return data, (NOT_READ,) if _leaves_some(promise, data) else ()
    field = struct.pack(promise.size_format, min(here + promise.extra, 2**32 - 1))
    return data[: promise.at] + field + data[promise.at + len(field) :], (NO_LENGTH,)


def _is_implausible(promise: _Promise, data: bytes) -> bool:
    here = len(data) - promise.body
    if promise.size <= 0:
        return here > 0 and not _CHUNK.match(data, promise.body)
    if promise.size <= here:
        return False
    stated = promise.size + promise.extra
    return stated >= _ENDLESS or any(limit - _BELOW <= stated <= limit + _ABOVE for limit in _LIMITS)


def _leaves_some(promise: _Promise, data: bytes) -> bool:
    """Whether something follows a WAV's or AIFF's samples that is no chunk, no ID3v1 tag and no padding."""
    end = promise.body + promise.size
    known = any(_CHUNK.match(data, end + pad) or data.startswith(b"TAG", end + pad) for pad in (0, 1))
    return data[:4] in _FORMS and not known and len(data[end:].strip(b"\0")) > 8


def _promise(data: bytes, magic: bytes) -> _Promise | None:
    if magic in _LAYOUTS:
        known = data[8:12] in _FORMS.get(magic, (data[8:12],))
        return _of_chunks(data, _LAYOUTS[magic]) if known else None
    if magic in (b".snd", b"dns."):
        if len(data) < 12:
            raise BadAudio("truncated", "the file ends inside its header")
        order = ">" if magic == b".snd" else "<"
        offset, size = struct.unpack_from(f"{order}II", data, 4)
        return _Promise(8, f"{order}I", size, offset)
    return None


def _of_chunks(data: bytes, layout: _Chunks) -> _Promise:
    size_bytes = struct.calcsize(layout.size_format)
    header_bytes = layout.id_bytes + size_bytes
    position = layout.first
    counted = header_bytes if layout.size_counts_header else 0
    wide: tuple[int, int] | None = None  # the 64-bit size of an RF64, and its place
    data_id, skip = (b"BODY", 0) if data[8:12] in _SVX else (layout.data_id, layout.skip)
    while position + header_bytes <= len(data):
        chunk_id = data[position : position + 4]
        (size,) = struct.unpack_from(layout.size_format, data, position + layout.id_bytes)
        body = position + header_bytes
        if chunk_id == b"ds64" and body + 16 <= len(data):
            wide = (struct.unpack_from("<Q", data, body + 8)[0], body + 8)
        if chunk_id == data_id:
            if size == 0xFFFFFFFF and wide is not None:
                return _Promise(wide[1], "<Q", wide[0], body)
            extra = counted + skip
            return _Promise(position + layout.id_bytes, layout.size_format, size - extra, body + skip, extra)
        size = max(0, size - counted)
        position = body + -(-size // layout.align) * layout.align
    raise BadAudio(
        "truncated",
        "no samples are found: the file ends before them, or a chunk in front states a wrong size",
    )
