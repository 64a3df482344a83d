"""What a FLAC file says about itself (RFC 9639), which may be less than it holds."""

_FRAME = 65_535, 8  # the most samples of a frame, and fewer bytes than any has
_SEARCHED = 2**18  # bytes; most frames have less than a tenth of that


def info(data: bytes) -> tuple[int, int]:
    """Bits per sample, and samples; 0 if they are unknown (section 8.2)."""
    packed = int.from_bytes(data[18:26].ljust(8, b"\0"), "big")
    return (packed >> 36 & 0x1F) + 1, packed & (2**36 - 1)


def most_samples(data: bytes) -> int:
    """More samples per channel than any codec puts into so many bytes (FLAC's silence is shortest)."""
    most, fewest = _FRAME
    return (len(data) // fewest + 1) * most


def end_of_last_frame(data: bytes) -> int:
    """The number of samples up to the end of the last frame, by the frame's own header; 0 if none is found.

    A header (section 9.1) counts if its checksum is right, and rate and bits are coded as in the first.
    """
    at = 4
    while at < len(data):  # the blocks of metadata
        is_last, at = data[at] & 0x80, at + 4 + int.from_bytes(data[at + 1 : at + 4], "big")
        if is_last:
            break
    first = data[at : at + 4]
    found = len(data)
    while len(first) == 4 and (found := data.rfind(first[:2], max(at, len(data) - _SEARCHED), found)) >= 0:
        header = data[found : found + 16]
        alike = len(header) > 6 and all(header[k] & 15 == first[k] & 15 for k in (2, 3))
        if alike and (end := _end(header, int.from_bytes(data[10:12], "big"))):
            return end
    return 0


def _end(header: bytes, block: int) -> int:
    """block: samples per frame, where all have as many. 0 if this is no header of a frame."""
    size = header[2] >> 4
    if not size:  # reserved
        return 0
    ones = 8 - (header[4] ^ 0xFF).bit_length()
    number, at = header[4] & (0x7F >> ones), 5 + max(0, ones - 1)  # coded as in UTF-8
    for byte in header[5:at]:
        number = number << 6 | byte & 0x3F
    wide = {6: 1, 7: 2}.get(size, 0)
    samples = int.from_bytes(header[at : at + wide], "big") + 1
    if not wide:
        samples = 192 if size == 1 else 576 << (size - 2) if size < 6 else 256 << (size - 8)
    at += wide + {12: 1, 13: 2, 14: 2}.get(header[2] & 15, 0)
    if at >= len(header) or _crc8(header[:at]) != header[at]:
        return 0
    return (number if header[1] & 1 else number * block) + samples


def _crc8(data: bytes) -> int:
    crc = 0
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc << 1 ^ 7 if crc & 0x80 else crc << 1) & 0xFF
    return crc
