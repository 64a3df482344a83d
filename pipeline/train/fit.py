"""The only training loop: batches in, a trained model out. It resumes after a kill."""

import math
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from stillwave.cache.batches import length_bucketed
from stillwave.heads.augment import FrameAugment
from stillwave.heads.base import Head
from stillwave.heads.objective import Objective
from stillwave.pipeline.backbones.device import place
from stillwave.pipeline.config.train import Losses, Train
from stillwave.pipeline.runs.features import Features
from stillwave.pipeline.runs.inference import predict
from stillwave.pipeline.runs.tensors import (
    load_state,
    load_tensors,
    restore_training,
    save_tensors,
    state_of,
    tensors_under,
    training_state,
)
from stillwave.pipeline.scores.classification import scores
from stillwave.pipeline.train.optimizer import build_optimizer, schedule, set_rate
from stillwave.pipeline.train.processes import Processes
from stillwave.pipeline.train.step import Step

CHECKPOINT_EVERY_S = 10.0
WEIGHTS = ("cross_entropy", "focal", "cac", "anchor", "uncertainty", "prototype", "distill")

Log = Callable[[int, dict[str, float]], None]  # epochs done, figures of the last


@dataclass
class _State:
    """The state of training; JSON-ready."""

    epoch: int = 0
    best: float = -math.inf
    since_best: int = 0
    history: list[dict[str, float]] = field(default_factory=list)
    scaler: dict[str, Any] = field(default_factory=dict)  # state of fp16's loss scaling


def fit(
    head: Head,
    features: Features,
    labels: NDArray[np.int64],
    train_rows: NDArray[np.int64],
    valid_rows: NDArray[np.int64],
    config: Train,
    *,
    losses: Losses = Losses(),  # noqa: B008 - frozen
    augment: FrameAugment | None = None,
    views: Sequence[NDArray[np.int64]] | None = None,
    rates: Mapping[str, float] = MappingProxyType({}),
    teacher: NDArray[np.float32] | None = None,
    seed: tuple[int, ...] = (0,),
    checkpoint: Path | None = None,
    log: Log | None = None,
    processes: Processes = Processes(),  # noqa: B008 - only this one
) -> list[dict[str, float]]:
    """Train `head`, or a whole model with its methods, in place; returns one dict of figures per epoch.

    labels: class number per row of `features`. views: per training row, the rows of `features` that may
    replace it; each epoch draws one. By default each row is only itself. losses: the weighted sum to train
    on; the figures hold the sum as `train_loss` and every unweighted loss as `loss_<name>`. augment: for the
    first modality's frames. rates: see `build_optimizer`. teacher: logits to learn from, per row of
    `features` (losses.distill). processes: the processes that train together, each of which calls this; they
    share each batch, and end with the same weights.

    The head ends with its moving average if there is one, and with the best epoch's weights if early stopping
    is on. Everything random is determined by `seed` and the epoch's number, so a run that was killed and
    resumes from `checkpoint` ends with exactly the same weights. Raises ValueError if the loss is not finite.
    """
    if config.early_stopping and not len(valid_rows):
        raise ValueError("early_stopping needs validation rows; set train.valid_fraction or a `valid` split")
    optimizer = build_optimizer(head, config, rates)
    steps = math.ceil(len(train_rows) / config.batch_size)
    rate_at = schedule(config, steps)
    average = {name: tensor.clone() for name, tensor in state_of(head).items()} if config.ema else {}
    best: dict[str, Tensor] = {}  # weights of the best epoch, kept for early stopping
    scaler = processes.scaler(features.device, config.precision)
    progress = _State()
    if checkpoint is not None and checkpoint.exists():
        state, metadata = load_tensors(checkpoint)
        progress = _State(**metadata)
        average = restore_training(state, head, optimizer)
        scaler.load_state_dict(progress.scaler)
        best = tensors_under("best.", state)
    objective = build_objective(labels[train_rows], int(labels.max()) + 1, config, losses)
    objective = place(objective, features.device)
    step = Step(head, labels, objective, optimizer, scaler, config, augment, processes, teacher)
    saved_at, saving = time.monotonic(), 0.0
    with torch.random.fork_rng(devices=[features.device] if features.device.type == "cuda" else []):
        for epoch in range(progress.epoch, config.epochs):
            if config.early_stopping and progress.since_best >= config.early_stopping.patience:
                break
            sequence = np.random.SeedSequence([*seed, epoch])
            dropout = int(sequence.generate_state(1)[0])
            torch.manual_seed(dropout + processes.rank)  # different in each process; restored by fork_rng
            generator = torch.Generator().manual_seed(int(sequence.generate_state(2)[1]))
            rows_now = train_rows if views is None else _drawn(views, train_rows, sequence)
            now = features.of_epoch(epoch, seed)
            batches = length_bucketed(
                now.lengths[rows_now],
                max_rows=config.batch_size,
                generator=np.random.default_rng(sequence),
            )
            started, sums = time.monotonic(), defaultdict[str, float](float)
            for number, batch in enumerate(batches):
                rate = rate_at(epoch * steps + number)
                set_rate(optimizer, rate)
                rows = rows_now[batch]
                for name, value in step(now, rows, generator).items():
                    sums[name] += value * len(rows)
                _update_average(average, head, config.ema)
            figures = {name: value / len(train_rows) for name, value in sums.items()} | {
                "learning_rate": rate
            }
            if len(valid_rows):
                check = partial(_validate, head, average, features, labels, valid_rows, config)
                figures |= processes.from_main(check)
            figures["seconds"] = time.monotonic() - started
            progress.epoch = epoch + 1
            progress.history.append(figures)
            if _is_best(progress, figures, config):
                best = {name: t.clone() for name, t in (average or state_of(head)).items()}
            if log is not None:
                log(epoch + 1, figures)
            if checkpoint is None or not processes.main:
                continue
            if time.monotonic() - saved_at >= CHECKPOINT_EVERY_S * max(1.0, saving / 0.5):
                began = time.monotonic()
                state = training_state(head, average, optimizer)
                progress.scaler = scaler.state_dict()
                state |= {f"best.{name}": tensor for name, tensor in best.items()}
                save_tensors(checkpoint, state, vars(progress))
                saved_at = time.monotonic()
                saving = saved_at - began  # a large model's takes seconds; keep it to 1/20 of the time
    if kept := best if config.early_stopping else average:
        load_state(head, kept)
    head.eval()
    return progress.history


