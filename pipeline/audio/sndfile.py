"""Reading with libsndfile, which is exact for PCM, FLAC and Vorbis."""

import io
import os
from typing import Any

import numpy as np
import soundfile
from numpy.typing import NDArray

from stillwave.pipeline.audio.samples import NO_LENGTH, BadAudio, Samples, Waveform

_BLOCK = 2**22  # values at a time: recordings of a minute or two are read at once
_SMALL = 2**18  # bytes; less is read faster from a Python object
_UNKNOWN_FRAMES = 2**62  # libsndfile reports SF_COUNT_MAX (2^63 - 1) if a stream does not state its length


# What it seeks in exactly, unlike Vorbis, and codecs that it reads from the start alone.
_SEEKED = ("WAV", "WAVEX", "RF64", "W64", "AIFF", "AU", "CAF", "FLAC")
_EXACT = ("PCM_", "FLOAT", "DOUBLE", "ULAW", "ALAW")


class Refused(Exception):
    """A file that libsndfile does not open; the message is its own."""


def read(data: bytes, samples: Samples) -> None:
    """Decode a whole file into `samples`. Raises Refused, and BadAudio if it holds less than it promises."""
    try:
        file = soundfile.SoundFile(_in_memory(data), closefd=True)
    except soundfile.LibsndfileError as error:
        raise Refused(_words(error)) from None
    with file:
        promised = file.frames if file.frames < _UNKNOWN_FRAMES else None
        samples.expect(promised or 0, file.samplerate)
        if promised is None:
            samples.notes.append(NO_LENGTH)
        rate, channels = file.samplerate, file.channels
        dtype = np.int16 if file.subtype == "PCM_16" else np.float32
        frames, before = max(1, _BLOCK // channels), samples.count
        while promised is None or samples.count - before < promised:
            wanted = frames if promised is None else min(frames, promised - samples.count + before)
            try:
                block = file.read(out=np.empty((wanted, channels), dtype))
            except soundfile.LibsndfileError as error:
                raise BadAudio("truncated", f"decoding stopped: {_words(error)}") from None
            if not len(block):
                break
            samples.add(_floats(block), rate)
        decoded = samples.count - before
        if promised is not None and decoded < promised:
            raise BadAudio("truncated", f"{promised} samples promised, {decoded} decoded")


def seekable(data: bytes) -> soundfile.SoundFile | None:
    """The file, open, if all of its samples can be read from any of them on; else None."""
    try:
        file = soundfile.SoundFile(_in_memory(data), closefd=True)
    except soundfile.LibsndfileError:
        return None
    exact = file.format in _SEEKED and file.subtype.startswith(_EXACT)
    if exact and file.seekable() and 0 < file.frames < _UNKNOWN_FRAMES:
        return file
    file.close()
    return None


def read_part(file: soundfile.SoundFile, first: int, last: int, samples: Samples) -> None:
    """Decode [first, last) of a `seekable` file into `samples`. Raises BadAudio if it ends before."""
    frames = max(1, _BLOCK // file.channels)
    try:
        if file.tell() != first:  # rows are often one behind the other
            file.seek(first)
        for start in range(first, last, frames):
            wanted = min(frames, last - start)
            block = file.read(wanted, dtype="float32", always_2d=True)
            if len(block) < wanted:
                raise BadAudio("truncated", f"{file.frames} samples promised, {start + len(block)} decoded")
            samples.add(block, file.samplerate)
    except soundfile.LibsndfileError as error:
        raise BadAudio("truncated", f"decoding stopped: {_words(error)}") from None


def _floats(block: NDArray[Any]) -> Waveform:
    """libsndfile's own division of 16-bit integers gives the same numbers, and takes three times as long."""
    floats: Waveform = block.astype(np.float32, copy=False)
    if block.dtype == np.int16:
        floats *= np.float32(2**-15)
    return floats


def _in_memory(data: bytes) -> int | io.BytesIO:
    """The bytes as a file: an anonymous one of the operating system, if it has them (Linux).

    libsndfile reads it directly. It reads a Python object by calling back, and each call needs the
    interpreter lock: decoding large files in parallel threads was then no faster than in one.
    """
    if len(data) < _SMALL or not hasattr(os, "memfd_create"):
        return io.BytesIO(data)
    try:
        descriptor = os.memfd_create("audio", os.MFD_CLOEXEC)
    except OSError:  # not permitted, or too many open files
        return io.BytesIO(data)
    try:
        left = memoryview(data)
        while left:
            left = left[os.write(descriptor, left) :]
        os.lseek(descriptor, 0, os.SEEK_SET)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _words(error: soundfile.LibsndfileError) -> str:
    return str(error.error_string).strip().rstrip(".")
