"""What is said of a clip: label, probabilities, how sure, and whether it is of a known class at all."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stillwave.pipeline.config.recipe import UNKNOWN_NAME

Values = dict[str, NDArray[np.float64]]  # p (..., classes), and score, threshold, perhaps uncertainty (...)


@dataclass(frozen=True, kw_only=True)
class Answer:
    """label: the most probable class. probabilities: of all classes, calibrated.

    uncertainty: 0 to 1; the head's own estimate where it has learned one, else the entropy of the
        probabilities as a part of the largest possible.
    score: the recipe's open-set score, higher = more outlying. decision: `unknown` above the threshold, else
        the label; both None where the run has no threshold.
    """

    label: str
    probabilities: dict[str, float]
    uncertainty: float
    score: float
    threshold: float | None
    decision: str | None


@dataclass(frozen=True, kw_only=True)
class Segment(Answer):
    """The answer for a part of a recording, in seconds from its start."""

    start_s: float
    end_s: float

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        fields = asdict(self)
        return {name: fields.pop(name) for name in ("start_s", "end_s")} | fields


@dataclass(frozen=True, kw_only=True)
class Prediction(Answer):
    """The answer for a clip; segments: of a long one, whose mean it is. duration_s: None without audio."""

    clip: str
    duration_s: float | None
    segments: tuple[Segment, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        fields = asdict(self) | {"segments": [segment.to_dict() for segment in self.segments]}
        return {name: fields.pop(name) for name in ("clip", "duration_s")} | fields


@dataclass(frozen=True)
class Failure:
    """A clip that could not be predicted, and why."""

    clip: str
    error: str

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)


def fields_of(values: Values, classes: Sequence[str]) -> dict[str, Any]:
    """The fields of the Answer that the values of one item make. ValueError where they are no numbers."""
    p, score, threshold = values["p"], float(values["score"]), float(values["threshold"])
    if not np.isfinite(p).all():
        raise ValueError(
            "the model's answer is not a number: its frames or logits overflow in this precision"
        )
    label = classes[int(p.argmax())]
    decision = None if math.isnan(threshold) else label if score <= threshold else UNKNOWN_NAME
    return {
        "label": label,
        "probabilities": dict(zip(classes, p.tolist(), strict=True)),
        "uncertainty": float(values["uncertainty"]) if "uncertainty" in values else entropy(p),
        "score": score,
        "threshold": None if math.isnan(threshold) else threshold,
        "decision": decision,
    }


def entropy(p: NDArray[np.float64]) -> float:
    """Of probabilities (classes,), as a part of that of equal ones: 0 to 1."""
    some = p[p > 0]
    return float(-(some * np.log(some)).sum() / math.log(len(p))) + 0.0  # no -0.0


def mean_of(parts: Sequence[Values]) -> Values:
    """The mean of each value over several of the kind: models, or segments."""
    return {name: np.mean([part[name] for part in parts], axis=0) for name in parts[0]}