def build_objective(labels: NDArray[np.int64], num_classes: int, train: Train, losses: Losses) -> Objective:
    """The recipe's losses for training rows of these labels. Raises ValueError if a class has no rows."""
    counts = np.bincount(labels, minlength=num_classes)
    if (counts == 0).any():
        raise ValueError(f"classes {np.flatnonzero(counts == 0).tolist()} have no training rows in this fold")
    balanced = torch.from_numpy(len(labels) / (len(counts) * counts)).float()
    options = losses.model_dump()
    weights = {name: options.pop(name) for name in WEIGHTS}
    return Objective(
        weights,
        torch.from_numpy(counts),
        balanced if train.class_weights == "balanced" else torch.ones(num_classes),
        label_smoothing=train.label_smoothing,
        **options,
    )


def _drawn(
    views: Sequence[NDArray[np.int64]], rows: NDArray[np.int64], seed: np.random.SeedSequence
) -> NDArray[np.int64]:
    """One view of each row, all equally likely."""
    generator = np.random.default_rng(seed.spawn(1)[0])  # a separate stream from that of the batches
    choices = [views[row] for row in rows]
    picks = generator.integers([len(choice) for choice in choices])
    return np.array([choice[pick] for choice, pick in zip(choices, picks, strict=True)])


def _validate(
    head: Head,
    average: dict[str, Tensor],
    features: Features,
    labels: NDArray[np.int64],
    rows: NDArray[np.int64],
    config: Train,
) -> dict[str, float]:
    """Scores and loss of the weights that would be kept: the moving average, if there is one."""
    current = {name: tensor.clone() for name, tensor in state_of(head).items()} if average else {}
    if average:
        load_state(head, average)
    logits = predict(head, features, rows, precision=config.precision)
    if average:
        load_state(head, current)
    classes = [str(i) for i in range(logits.shape[1])]
    named = scores([str(i) for i in labels[rows]], [str(i) for i in logits.argmax(1)], classes)
    loss = nn.functional.cross_entropy(torch.from_numpy(logits), torch.from_numpy(labels[rows]))
    return {f"valid_{name}": value for name, value in named.items()} | {"valid_loss": float(loss)}


def _is_best(progress: _State, figures: dict[str, float], config: Train) -> bool:
    if config.early_stopping is None:
        return False
    metric = config.early_stopping.metric
    value = -figures["valid_loss"] if metric == "loss" else figures[f"valid_{metric}"]
    progress.since_best = 0 if value > progress.best else progress.since_best + 1
    progress.best = max(progress.best, value)
    return progress.since_best == 0


def _update_average(average: dict[str, Tensor], head: Head, decay: float) -> None:
    learned = {name for name, _ in head.named_parameters()} if average else set()
    for name, tensor in state_of(head).items() if average else ():
        if name in learned:
            average[name].lerp_(tensor, 1 - decay)
        else:
            average[name].copy_(tensor)
