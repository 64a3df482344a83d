"""Fitting after a head is trained: open-set scores, the temperature, and the scores' thresholds.

Scores are fitted on the training rows; temperature and thresholds on the validation rows, never on test rows.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from stillwave.heads.base import Head, Outputs
from stillwave.heads.calibration import fit_temperature
from stillwave.heads.open_set import SCORES, load_scorer
from stillwave.heads.openmax import OpenMaxScore
from stillwave.heads.scores import Score
from stillwave.pipeline.config.recipe import PROBABILITY_SCORES, OpenSet, Recipe
from stillwave.pipeline.runs.features import Features
from stillwave.pipeline.runs.inference import outputs_of
from stillwave.pipeline.runs.tensors import load_tensors, save_tensors, tensors_under

FILE = "calibration.safetensors"
RENAMED = {"uncertainty": "learned_uncertainty"}  # old names of scores, in runs of version 0.1
DEFAULT_THRESHOLD = 0.3  # for scores that are probabilities

Values = dict[str, NDArray[np.float64]]  # per row, by name


@dataclass(frozen=True)
class Calibration:
    """scorers: fitted scores, by name. temperature: None without validation rows.

    thresholds: by score; `keep` of the validation rows are below. Empty without validation rows.
    """

    scorers: dict[str, Score]
    temperature: float | None
    thresholds: dict[str, float]

    def softmax(self, logits: Tensor) -> Tensor:
        """(rows, classes), float64: softmax of the logits over the temperature, if there is one."""
        return (logits.double() / (self.temperature or 1.0)).softmax(1)

    def probabilities(self, outputs: Outputs, calibrated: bool = True) -> NDArray[np.float64]:
        """(rows, classes): the softmax of the logits."""
        own = self if calibrated else replace(self, temperature=None)
        values: NDArray[np.float64] = own.softmax(outputs.logits).numpy()
        return values

    def scores(self, outputs: Outputs, names: Collection[str] | None = None) -> Values:
        """Every score of every row, or those of `names` that exist: (rows,); higher is more outlying."""
        wanted = self.scorers if names is None else [name for name in self.scorers if name in names]
        return {name: self.scorers[name](outputs).numpy() for name in wanted}

    def values(self, outputs: Outputs, config: OpenSet, names: Collection[str] | None = None) -> Values:
        """A model's predictions for rows.

        p (rows, classes), calibrated; and (rows,) each: score_<name> for every score, or only those of
        `config` and `names`; tuned_<name>, its threshold, if there were validation rows; score and threshold,
        those of `config`.
        """
        scores = self.scores(outputs, None if names is None else {config.score, *names})
        values = {"p": self.probabilities(outputs)}
        values |= {f"score_{name}": value for name, value in scores.items()}
        thresholds = {f"tuned_{name}": value for name, value in self.thresholds.items() if name in scores}
        thresholds["threshold"] = threshold_of(config, config.score, self)
        values |= {name: np.full(len(outputs.logits), value) for name, value in thresholds.items()}
        return values | {"score": scores[config.score]}

    def save(self, folder: Path) -> None:
        """Write this to the fold's folder."""
        tensors = {
            f"{name}.{key}": tensor
            for name, scorer in self.scorers.items()
            for key, tensor in scorer.state_dict().items()
        }
        facts = {
            "scorers": list(self.scorers),
            "temperature": self.temperature,
            "thresholds": self.thresholds,
            "openmax": self.openmax_status(),
        }
        save_tensors(folder / FILE, tensors, facts)

    @classmethod
    def load(cls, folder: Path) -> "Calibration":
        """Load what `save` wrote. Raises ValueError naming the file if it cannot be read."""
        tensors, facts = load_tensors(folder / FILE)
        try:
            named = {RENAMED.get(name, name): name for name in facts["scorers"]}
            scorers = {
                name: load_scorer(name, tensors_under(f"{stored}.", tensors))
                for name, stored in named.items()
            }
            thresholds = {RENAMED.get(name, name): value for name, value in facts["thresholds"].items()}
            return cls(scorers, facts["temperature"], thresholds)
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"{folder / FILE}: not what training writes ({error}); train the run again"
            ) from None

    def openmax_status(self) -> list[str]:
        """The status of OpenMax's fit of each class; see heads/openmax.py."""
        score = self.scorers["openmax"]
        assert isinstance(score, OpenMaxScore)
        return list(score.openmax.status)


def calibrate(
    head: Head,
    features: Features,
    labels: NDArray[np.int64],
    train_rows: NDArray[np.int64],
    valid_rows: NDArray[np.int64],
    recipe: Recipe,
) -> Calibration:
    """Fit everything for a trained head, or a model with its methods.

    A fusion head's own OpenMax is also filled.
    """
    precision = recipe.train.precision
    known = outputs_of(head, features, train_rows, precision=precision)
    target = torch.from_numpy(labels[train_rows])
    output = nn.Linear(head.output.in_features, head.output.out_features)
    output.load_state_dict({name: tensor.cpu() for name, tensor in head.output.state_dict().items()})
    scorers = {
        name: scorer.fit(known, target, output) for name, scorer in build_scorers(recipe, known).items()
    }
    fitted = scorers["openmax"]
    assert isinstance(fitted, OpenMaxScore)
    head.keep_openmax(fitted.openmax)
    if not len(valid_rows):
        return Calibration(scorers, None, {})
    valid = outputs_of(head, features, valid_rows, precision=precision)
    temperature = fit_temperature(valid.logits, torch.from_numpy(labels[valid_rows]))
    thresholds = {
        name: float(np.quantile(scorer(valid).numpy(), recipe.open_set.keep, method="inverted_cdf"))
        for name, scorer in scorers.items()
    }
    return Calibration(scorers, temperature, thresholds)


def build_scorers(recipe: Recipe, outputs: Outputs) -> dict[str, Score]:
    """The scores that the head's outputs and losses allow, not yet fitted."""
    options = _options(recipe.open_set)
    learned = outputs.learned_uncertainty is not None and recipe.losses.uncertainty
    lacking = set() if learned else {"learned_uncertainty"}
    if not recipe.losses.cac and recipe.open_set.score != "cac":
        lacking.add("cac")  # distances between logits mean little without training for them
    return {name: kind(**options.get(name, {})) for name, kind in SCORES.items() if name not in lacking}


def threshold_of(config: OpenSet, score: str, calibration: Calibration) -> float:
    """Above it a row is unknown; NaN if there is none. ValueError for `tuned` without validation rows."""
    if isinstance(config.threshold, float):
        return config.threshold
    if config.threshold is None and score in PROBABILITY_SCORES:
        return DEFAULT_THRESHOLD
    if config.threshold == "tuned" and not calibration.thresholds:
        raise ValueError(
            "open_set.threshold: tuned needs validation rows; set train.valid_fraction, or give a number"
        )
    return calibration.thresholds.get(score, float("nan"))


def mean_of(parts: Sequence[Values]) -> Values:
    """The mean of each value over several models or segments."""
    return {name: np.mean([part[name] for part in parts], axis=0) for name in parts[0]}


def _options(config: OpenSet) -> dict[str, dict[str, object]]:
    return {
        "openmax": {"tail_size": config.tail_size, "alpha": config.alpha, "distance": config.distance},
        "knn": {"k": config.neighbours},
    }
