"""What a file is by its first bytes, whatever its name says: which library reads it, or why none does."""

from stillwave.pipeline.audio import flac
from stillwave.pipeline.audio.headers import is_voc_of_sox

_WAVES = (b"RIFF", b"RIFX", b"RF64", b"BW64")
_LIBSNDFILE = (
    *_WAVES, b"FORM", b"caff", b"riff", b".snd", b"dns.", b"fLaC", b"NIST", b"2BIT", b" paf", b"fap ",
    b"PVF1", b"MATL", b"\x64\xa3", b"\0\0\x03\xe8", b"\0\0\0\0\x01\0\0\0\x01\0\0\0", b"ALaw",
    b"Exte", b"\x01\x04", b"\xf0\x7e",
)  # fmt: skip
_MPEG_IN_WAVE = (0x50, 0x55)  # libsndfile reads it, but believes the length in the header
_FLAC_BITS = (8, 16, 24)  # libsndfile refuses others

# What is met under the names of audio, and what to do about it.
_NAMES: tuple[tuple[bytes, str, str], ...] = (
    (b"version https://git-lfs", "a Git LFS pointer", "run `git lfs pull`"),
    (b"ajkg", "Shorten (.shn)", "convert it to FLAC with the `shorten` or `shntool` program"),
    (b"#EXTM3U", "a playlist", "give the files that it names"),
    (b"PK\x03\x04", "a ZIP archive", "unpack it"),
    (b"\x1f\x8b", "a gzip archive", "unpack it"),
    (b"Rar!", "a RAR archive", "unpack it"),
    (b"7z\xbc\xaf", "a 7z archive", "unpack it"),
    (b"%PDF", "a PDF", "remove it"),
    (b"\x89PNG", "a PNG picture", "remove it"),
    (b"\xff\xd8\xff", "a JPEG picture", "remove it"),
    (b"GIF8", "a GIF picture", "remove it"),
    (b"PAR1", "a Parquet table", "extract the audio from it"),
    (b"MThd", "MIDI, notes without sound", "render it"),
    (b"FRM8", "DSDIFF", "convert it to FLAC"),
    (b".ra\xfd", "RealAudio", "convert it to FLAC"),
    (b"<", "a web page or XML", "download the recording itself"),
    (b"{", "JSON", "download the recording itself"),
)  # fmt: skip
_MEDIA: tuple[tuple[int, bytes, str], ...] = (
    (4, b"ftyp", "MP4 (m4a, mp4, 3gp, mov)"),
    (0, b"\x1aE\xdf\xa3", "WebM or Matroska"),
    (0, b"OggS", "Ogg"),
    (0, b"#!AMR", "AMR"),
    (0, b"0&\xb2u", "Windows Media (wma)"),
    (8, b"AVI ", "AVI"),
    (8, b"WAVE", "WAV"),
    (8, b"AIF", "AIFF"),
    (0, b"caff", "CAF"),
    (0, b"fLaC", "FLAC"),
    (0, b"NIST", "NIST SPHERE"),
    (0, b"Creative Voice", "VOC"),
    (0, b"\x64\xa3", "IRCAM"),
    (0, b"wvpk", "WavPack"),
    (0, b"TTA1", "True Audio"),
    (0, b"MAC ", "Monkey's Audio"),
    (0, b"MPCK", "Musepack"),
    (0, b"MP+", "Musepack"),
)  # fmt: skip


def name_of(data: bytes) -> str | None:
    """The kind of container, as far as the first bytes tell."""
    return next((name for at, magic, name in _MEDIA if data[at : at + len(magic)] == magic), None)


def why_not(data: bytes, said: str) -> str:
    """What a file is that no library reads, and the remedy. said: the libraries' own words."""
    for magic, name, remedy in _NAMES:
        if data.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(magic):
            return f"{name}: {remedy}"
    if data[:4] == b"NIST" and b"shorten" in data[:1024]:
        return "NIST SPHERE compressed by Shorten: unpack it with `sph2pipe -f wav`"
    if kind := name_of(data):
        return f"{kind} that cannot be read ({said}): convert it to WAV or FLAC"
    return f"no audio format is recognised in it ({said})"


def is_known(data: bytes) -> bool:
    """Whether a file begins as those of a kind that is read; MP3 and AAC have no such beginning."""
    return name_of(data) is not None or is_for_libsndfile(data)


def is_for_libsndfile(data: bytes) -> bool:
    """Whether libsndfile reads such a file exactly; what it then refuses after all, FFmpeg may read."""
    if data[:4] == b"fLaC":
        bits, samples = flac.info(data)
        stated = 0 < samples <= flac.most_samples(data) and samples >= flac.end_of_last_frame(data)
        return bits in _FLAC_BITS and stated  # libsndfile stops where the header says
    if data[:4] == b"OggS":  # FFmpeg gets Vorbis's length wrong by up to a packet
        return data[28:35] == b"\x01vorbis"
    if data[:4] in _WAVES and (found := data.find(b"fmt ", 12, 4096)) >= 0:
        return int.from_bytes(data[found + 8 : found + 10], "little") not in _MPEG_IN_WAVE
    if is_voc_of_sox(data):  # of the others it takes headers of blocks for samples
        return True
    if data[:4] == b"FORM" and data[8:12] in (b"8SVX", b"16SV"):
        return False  # libsndfile takes its padding for a sample
    is_htk = 2 * int.from_bytes(data[:4], "big") + 12 == len(data)  # it has no other mark
    return is_htk or data.startswith(_LIBSNDFILE)
