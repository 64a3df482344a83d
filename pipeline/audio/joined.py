"""Files that were joined end to end, and Ogg chains: each recording in them is a file by itself."""

import re

from stillwave.pipeline.audio.packets import OGG_START, mp4_boxes, ogg_pages

# How a file of each kind begins: by so many bytes that samples do not happen to repeat them.
_INITIAL = b"".join(re.escape(bytes([flags])) for flags in range(256) if flags & 0x08)
_BEGINNINGS = {
    b"RIFF": rb"RIFF.{4}WAVE",
    b"RIFX": rb"RIFX.{4}WAVE",
    b"RF64": rb"RF64.{4}WAVE",
    b"BW64": rb"BW64.{4}WAVE",
    b"FORM": rb"FORM.{4}(?:AIFF|AIFC|8SVX|16SV)",
    b"riff": rb"riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb\x04\xc1\0\0",
    b"caff": rb"caff\0\x01\0\0desc",
    b".snd": rb"\.snd\0\0.{6}\0\0\0[\x01-\x1b]",
    b"dns.": rb"dns\...\0\0.{4}[\x01-\x1b]\0\0\0",
    b"fLaC": rb"fLaC[\x00\x80]\x00\x00\x22",  # the header of its first block is always the same
    b"NIST": rb"NIST_1A\n",
    b"\x64\xa3": rb"\x64\xa3[\x01-\x04]\0.{4}(?:\0\0\0.|.\0\0\0)",
    b" paf": rb" paf\0{8}",
    b"fap ": rb"fap \0{4}\x01\0{3}",
    b"2BIT": rb"2BIT.{8}(?:\0\0|\xff\xff)\0[\x08\x10]",
    b"PVF1": rb"PVF1\n\d+ \d+ \d+\n",
    b"MATL": rb"MATLAB 5\.0 MAT-file",
    b"\0\0\x03\xe8": rb"\0\0\x03\xe8.{16}samplerate\0",
    b"\0\0\0\0\x01\0\0\0": rb"\0{4}\x01\0{3}\x01\0{3}.{8}samplerate\0",
    b"\x01\x04": rb"\x01\x04[ -~]{16}.{3}[\0\x01]",
    b"\xf0\x7e": rb"\xf0\x7e.\x01.{2}[\x08-\x1c]",
    b"Creative": rb"Creative Voice File\x1a",
    b"ALaw": rb"ALawSoundFile\*\*",
    b"Extended": rb"Extended Instrument: ",
    b"#!AMR": rb"#!AMR(?:-WB)?\n",
    b"TTA1": rb"TTA1[\x01\x02]\0.\0[\x08\x10\x18]\0",
    b"wvpk": rb"wvpk.{5}\x04.{6}\0{4}.{5}[" + _INITIAL + rb"]",  # its first block, of index 0
    b"0&\xb2u": rb"0&\xb2u\x8ef\xcf\x11\xa6\xd9\0\xaa\0b\xcel",
}


def recordings(data: bytes) -> list[bytes]:
    """The recordings in a file, one after the other; most often the file itself.

    Joined streams of MP3, AAC and WebM need no splitting: FFmpeg reads all of them.
    """
    starts = _starts(data)
    return [data[start:stop] for start, stop in zip(starts, [*starts[1:], len(data)], strict=True)]


def _starts(data: bytes) -> list[int]:
    if data[:4] == b"OggS":
        return _ogg(data)
    if data[4:8] == b"ftyp":
        return [at for at, name, _ in mp4_boxes(data) if name == b"ftyp"]
    begins = next((begins for magic, begins in _BEGINNINGS.items() if data.startswith(magic)), None)
    size = int.from_bytes(data[4:8], "big" if data[:4] == b"FORM" else "little")
    if begins is None or (data[:4] in (b"RIFF", b"FORM") and size + 8 == len(data)):
        return [0]  # most files are as long as they say, and need not be searched
    return [0, *(found.start() for found in re.compile(begins, re.DOTALL).finditer(data, 4))]


def _ogg(data: bytes) -> list[int]:
    """RFC 3533, section 4: streams side by side start together, chained ones when the others have ended."""
    starts, begins = [0], True
    for position, flags, _ in ogg_pages(data):
        if flags & OGG_START and not begins:
            starts.append(position)
        begins = bool(flags & OGG_START)
    return starts
