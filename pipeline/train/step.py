"""One update of a model: on a batch in pieces, over all processes that train it."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from stillwave.heads.augment import FrameAugment
from stillwave.heads.base import Head
from stillwave.heads.masks import on_host
from stillwave.heads.objective import Objective
from stillwave.pipeline.backbones.device import to_device
from stillwave.pipeline.config.train import Train
from stillwave.pipeline.runs.features import Features
from stillwave.pipeline.train.processes import Processes


@dataclass(frozen=True)
class Step:
    """What an update needs in addition to its rows.

    A batch is cut into `config.accumulate` pieces for each process. A piece's losses count by its share of
    the batch (`Objective.shares`), so the gradient is that of the whole batch, no matter how it is cut.
    """

    head: Head
    labels: NDArray[np.int64]
    objective: Objective
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    config: Train
    augment: FrameAugment | None
    processes: Processes
    teacher: NDArray[np.float32] | None = None

    def __call__(
        self, features: Features, rows: NDArray[np.int64], generator: torch.Generator
    ) -> dict[str, float]:
        """Update the model by `rows`; returns the loss and its components, of the whole batch."""
        self.head.train()
        self.optimizer.zero_grad(set_to_none=True)
        count = self.processes.count
        pieces = np.array_split(rows, min(len(rows), self.config.accumulate * count))
        sums = torch.zeros(len(self.objective.weights), device=features.device)
        target = to_device(torch.from_numpy(self.labels[rows]), features.device)
        for piece in pieces[self.processes.rank :: count]:
            sums += self._backward(features, piece, target, generator)
        parameters = [p for p in self.head.parameters() if p.requires_grad]
        sums = self.processes.sum_of(sums)
        losses = dict(zip(self.objective.weights, sums.tolist(), strict=True))
        total = sum(weight * losses[name] for name, weight in self.objective.weights.items())
        if not np.isfinite(total):
            named = ", ".join(f"{name} {value}" for name, value in losses.items())
            raise ValueError(
                f"the loss became {total} ({named}) on a batch of {len(rows)} rows; lower "
                f"train.learning_rate (now {self.config.learning_rate}) or set train.precision: fp32 (now "
                f"{self.config.precision})"
            )
        self.processes.sum_gradients(parameters)
        self._update(parameters)
        parts = {f"loss_{name}": value for name, value in losses.items()}
        return {"train_loss": total} | (parts if len(parts) > 1 else {})

    def _backward(
        self, features: Features, rows: NDArray[np.int64], batch: torch.Tensor, generator: torch.Generator
    ) -> torch.Tensor:
        """Add a piece's gradient; returns its share of each of the batch's losses. batch: all its labels."""
        values, lengths, *others = features.batch(rows)
        if self.augment is not None:
            values, lengths = self.augment(values.float(), lengths, generator)
        target = to_device(torch.from_numpy(self.labels[rows]), features.device)
        with self.processes.autocast(features.device, self.config.precision):
            outputs = self.head.outputs(values, lengths, *others)
        taught = None
        if self.teacher is not None:
            taught = to_device(torch.from_numpy(self.teacher[rows]), features.device)
        losses = self.objective(self.head, outputs, target, taught)
        shares = self.objective.shares(target, batch)
        parts = {name: shares[name] * value for name, value in losses.items()}
        self.scaler.scale(self.objective.total(parts)).backward()
        return torch.stack([value.detach() for value in parts.values()])

    def _update(self, parameters: list[nn.Parameter]) -> None:
        self.scaler.unscale_(self.optimizer)
        limit = self.config.grad_clip
        norm = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None], foreach=True)
        # A CPU checks first, so that most steps do not multiply every gradient by 1; a GPU would have to
        # wait.
        if not on_host(norm) or not norm <= limit:
            nn.utils.clip_grads_with_norm_(parameters, limit, norm, foreach=True)
        self.scaler.step(self.optimizer)
        self.scaler.update()
