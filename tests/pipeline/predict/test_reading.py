"""The inputs of a run's encoders from a clip, with several encoders of audio."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from stillwave.pipeline.audio.decode import BadAudio, resample, resampled_length
from stillwave.pipeline.backbones import build_backbone, parse_backbone
from stillwave.pipeline.predict.clips import Sound
from stillwave.pipeline.predict.reading import Reader

TINY = {"weights": "random", "size": "tiny"}
CONFIGS: dict[str, dict[str, Any]] = {
    "fbank": {"kind": "fbank"},
    "narrow": {"kind": "fbank", "sample_rate": 8000, "num_mels": 40, "deltas": 0},
    "long": {"kind": "fbank", "window_s": 0.2, "deltas": 0},
    "stereo": {"kind": "encodec", **TINY, "model": "48khz"},
    "clip": {"kind": "cnn1d", "clip_s": 1.0},
    "shorter": {"kind": "cnn1d", "clip_s": 0.5},
    "mbert": {"kind": "mbert", **TINY},
}


def reader(*names: str) -> Reader:
    return Reader({name: build_backbone(parse_backbone(CONFIGS[name], name, trusted=True)) for name in names})


def noise(*shape: int) -> NDArray[np.float32]:
    return (0.1 * np.random.default_rng(0).standard_normal(shape)).astype(np.float32)


def test_every_encoder_gets_its_own_rate_and_text() -> None:
    waveform = noise(12_000)
    item = reader("fbank", "narrow", "mbert").item(Sound(waveform, 16_000), "so it is", None)
    assert np.array_equal(item.inputs["fbank"], waveform)
    assert np.array_equal(item.inputs["narrow"], resample(waveform, 16_000, 8000))
    assert item.inputs["mbert"].dtype == np.int64
    assert len(item.inputs["mbert"]) > 2
    assert len(item) == 12_000


def test_a_text_is_read_in_one_form_of_unicode() -> None:
    read = reader("mbert")
    composed, apart = (read.item(None, text, None).inputs["mbert"] for text in ("sp\u00e4t", "spa\u0308t"))
    assert np.array_equal(composed, apart)


def test_encoders_of_one_and_of_two_channels_read_the_same_recording() -> None:
    both = reader("fbank", "stereo")
    assert both.channels == 2
    waveform = noise(48_000, 2)
    item = both.item(Sound(waveform, 48_000), None, None)
    assert np.array_equal(item.inputs["stereo"], waveform)
    alone = Sound(waveform.mean(1, dtype=np.float32), 48_000)
    assert np.array_equal(item.inputs["fbank"], reader("fbank").item(alone, None, None).inputs["fbank"])
    assert item.inputs["fbank"].shape == (16_000,)
    silent = reader("fbank", "stereo", "mbert").item(None, "so it is", None)
    assert (silent.inputs["fbank"].shape, silent.inputs["stereo"].shape) == ((0,), (0, 2))


@pytest.mark.parametrize("names", [("fbank", "long"), ("long", "fbank")])
def test_audio_too_short_for_one_encoder_is_read_by_the_others(names: tuple[str, str]) -> None:
    """As in training: its store lacks the row, and the others have it."""
    both = reader(*names)
    item = both.item(Sound(noise(1600), 16_000), None, None)
    assert (len(item.inputs["fbank"]), len(item.inputs["long"])) == (1600, 0)
    assert len(both.item(Sound(noise(3200), 16_000), None, None).inputs["long"]) == 3200
    with pytest.raises(BadAudio, match=r"0.010 s, 160 samples at 16000 Hz: less than one frame"):
        both.item(Sound(noise(160), 16_000), None, None)
    with pytest.raises(BadAudio, match="less than one frame"):
        reader("long").item(Sound(noise(1600), 16_000), None, None)


def test_lengths_are_counted_at_the_rate_of_each_encoder() -> None:
    narrow = reader("narrow")
    assert resampled_length(399, 16_000, 8000) == 200
    narrow.check_length(399, 16_000)  # 200 samples at 8 kHz are the window of 25 ms
    with pytest.raises(BadAudio, match=r"199 samples at 8000 Hz"):
        narrow.check_length(397, 16_000)
    reader("fbank", "narrow").check_length(399, 16_000)  # one sample short for fbank alone


def test_segments_are_no_longer_than_the_shortest_clip() -> None:
    for names in (("clip", "shorter", "fbank"), ("fbank", "shorter", "clip")):
        several = reader(*names)
        assert several.segment_s(None) == 0.5
        assert several.segment_s(0.3) == 0.3
        with pytest.raises(ValueError, match=r"segment_s is 0.8, .* uses only the first 0.5 s"):
            several.segment_s(0.8)
    assert reader("fbank", "narrow").segment_s(None) == 30.0
    assert reader("mbert").segment_s(40.0) == 40.0


def test_what_no_encoder_reads_is_told() -> None:
    with pytest.raises(ValueError, match="the run reads only audio"):
        reader("fbank", "narrow").check_text("so it is")
    reader("fbank", "mbert").check_text("so it is")
    with pytest.raises(ValueError, match="the run reads audio, but the clip has none"):
        reader("fbank", "narrow").item(None, "so it is", None)
    with pytest.raises(ValueError, match="the run reads audio or text, but the clip has none"):
        reader("fbank", "narrow", "mbert").item(None, None, None)
