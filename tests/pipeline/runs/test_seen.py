"""What a run has seen, and what overlaps it."""

from typing import Any

import pandas as pd
import pytest

from stillwave.pipeline.audio.decode import content_key
from stillwave.pipeline.runs.seen import Seen, keys_of


def row(sha256: str, start: float | None = None, seconds: float = 1.0, **more: Any) -> dict[str, Any]:
    return {"sha256": sha256, "sample_rate": 10, "num_samples": 10 * seconds, "start": start, **more}


TRAINED = pd.DataFrame([row("a"), row("b", 2.0), row("b", 5.0, 2.0)])


@pytest.mark.parametrize(
    ("found", "wanted"),
    [
        (row("a"), True),
        (row("a", 0.5, 0.2), True),
        (row("b"), False),
        (row("b", None, 9.0), True),
        (row("b", 2.0), True),
        (row("b", 2.9, 0.5), True),
        (row("b", 3.0, 2.0), False),
        (row("b", 7.0), False),
        (row("c"), False),
    ],
)
def test_rows_that_share_samples_with_training_rows_are_seen(found: dict[str, Any], wanted: bool) -> None:
    assert Seen(keys_of(TRAINED, ["a"])).has(found) == wanted


def test_whole_files_are_kept_by_their_keys_alone() -> None:
    files = TRAINED[:1].drop(columns="start")
    assert keys_of(files, ["a", "x", "a"]) == ["a", "x"]
    key = content_key("m", "ffmpeg")
    assert Seen([key]).has(row("m", decoder="ffmpeg"))
    assert Seen([key]).has(row("m", 0.5, decoder="ffmpeg"))
    assert not Seen([key]).has(row("m"))
    assert Seen(["of-a-text"]).has(row("t"), "of-a-text")
