"""OpenMax: revised logits with one more class, the unknown, by distances to the known classes."""

from typing import Literal, Self, get_args

import torch
from torch import Tensor, nn

from stillwave.heads.base import Outputs
from stillwave.heads.scores import Score, one_minus

Distance = Literal["euclidean", "eucos", "cosine"]

# What `fit` found for a class. A fit needs three rows: two are always equally far from their mean.
STATUSES = ("not fitted", "fitted", "short", "few", "equal", "no correct rows")
FEWEST_ROWS = 3
# Relative to the largest distance, or to the 1 that the tail is shifted to: less than this is rounding.
SMALLEST_SPREAD = 1e-6


class OpenMax(nn.Module):
    """Weibull tails of the distances to the class means, used to move evidence to the unknown class.

    After Bendale & Boult, "Towards open set deep networks" (CVPR 2016), as in their code, not in the
    paper's listing: w is the Weibull's CDF, and the i-th of the `alpha` largest logits has the rank
    weight (alpha + 1 - i) / alpha. A larger `alpha` counts as the number of classes.

    fit: per class, the mean of the logits of the correctly classified rows, and a two-parameter Weibull on
    its `tail_size` largest distances to that mean, shifted to begin at 1 as libMR does:
    w(d) = CDF(d - min(tail) + 1), 0 where that is negative.

    distance: "euclidean"; "cosine", 1 - cosine; "eucos", euclidean / 200 + cosine, the authors' choice. They
    set the 200 by hand for the logits of one ImageNet network.

    With evidence e = max(logit, 0): revised = logit - w * rank * e, unknown = sum of w * rank * e. This is
    the authors' rule for positive logits. On negative logits their rule would raise the class and lower the
    unknown, more so the farther the item is; here these logits stay, because there is no evidence to move,
    and an item with no positive logit is unknown. Using |logit|, or logits shifted per item to be positive,
    as evidence is worse: what an item clearly is not would count for the unknown. On digits, as
    `benchmarks/open_set.py` splits them, these two give more than half of the probability to the unknown for
    29 % and 45 % of the known items (AUROC of that probability 84.7 and 81.3), this rule for 11 % (87.0), the
    authors' for 5 % (87.8).

    status says what was found for each class: "fitted"; "short", fewer correct rows than tail_size, so that
    all of them are the tail and w is large inside the class, too; and three that cannot be fitted: "few" (one
    or two correct rows), "equal" (a tail without spread), "no correct rows". For these w is 0: OpenMax does
    not change the class's logit.

    Everything, including the settings, is in buffers of fixed shape: a state_dict restores all of it.
    An item's result does not depend on its batch.
    """

    means: Tensor
    shift: Tensor
    shape: Tensor
    scale: Tensor
    codes: Tensor
    settings: Tensor

    def __init__(
        self, num_classes: int, tail_size: int = 20, alpha: int = 10, distance: Distance = "euclidean"
    ) -> None:
        super().__init__()
        if tail_size < FEWEST_ROWS:
            raise ValueError(f"tail_size is {tail_size}; a Weibull needs at least {FEWEST_ROWS} distances")
        if alpha < 1:
            raise ValueError(f"alpha is {alpha}; it must be at least 1, to revise the most probable class")
        if distance not in get_args(Distance):
            raise ValueError(f"distance is {distance!r}; choose one of {', '.join(get_args(Distance))}")
        self.register_buffer("means", torch.zeros(num_classes, num_classes, dtype=torch.float64))
        self.register_buffer("shift", torch.zeros(num_classes, dtype=torch.float64))
        self.register_buffer("shape", torch.ones(num_classes, dtype=torch.float64))
        self.register_buffer("scale", torch.full((num_classes,), torch.inf, dtype=torch.float64))
        self.register_buffer("codes", torch.zeros(num_classes, dtype=torch.int64))
        settings = [tail_size, alpha, get_args(Distance).index(distance)]
        self.register_buffer("settings", torch.tensor(settings))

    @property
    def tail_size(self) -> int:
        """How many of the largest distances of a class make its tail."""
        return int(self.settings[0])

    @property
    def alpha(self) -> int:
        """How many of the largest logits to revise."""
        return int(self.settings[1])

    @property
    def distance(self) -> Distance:
        """The distance between an item and a class mean."""
        choices: tuple[Distance, ...] = get_args(Distance)
        return choices[int(self.settings[2])]

    @property
    def status(self) -> tuple[str, ...]:
        """One of STATUSES per class."""
        return tuple(STATUSES[code] for code in self.codes.tolist())

    @torch.no_grad()
    def fit(self, logits: Tensor, labels: Tensor) -> Self:
        """logits (rows, classes), labels (rows,) of the training rows. No class needs to have any."""
        self._check_width(logits)
        if not logits.isfinite().all():
            bad = (~logits.isfinite().all(1)).nonzero()[:, 0].tolist()
            raise ValueError(f"the logits of {len(bad)} training rows are not finite, first of row {bad[0]}")
        logits = logits.to(self.means)
        labels = labels.to(logits.device)
        correct = logits.argmax(1) == labels
        for number in range(len(self.means)):
            rows = logits[correct & (labels == number)]
            if not len(rows):
                self._set(number, "no correct rows", logits.new_zeros(logits.shape[1]))
                continue
            mean = rows.mean(0)
            tail = self._distances(rows, mean[None])[:, 0].sort().values[-self.tail_size :]
            if len(rows) < FEWEST_ROWS:
                self._set(number, "few", mean)
            elif tail[-1] - tail[0] <= SMALLEST_SPREAD * tail[-1].clamp(min=1):
                self._set(number, "equal", mean)
            else:
                status = "short" if len(rows) < self.tail_size else "fitted"
                self._set(number, status, mean, float(tail[0]), *fit_weibull(tail - tail[0] + 1))
        return self

    def weights(self, logits: Tensor) -> Tensor:
        """The probability w that an item is outside each class: (batch, classes) -> the same, 0 to 1."""
        if not len(self.codes) or not self.codes.all():
            raise ValueError("this OpenMax is not fitted; call fit with the logits of the training rows")
        self._check_width(logits)
        beyond = (self._distances(logits.to(self.means), self.means) - self.shift + 1).clamp(min=0)
        return -torch.expm1(-((beyond / self.scale) ** self.shape))

    def revise(self, logits: Tensor) -> Tensor:
        """Logits (batch, classes) -> revised logits (batch, classes + 1), the unknown last."""
        alpha = min(self.alpha, logits.shape[1])
        place = logits.argsort(dim=1, descending=True, stable=True).argsort(dim=1)  # 0 for the largest
        rank = ((alpha - place.to(self.means.dtype)) / alpha).clamp(min=0)
        wide = logits.to(self.means)
        moved = self.weights(logits) * rank * wide.clamp(min=0)
        return torch.cat([wide - moved, moved.sum(1, keepdim=True)], 1)

    def forward(self, logits: Tensor) -> Tensor:
        """Logits (batch, classes) -> probabilities (batch, classes + 1), the unknown last."""
        return self.revise(logits).softmax(1)

    def _check_width(self, logits: Tensor) -> None:
        if logits.ndim != 2 or logits.shape[1] != len(self.means):
            raise ValueError(f"expected logits (rows, {len(self.means)}), got {tuple(logits.shape)}")

    def _set(
        self,
        number: int,
        status: str,
        mean: Tensor,
        shift: float = 0.0,
        shape: float = 1.0,
        scale: float = torch.inf,  # x / inf is 0, and so is the CDF
    ) -> None:
        self.codes[number] = STATUSES.index(status)
        self.means[number] = mean
        self.shift[number], self.shape[number], self.scale[number] = shift, shape, scale

    def _distances(self, points: Tensor, means: Tensor) -> Tensor:
        """(batch, dim) and (classes, dim) -> (batch, classes)."""
        # From differences: a distance by matrix product would depend on the batch in its last digits.
        euclidean: Tensor = torch.linalg.vector_norm(points[:, None] - means, dim=-1)
        if self.distance == "euclidean":
            return euclidean
        cosine = 1 - nn.functional.cosine_similarity(points[:, None], means, dim=-1)
        return cosine if self.distance == "cosine" else euclidean / 200 + cosine


