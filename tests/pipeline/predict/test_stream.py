"""Where segments lie, and that chunks of any length find the same ones."""

from collections.abc import Sequence

import numpy as np
import pytest

from stillwave.pipeline.audio.decode import BadAudio
from stillwave.pipeline.predict.clips import Sound
from stillwave.pipeline.predict.results import Segment
from stillwave.pipeline.predict.stream import Span, Stream, in_samples, windows

RATE, SEGMENT, HOP = 10, 8, 3
BAD = -1.0  # a sample that no segment can be answered with


@pytest.mark.parametrize(
    ("num_samples", "expected"),
    [
        (3, [(0, 3)]),
        (8, [(0, 8)]),
        (9, [(0, 8), (1, 9)]),
        (11, [(0, 8), (3, 11)]),
        (13, [(0, 8), (3, 11), (5, 13)]),
        (17, [(0, 8), (3, 11), (6, 14), (9, 17)]),
    ],
)
def test_windows(num_samples: int, expected: list[Span]) -> None:
    assert windows(num_samples, SEGMENT, HOP) == expected


def test_seconds_to_samples() -> None:
    assert in_samples(1.5, 0.5, 16000) == (24000, 8000)
    assert in_samples(1e-9, 1e-9, 16000) == (1, 1)
    for segment_s, hop_s in ((0.0, 0.0), (1.0, 0.0), (1.0, 1.5), (-1.0, -1.0), (float("inf"), 1.0)):
        with pytest.raises(ValueError, match=f"segment_s {segment_s:g} and hop_s {hop_s:g}: segment_s must"):
            in_samples(segment_s, hop_s, 16000)


def tell(sound: Sound, spans: Sequence[Span]) -> list[Segment]:
    """Segments that name the very samples that they are of."""
    if any(stop - start < 2 for start, stop in spans):
        raise BadAudio("too_short", "less than 2 samples")
    if any((sound.waveform[start:stop] == BAD).any() for start, stop in spans):
        raise ValueError("the model's output is not a number")
    return [
        Segment(
            label=str(sound.waveform[start:stop].tolist()),
            probabilities={},
            entropy=0.0,
            learned_uncertainty=None,
            score=0.0,
            threshold=None,
            decision=None,
            start_s=0.0,
            end_s=0.0,
        )
        for start, stop in spans
    ]


def stream() -> Stream:
    return Stream(tell, RATE, SEGMENT, HOP)


@pytest.mark.parametrize("num_samples", [2, 7, 8, 9, 11, 13, 30, 200])
@pytest.mark.parametrize("chunk", [1, 2, 3, 7, 8, 50, 1000])
def test_any_chunks_give_the_segments_of_the_whole(num_samples: int, chunk: int) -> None:
    samples = np.arange(num_samples, dtype=np.float32) / 256
    one = stream()
    for again in range(2):  # flush begins anew
        found = []
        for start in range(0, num_samples, chunk):
            found += one.push(samples[start : start + chunk])
            complete = max(0, (min(num_samples, start + chunk) - SEGMENT) // HOP + 1)
            assert len(found) == complete, "a segment comes with the chunk that completes it"
        found += one.flush()
        spans = windows(num_samples, SEGMENT, HOP)
        assert [(s.start_s, s.end_s) for s in found] == [(a / RATE, b / RATE) for a, b in spans], again
        assert [s.label for s in found] == [str(samples[a:b].tolist()) for a, b in spans]


def test_a_stream_keeps_no_more_than_it_needs() -> None:
    one = stream()
    for _ in range(1000):
        one.push(np.zeros(1, np.float32))
        assert sum(len(chunk) for chunk in one._chunks) <= SEGMENT + HOP


@pytest.mark.parametrize("chunk", [1, 4, 13, 30, 100])
@pytest.mark.parametrize("bad", [0, 9, 20, 38])
def test_a_segment_that_fails_costs_no_other(bad: int, chunk: int) -> None:
    """As many errors as segments with the bad sample; the others are answered, in their order."""
    samples = np.arange(39, dtype=np.float32)
    samples[bad] = BAD
    one, found, failed = stream(), list[Segment](), 0
    for start in range(0, len(samples), chunk):
        try:
            found += one.push(samples[start : start + chunk])
        except ValueError:
            failed += 1
        assert chunk > 1 or len(one._chunks[0]) <= SEGMENT + HOP
    for _ in range(9):  # until nothing is left
        try:
            found += one.flush()
            break
        except ValueError:
            failed += 1
    spans = windows(len(samples), SEGMENT, HOP)
    good = [(a, b) for a, b in spans if not a <= bad < b]
    assert [(s.start_s, s.end_s) for s in found] == [(a / RATE, b / RATE) for a, b in good]
    assert [s.label for s in found] == [str(samples[a:b].tolist()) for a, b in good]
    assert failed == len(spans) - len(good)
    assert [s.start_s for s in one.push(np.ones(8, np.float32))] == [0.0]  # a new recording


def test_nothing_and_too_little_are_no_segments() -> None:
    one = stream()
    assert one.flush() == []
    assert one.push(np.zeros(0)) == []
    assert one.push(np.zeros(1)) == []
    assert one.flush() == []
    one.push(np.ones(2))
    assert [s.label for s in one.flush()] == ["[1.0, 1.0]"]


def test_a_bad_chunk_leaves_the_stream_as_it_was() -> None:
    one = stream()
    one.push(np.zeros(7, np.float32))
    with pytest.raises(BadAudio, match="non_finite: 1 of 1"):
        one.push(np.array([np.nan]))
    with pytest.raises(ValueError, match="samples of type int16"):
        one.push(np.zeros(1, np.int16))
    assert [s.label for s in one.push(np.ones((1, 2)))] == [str([0.0] * 7 + [1.0])]
