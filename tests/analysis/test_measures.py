"""What is measured of labels and speakers when some rows, or all of them, have no speaker."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from stillwave.analysis import measures
from stillwave.pipeline.config.analysis import Analysis, Neighbours, Probe

PER = 8


def voices(speakers: int = 24) -> tuple[NDArray[np.float32], NDArray[Any], NDArray[Any]]:
    """Vectors that hold the voice only, labels that are the speaker's own, and the speakers."""
    rng = np.random.default_rng(0)
    who = np.repeat(np.arange(speakers), PER)
    label = np.array(["a", "b", "c"], dtype=object)[rng.integers(0, 3, speakers)][who]
    x = 3 * rng.standard_normal((speakers, 16))[who] + rng.standard_normal((len(who), 16))
    return x.astype(np.float32), label, np.array([f"s{i}" for i in who], dtype=object)


@pytest.mark.parametrize("missing", [0.3, 0.9])
def test_rows_without_a_speaker_take_no_part_among_other_speakers(missing: float) -> None:
    """They may be of the very voice that is to be left out."""
    x, label, speaker = voices()
    speaker[np.random.default_rng(1).random(len(x)) < missing] = None
    known = np.array([name is not None for name in speaker])
    config = Analysis(neighbours=Neighbours(k=20, precision_at=(1, 20)))
    _, found = measures.retrieve(x, config, {"label": label, "speaker": speaker})
    few = Analysis(neighbours=Neighbours(k=min(20, known.sum() - 1), precision_at=(1,)))
    _, alone = measures.retrieve(x[known], few, {"label": label[known], "speaker": speaker[known]})
    for metric in measures.METRICS:
        assert found[metric]["label_apart"]["1"] == alone[metric]["label_apart"]["1"] < 0.7
        assert found[metric]["label"]["1"] > 0.9
    assert found["chance"]["label_apart"] == alone["chance"]["label_apart"]
    assert found["notes"] == [f"{(~known).sum()} rows without a speaker are left out"]
    assert alone["notes"] == []


def test_a_label_that_is_probed_without_speakers_says_so() -> None:
    x, label, speaker = voices()
    (without,) = measures.probe(x, Probe(), 0, {"label": label})
    assert without["notes"][0] == measures.NO_SPEAKERS
    assert without["uar"] > 0.8  # the same voice is on both sides
    held_out, of_speakers = measures.probe(x, Probe(), 0, {"label": label, "speaker": speaker})
    assert held_out["uar"] < 0.6
    assert held_out["notes"] == of_speakers["notes"] == []