def fit_weibull(values: Tensor) -> tuple[float, float]:
    """Maximum-likelihood shape and scale of a two-parameter Weibull; values (n,) > 0, not all equal.

    The shape k is the root of  sum(x^k ln x) / sum(x^k) - mean(ln x) - 1 / k,  which grows with k.
    Then scale^k = mean(x^k).
    """
    logs = values.double().log()
    # Relative to the largest value, nothing overflows, and the root is the same.
    top = logs.max()
    logs = logs - top
    mean = logs.mean()

    def slope(k: float) -> float:
        weights = (k * logs).exp()
        return float((weights @ logs) / weights.sum() - mean) - 1 / k

    low = high = 1.0
    while slope(low) > 0:
        low /= 2
    while slope(high) < 0:
        high *= 2
    while low < (middle := (low + high) / 2) < high:  # until no number is between them
        low, high = (middle, high) if slope(middle) < 0 else (low, middle)
    log_scale = (low * logs).exp().mean().log() / low + top
    return low, float(log_scale.exp())


class OpenMaxScore(Score):
    """1 - the largest of OpenMax's probabilities of the known classes, 0 to 1. Settings as in `OpenMax`.

    It covers both of the paper's reasons to reject: the unknown is probable, or no class is.
    """

    def __init__(self, tail_size: int = 20, alpha: int = 10, distance: Distance = "euclidean") -> None:
        super().__init__()
        self.openmax = OpenMax(0, tail_size, alpha, distance)

    def fit(self, outputs: Outputs, labels: Tensor, output: nn.Linear) -> Self:
        """See `OpenMax.fit`."""
        old, logits = self.openmax, outputs.logits
        self.openmax = OpenMax(logits.shape[1], old.tail_size, old.alpha, old.distance).to(logits.device)
        self.openmax.fit(logits, labels)
        return self

    def forward(self, outputs: Outputs) -> Tensor:
        """-> (batch,)."""
        probabilities: Tensor = self.openmax(outputs.logits)
        return one_minus(probabilities, probabilities[:, :-1].argmax(1))
