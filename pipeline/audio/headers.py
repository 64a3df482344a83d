"""How long old formats of plain samples say that they are; their layouts are those of libsndfile's sources.

IRCAM, PVF, PAF and XI state no length where they begin: of these nobody can tell that they were cut.
"""

import re
import struct
from collections.abc import Callable

_NIST = rb"^%s -i (\d+)"
_NIST_FIELDS = (b"sample_count", b"channel_count", b"sample_n_bytes")
_VOC, _VOC_16_BITS = b"Creative Voice File\x1a", 9
_MAT4_BYTES = (8, 4, 4, 2, 2, 1)  # per value: double, float, int32, int16, uint16, uint8


def stated_end(data: bytes) -> int | None:
    """The number of bytes that the file has by its own header; None if that does not say."""
    read = next((read for magic, read in _FORMATS.items() if data.startswith(magic)), None)
    try:
        return read(data) if read else None
    except struct.error:
        return len(data) + 1


def _nist(data: bytes) -> int | None:
    header = data[:1024]
    found = [re.search(_NIST % name, header, re.MULTILINE) for name in _NIST_FIELDS]
    if not found[0] or not header[8:16].strip().isdigit():
        return None
    samples, channels, width = (int(match[1]) if match else 1 for match in found)
    return int(header[8:16]) + samples * channels * width


def is_voc_of_sox(data: bytes) -> bool:
    """Whether a VOC is one block of 16 bits whose size is 8 too small, and lacks what 24 bits do not hold.

    libsndfile reads it to the end of the file.
    """
    if not data.startswith(_VOC) or len(data) < 43 or data[26] != _VOC_16_BITS:
        return False
    size = int.from_bytes(data[27:30], "little")
    return (len(data) - 26 - 4 - 8 - 1 - size) % 2**24 == 0


def _voc(data: bytes) -> int | None:
    if is_voc_of_sox(data):
        return len(data)
    position: int = struct.unpack_from("<H", data, 20)[0]
    while position < len(data) and data[position]:  # a block of type 0 is the end
        position += 4 + int.from_bytes(data[position + 1 : position + 4], "little")
    return position


def _avr(data: bytes) -> int | None:
    stereo, bits, frames = struct.unpack_from(">hH10xI", data, 12)
    size: int = frames * (2 if stereo else 1) * bits // 8
    return 128 + size


def _mpc2k(data: bytes) -> int | None:
    stereo, frames = struct.unpack_from("<B8xI", data, 21)
    size: int = frames * (4 if stereo else 2)
    return 42 + size


def _wve(data: bytes) -> int | None:
    return 32 + int(struct.unpack_from(">I", data, 18)[0])


def _mat4(data: bytes) -> int | None:
    order = ">" if data[:4] == b"\0\0\x03\xe8" else "<"
    position = 0
    for _ in range(2):  # the rate, and the samples
        kind, rows, columns, imaginary, name = struct.unpack_from(f"{order}5I", data, position)
        width = _MAT4_BYTES[min(kind // 10 % 10, 5)]
        position += 20 + name + rows * columns * width * (2 if imaginary else 1)
    return position


def _mat5(data: bytes) -> int | None:
    order, position = ">" if data[126:128] == b"MI" else "<", 128
    for _ in range(2):
        _, size = struct.unpack_from(f"{order}2I", data, position)
        position += 8 + size
    return position - 8  # libsndfile states 8 too many


_FORMATS: dict[bytes, Callable[[bytes], int | None]] = {
    b"NIST_1A": _nist,
    _VOC: _voc,
    b"2BIT": _avr,
    b"\x01\x04": _mpc2k,
    b"ALawSoundFile**": _wve,
    b"\0\0\x03\xe8": _mat4,
    b"\0\0\0\0\x01\0\0\0\x01\0\0\0": _mat4,
    b"MATLAB 5.0": _mat5,
}
