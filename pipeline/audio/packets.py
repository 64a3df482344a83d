"""Containers of packets, Ogg, MP4 and WebM: whether they are whole."""

import re
from collections.abc import Iterator

from stillwave.pipeline.audio.samples import BadAudio

OGG_START, _OGG_END = 0x02, 0x04  # flags of pages
_BOX = re.compile(rb"[ -~]{4}")
_EBML, _SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"


def check_packets(data: bytes) -> None:
    """Raise BadAudio("truncated") if the outer structure of such a file ends too early."""
    if data[:4] == b"OggS":
        _check_ogg(data)
    elif data[4:8] == b"ftyp":
        _check_mp4(data)
    elif data[:4] == _EBML:
        _check_webm(data)


def _check_ogg(data: bytes) -> None:
    """Each page must be whole, and the last one marked as the end of its stream."""
    ended = False
    for position, flags, end in ogg_pages(data):
        if end > len(data):
            raise BadAudio("truncated", f"the OGG page at byte {position} is cut")
        ended = bool(flags & _OGG_END)
    if not ended:
        raise BadAudio("truncated", "the last OGG page is not marked as the end of the stream")


def ogg_pages(data: bytes) -> Iterator[tuple[int, int, int]]:
    """(position, flags, end) of each page (RFC 3533, section 6); a cut one ends beyond the data."""
    position = 0
    while data[position : position + 4] == b"OggS":
        header = data[position : position + 27]
        table = data[position + 27 : position + 27 + header[-1]] if len(header) == 27 else b""
        complete = len(header) == 27 and len(table) == header[-1]
        end = position + 27 + len(table) + sum(table) if complete else len(data) + 1
        yield position, header[5] if len(header) > 5 else 0, end
        position = end


def _check_mp4(data: bytes) -> None:
    """Each box must be whole, and moov, the index, among them."""
    names = set[bytes]()
    for _, name, end in mp4_boxes(data):
        if end > len(data):
            missing = end - len(data)
            raise BadAudio("truncated", f"the MP4 box {name.decode('latin-1')} lacks {missing} bytes")
        names.add(name)
    if b"moov" not in names:
        raise BadAudio("truncated", "MP4 without its index (moov): the recording was cut, or never finished")


def mp4_boxes(data: bytes) -> Iterator[tuple[int, bytes, int]]:
    """(position, name, end) of each outermost box (ISO/IEC 14496-12, section 4.2)."""
    position = 0
    while position + 8 <= len(data):
        size, name = int.from_bytes(data[position : position + 4], "big"), data[position + 4 : position + 8]
        if size == 1:
            size = int.from_bytes(data[position + 8 : position + 16], "big")
        end = position + size if size >= 8 else len(data)  # 0 is the rest of the file; or this is no box
        if position and (data.startswith(b"TAG", position) or not _BOX.fullmatch(name)):
            return  # it is an ID3v1 tag, or padding
        yield position, name, end
        position = end


def _check_webm(data: bytes) -> None:
    """The segment's size (RFC 8794, section 6), if it is stated: browsers leave it unknown."""
    size, start = _ebml_size(data, len(_EBML))
    position = start + size
    if data[position : position + 4] == _SEGMENT:
        size, start = _ebml_size(data, position + 4)
        unknown = size == 2 ** (7 * (start - position - 4)) - 1
        if not unknown and start + size > len(data):
            missing = start + size - len(data)
            raise BadAudio("truncated", f"the WebM or Matroska segment lacks {missing} of its {size} bytes")


def _ebml_size(data: bytes, at: int) -> tuple[int, int]:
    """A number of variable length, and the position behind it."""
    first = data[at] if at < len(data) else 0
    length = 9 - first.bit_length() if first else 8
    return int.from_bytes(data[at : at + length], "big") & (2 ** (7 * length) - 1), at + length
