"""The prediction for a clip: label, probabilities, uncertainty, and whether the class is known."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from stillwave.pipeline.config.recipe import UNKNOWN_NAME
from stillwave.pipeline.runs.calibrate import Values
from stillwave.pipeline.scores.decision import decide, entropy


@dataclass(frozen=True, kw_only=True)
class Answer:
    """label: the most probable class. probabilities: of all classes, calibrated.

    entropy: of the probabilities, as a fraction of the largest possible, 0 to 1. learned_uncertainty: the
        head's own estimate, 0 to 1; None for a head without one.
    score: the recipe's open-set score, higher is more outlying. decision: `unknown` above the threshold, else
        the label; both None if the run has no threshold.
    """

    label: str
    probabilities: dict[str, float]
    entropy: float
    learned_uncertainty: float | None
    score: float
    threshold: float | None
    decision: str | None


@dataclass(frozen=True, kw_only=True)
class Segment(Answer):
    """The prediction for a part of a recording, in seconds from its start."""

    start_s: float
    end_s: float

    def later(self, seconds: float) -> "Segment":
        """The same, of a recording that has so many seconds in front."""
        return replace(self, start_s=self.start_s + seconds, end_s=self.end_s + seconds)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        fields = asdict(self)
        return {name: fields.pop(name) for name in ("start_s", "end_s")} | fields


@dataclass(frozen=True, kw_only=True)
class Prediction(Answer):
    """The prediction for a clip; if long, the mean of its `segments`. duration_s: None without audio.

    start_s: of a clip that is a span of a file, in seconds from the file's start, as in its segments.
    note: what is unusual about its audio, as in a manifest; None if nothing is.
    """

    clip: str
    duration_s: float | None
    start_s: float | None = None
    note: str | None = None
    segments: tuple[Segment, ...] = ()

    @property
    def end_s(self) -> float | None:
        """Where the clip ends in its file; None without audio."""
        return None if self.duration_s is None else (self.start_s or 0.0) + self.duration_s

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; `start_s` and `end_s` only for a span of a file."""
        fields = asdict(self) | {"segments": [segment.to_dict() for segment in self.segments]}
        first = {name: fields.pop(name) for name in ("clip", "duration_s")}
        start_s, note = fields.pop("start_s"), fields.pop("note")
        span = {} if start_s is None else {"start_s": start_s, "end_s": self.end_s}
        return first | span | {"note": note} | fields


@dataclass(frozen=True)
class Failure:
    """A clip that could not be predicted, and why."""

    clip: str
    error: str

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)


def fields_of(values: Values, classes: Sequence[str]) -> dict[str, Any]:
    """The fields of an Answer from one item's `Calibration.values`. ValueError for NaN and infinity."""
    p, score, threshold = values["p"], values["score"], values["threshold"]
    if not np.isfinite(p).all():
        raise ValueError(
            "the model's output is not a number: its frames or logits overflow in this precision"
        )
    label = classes[int(p.argmax())]
    learned = values.get("score_learned_uncertainty")
    return {
        "label": label,
        "probabilities": dict(zip(classes, p.tolist(), strict=True)),
        "entropy": float(entropy(p)),
        "learned_uncertainty": None if learned is None else float(learned),
        "score": float(score),
        "threshold": None if np.isnan(threshold) else float(threshold),
        "decision": decide(np.array(label, object), score, threshold, UNKNOWN_NAME).item(),
    }
