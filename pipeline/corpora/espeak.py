"""espeak-ng as a function: utterances in, samples out, the same bytes every time.

espeak-ng keeps state from one utterance to the next (such as its voice flutter), and Initialize does not
reset it. Therefore each call runs this file as a fresh child process that speaks all its utterances in order.
"""

import ctypes
import json
import os
import struct
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

# From espeak-ng's speak_lib.h.
_AUDIO_OUTPUT_SYNCHRONOUS = 2
_INITIALIZE_DONT_EXIT = 0x8000
_POS_CHARACTER = 1
_CHARS_UTF8 = 1
_RATE, _PITCH, _RANGE = 1, 3, 4
_Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p)


@dataclass(frozen=True)
class Utterance:
    """What to say and how. `voice` is a language with an optional variant ("de+f2")."""

    text: str
    voice: str
    rate: int  # words per minute, 80 to 450
    pitch: int  # 0 to 100; 50 is the voice's default
    range: int  # of the pitch, 0 (monotone) to 100; 50 is the voice's default


def synthesize(utterances: Sequence[Utterance]) -> tuple[list[bytes], int]:
    """Speak `utterances`: 16-bit little-endian mono samples of each, and the sample rate in Hz.

    Raises RuntimeError with espeak-ng's message if it fails, and ValueError if it is not installed.
    """
    from stillwave.pipeline.config.packages import needed  # here, because the child may not find it

    with needed("the demo corpus", "espeakng-loader"):
        import espeakng_loader  # noqa: F401 - the child uses it
    request = json.dumps([asdict(utterance) for utterance in utterances]).encode()
    # -P: this file's folder is not on the child's path, where its neighbours could shadow other modules.
    child = subprocess.run([sys.executable, "-P", __file__], input=request, capture_output=True)
    if child.returncode != 0:
        raise RuntimeError(
            f"espeak-ng failed ({child.returncode}): {child.stderr.decode(errors='replace')[-500:]}"
        )
    reply = memoryview(child.stdout)
    (sample_rate,) = struct.unpack_from("<I", reply)
    position, clips = 4, []
    for _ in utterances:
        (size,) = struct.unpack_from("<I", reply, position)
        clips.append(bytes(reply[position + 4 : position + 4 + size]))
        position += 4 + size
    return clips, sample_rate


def _child() -> None:
    """Read utterances as JSON on stdin; write the rate, then length and samples of each, on stdout."""
    import espeakng_loader

    utterances = [Utterance(**item) for item in json.load(sys.stdin.buffer)]
    library = ctypes.CDLL(str(espeakng_loader.get_library_path()))
    spoken = bytearray()

    def keep(samples: int | None, count: int, _events: int | None) -> int:
        if samples and count > 0:
            spoken.extend(ctypes.string_at(samples, 2 * count))
        return 0

    callback = _Callback(keep)
    output = sys.stdout.buffer
    with tempfile.TemporaryDirectory() as folder:
        # espeak-ng cuts paths at 160 bytes, and environments can have long paths: give it a short one.
        data = Path(folder, "espeak-ng-data")
        data.symlink_to(espeakng_loader.get_data_path())
        sample_rate = library.espeak_Initialize(
            _AUDIO_OUTPUT_SYNCHRONOUS, 0, os.fsencode(data), _INITIALIZE_DONT_EXIT
        )
        if sample_rate <= 0:
            raise RuntimeError(f"espeak_Initialize returned {sample_rate}")
        library.espeak_ng_SetRandSeed(1)  # Initialize seeds with the time, which is audible in breathy voices
        library.espeak_SetSynthCallback(callback)
        output.write(struct.pack("<I", sample_rate))
        for utterance in utterances:
            spoken.clear()
            _speak(library, utterance)
            output.write(struct.pack("<I", len(spoken)) + spoken)
    output.flush()


def _speak(library: ctypes.CDLL, utterance: Utterance) -> None:
    if library.espeak_SetVoiceByName(utterance.voice.encode()) != 0:
        raise RuntimeError(f"no voice {utterance.voice!r}")
    # Setting a voice resets the parameters, so they are set after it, for each utterance.
    for parameter, value in ((_RATE, utterance.rate), (_PITCH, utterance.pitch), (_RANGE, utterance.range)):
        library.espeak_SetParameter(parameter, value, 0)
    text = utterance.text.encode() + b"\0"
    status = library.espeak_Synth(text, len(text), 0, _POS_CHARACTER, 0, _CHARS_UTF8, None, None)
    if status != 0:
        raise RuntimeError(f"espeak_Synth returned {status} for {utterance.text!r}")


if __name__ == "__main__":
    _child()
