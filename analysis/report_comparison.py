"""Several runs side by side: whether each differs from the first by more than chance."""

from typing import Any

from stillwave.analysis.report_runs import Shown
from stillwave.pipeline.evaluate.compare import compare


def comparison(shown: list[Shown]) -> list[dict[str, Any]]:
    """Every run against the first: `apart`, why their rows cannot be paired, or None if they can.

    Then `by_rows` is the result of `compare`, and `by_speakers` the same with speakers resampled, or None.
    """
    first, *others = shown
    against = []
    for other in others:
        found: dict[str, Any] = {"name": other.name, "report": other.report, "apart": _apart(first, other)}
        if not found["apart"]:
            speakers = _has_speakers(first) and _has_speakers(other)
            found["by_rows"] = compare(first.report, other.report)
            found["by_speakers"] = compare(first.report, other.report, group="speaker") if speakers else None
        against.append(found)
    return against


def _has_speakers(shown: Shown) -> bool:
    """Whether speakers can be resampled: every row has one, for known and unknown classes."""
    table = shown.predictions
    return "speaker" in table and bool(table["speaker"].notna().all()) and table["speaker"].nunique() > 1


def _apart(first: Shown, other: Shown) -> dict[str, Any] | None:
    """The column in which two runs' rows differ, how many rows each has, and how many are in both."""
    if first.metrics["run"]["rows"] == other.metrics["run"]["rows"]:
        return None
    ours, theirs = first.predictions.set_index("id"), other.predictions.set_index("id")
    both = ours.index.intersection(theirs.index)
    counts = {"ours": len(ours), "theirs": len(theirs), "both": len(both)}
    if len(both) < max(len(ours), len(theirs)):
        return counts | {"by": "id"}
    ours, theirs = ours.loc[both], theirs.loc[both]
    differing = (name for name in ("label", "known") if (ours[name] != theirs[name]).any())
    return counts | {"by": next(differing, "content")}
