"""Files made by ffmpeg, sox and lame: the samples that the ffmpeg program finds, or a reason for none.

docs/audio.md has a table of the counts.
"""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from stillwave.pipeline.audio.decode import BadAudio, decode
from tests.zoo import encode, encode_av, tone

pytestmark = pytest.mark.skipif(
    not all(map(shutil.which, ("ffmpeg", "sox", "lame"))), reason="needs the programs ffmpeg, sox and lame"
)
FF, IN = "ffmpeg -v error -y -i a.wav", "</dev/null"
RAW = "sox a.wav -t raw - | sox -t raw -r 16000 -e signed -b 16 -c 1 -"  # sox then knows no length
MADE = {
    "ffmpeg_stream.flac": f"{FF} -f flac - {IN} > OUT",
    "sox_stream.flac": f"{RAW} -t flac - | cat > OUT",
    "flac_24.flac": f"{FF} -sample_fmt s32 OUT {IN}",
    "ffmpeg_stream.wav": f"{FF} -f wav - {IN} > OUT",
    "sox_stream.wav": f"{RAW} -t wav - | cat > OUT",
    "sox_stream_24.wav": f"{RAW} -b 24 -t wav - | cat > OUT",
    "sox_stream.aiff": f"{RAW} -t aiff - | cat > OUT",
    "sox_stream.au": f"{RAW} -t au - | cat > OUT",
    "ffmpeg_stream.au": f"{FF} -f au - {IN} > OUT",
    "ffmpeg_stream.caf": f"{FF} -f caf - {IN} > OUT",
    "ffmpeg_stream.voc": f"{FF} -f voc - {IN} > OUT",
    "sox.voc": "sox a.wav OUT",
    "sox.sph": "sox a.wav -t sph OUT",
    "sox_24.sph": "sox a.wav -b 24 -t sph OUT",
    "sox_24.ircam": "sox a.wav -b 24 -t ircam OUT",
    "sox.8svx": "sox a.wav -b 8 -t 8svx OUT",
    "lame_stream.mp3": "lame --quiet -V4 a.wav - > OUT",
    "lame_no_header.mp3": "lame --quiet -t -b 32 a.wav OUT",
    "lame_vbr.mp3": "lame --quiet -V2 a.wav OUT",
    "ffmpeg_stream.mp3": f"{FF} -c:a libmp3lame -q:a 4 -f mp3 - {IN} > OUT",
    "joined.mp3": "lame --quiet -V4 a.wav x.mp3 && lame --quiet -b 64 b.wav y.mp3 && cat x.mp3 y.mp3 > OUT",
    "tagged.mp3": "lame --quiet --tt A --add-id3v2 --id3v1-only a.wav OUT; lame --quiet --tt A -t a.wav OUT",
    "mp3_in_wav.wav": f"{FF} -c:a libmp3lame OUT {IN}",
    "layer_2.mp2": f"{FF} OUT {IN}",
    "aac.m4a": f"{FF} OUT {IN}",
    "faststart.m4a": f"{FF} -movflags +faststart OUT {IN}",
    "fragments.mp4": f"{FF} -movflags frag_keyframe+empty_moov OUT {IN}",
    "alac.m4a": f"{FF} -c:a alac OUT {IN}",
    "aac.aac": f"{FF} OUT {IN}",
    "aac.3gp": f"{FF} -c:a aac OUT {IN}",
    "opus.webm": f"{FF} OUT {IN}",
    "opus_48.webm": f"{FF} -ar 48000 -c:a libopus OUT {IN}",
    "live.webm": f"{FF} -ar 48000 -c:a libopus -f webm -live 1 - {IN} > OUT",
    "vorbis.webm": f"{FF} -c:a libvorbis OUT {IN}",
    "opus.opus": f"{FF} OUT {IN}",
    "chained.opus": f"{FF} x.opus {IN} && ffmpeg -v error -y -i b.wav y.opus {IN} && cat x.opus y.opus > OUT",
    "vorbis.ogg": f"{FF} -c:a libvorbis OUT {IN}",
    "flac.ogg": f"{FF} -c:a flac OUT {IN}",
    "speex.spx": f"{FF} -c:a libspeex OUT {IN}",
    "wma.wma": f"{FF} -c:a wmav2 OUT {IN}",
    "amr.amr": "cp amr OUT",  # few builds of these programs can make it
    "amr.3gp": "ffmpeg -v error -y -f amr -i amr -c copy OUT </dev/null",
    "ac3.ac3": f"{FF} OUT {IN}",
    "mp3.mkv": f"{FF} -c:a libmp3lame OUT {IN}",
    "wavpack.wv": f"{FF} OUT {IN}",
    "tta.tta": f"{FF} OUT {IN}",
}  # fmt: skip
REFUSED = {  # of MADE, too
    "sox_stream.w64": "unsupported: its header is there again where samples should be",
    "sox_stream.caf": "unsupported: its header is there again where samples should be",
    "two_rates.wav": "unsupported: the sample rate changes from 16000 to 8000 Hz after 3.133 s",
    "cut.sph": r"truncated: the header promises a file of \d+ bytes, but it has 60000",
}
MADE |= {
    "sox_stream.w64": "sox a.wav -t w64 - | cat > OUT",
    "sox_stream.caf": "sox a.wav -t caf - | cat > OUT",
    "two_rates.wav": f"ffmpeg -v error -y -i a.wav -ar 8000 half.wav {IN} && cat a.wav half.wav > OUT",
    "cut.sph": "sox a.wav -t sph x.sph && head -c 60000 x.sph > OUT",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("made")
    sweep = np.sin(np.linspace(0, 1, 50_123) ** 2 * 30_000) * 0.4
    (root / "a.wav").write_bytes(encode(sweep, format="WAV", subtype="PCM_16"))
    (root / "amr").write_bytes(encode_av(sweep, "libopencore_amrnb", "amr", 8000))
    (root / "b.wav").write_bytes(encode(tone(1.7, hz=300), format="WAV", subtype="PCM_16"))
    return root


def run(command: str, folder: Path) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(command, shell=True, cwd=folder, capture_output=True, check=False, timeout=60)


def made(name: str, folder: Path) -> Path:
    out = folder / name
    result = run(MADE[name].replace("OUT", name), folder)
    if not out.exists() or not out.stat().st_size:
        pytest.skip(f"these programs do not make it: {result.stderr.decode()[-200:]}")
    return out


@pytest.mark.parametrize("name", sorted(MADE.keys() - REFUSED.keys() - {"sox.voc"}))
def test_it_has_the_samples_that_the_ffmpeg_program_finds(name: str, folder: Path) -> None:
    path = made(name, folder)
    waveform, rate = decode(path)
    result = run(f"ffmpeg -v error -i {name} -ac 1 -ar {rate} -f f32le - </dev/null", folder)
    expected = np.frombuffer(result.stdout, dtype=np.float32)
    assert len(waveform) == len(expected)
    if name != "chained.opus":  # at a joint the program does not start the decoder anew
        np.testing.assert_allclose(waveform, expected, atol=3e-4)  # releases of FFmpeg round differently


@pytest.mark.parametrize(
    "name", ["ffmpeg_stream.flac", "lame_no_header.mp3", "aac.m4a", "aac.aac", "wma.wma", "amr.amr"]
)
def test_a_cut_one_is_truncated(name: str, folder: Path) -> None:
    data = made(name, folder).read_bytes()
    for keep in (0.4, 0.7):
        with pytest.raises(BadAudio) as caught:
            decode(data[: int(keep * len(data)) + 5])
        assert caught.value.reason == "truncated"


def test_chained_vorbis_has_the_samples_of_its_parts(folder: Path) -> None:
    """FFmpeg's program finds up to a packet more: it does not drop what each part's end drops."""
    for name in ("a", "b"):
        run(f"ffmpeg -v error -y -i {name}.wav -c:a libvorbis {name}.ogg </dev/null", folder)
    parts = [(folder / f"{name}.ogg").read_bytes() for name in ("a", "b")]
    assert len(decode(b"".join(parts))[0]) == 50_123 + 27_200


@pytest.mark.parametrize("name", ["wma.wma", "tta.tta", "wavpack.wv", "amr.amr"])
def test_two_joined_ones_are_both_read(name: str, folder: Path) -> None:
    data = made(name, folder).read_bytes()
    np.testing.assert_array_equal(decode(data + data)[0], np.tile(decode(data)[0], 2))


def test_a_voc_of_sox_has_the_samples_that_sox_wrote(folder: Path) -> None:
    """FFmpeg's program finds 4 fewer: it believes the size of the block, which is 8 bytes too small."""
    np.testing.assert_array_equal(decode(made("sox.voc", folder))[0], decode(folder / "a.wav")[0])


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_is_refused_by_the_true_reason(name: str, folder: Path) -> None:
    with pytest.raises(BadAudio, match=REFUSED[name]):
        decode(made(name, folder))
