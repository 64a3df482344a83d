"""The recordings that a run was trained on, also as far as only spans of them are shared."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from stillwave.pipeline.audio.decode import content_key
from stillwave.pipeline.audio.segments import content_of, span_of

if TYPE_CHECKING:  # prediction starts without it
    import pandas as pd


def keys_of(manifest: "pd.DataFrame", recordings: Iterable[str]) -> list[str]:
    """What a run keeps of its rows: the keys of their recordings, and the samples of those that are spans."""
    rows = manifest.to_dict("records") if "start" in manifest else []
    return sorted({*recordings, *(" ".join(map(str, _samples(row))) for row in rows if span_of(row))})


class Seen:
    """keys: as `keys_of` has them."""

    def __init__(self, keys: Iterable[str]) -> None:
        self.keys = set(keys)
        self._spans: dict[str, list[tuple[int, int]]] = defaultdict(list)
        for key in self.keys:
            if " " in key:
                sha256, first, last = key.split()
                self._spans[sha256].append((int(first), int(last)))

    def has(self, row: Mapping[Any, Any], key: str | None = None) -> bool:
        """Whether a row of a manifest, or its `key` in a store, is or overlaps one of those."""
        sha256, first, last = _samples(row)
        known = {key, *(content_key(one, row.get("decoder")) for one in (sha256, content_of(row)))}
        overlaps = any(first < end and start < last for start, end in self._spans.get(sha256, ()))
        return overlaps or not self.keys.isdisjoint({*known, sha256, content_of(row)})


def _samples(row: Mapping[Any, Any]) -> tuple[str, int, int]:
    """The file of a row, and [first, last) of its samples."""
    span = span_of(row)
    first = 0 if span is None else round(span.start * int(row["sample_rate"]))
    return str(row["sha256"]), first, first + int(row["num_samples"])
