"""The one training loop: batches of Frames in, a trained head out. After a kill it goes on."""

import math
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cache.batches import length_bucketed
from heads.augment import FrameAugment
from pipeline.checkpoint import load_tensors, restore_training, save_tensors, training_state
from pipeline.config.recipe import Train
from pipeline.features import Features
from pipeline.metrics import scores

AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}
CHECKPOINT_EVERY_S = 10.0

Log = Callable[[int, dict[str, float]], None]  # epochs done, figures of the last


@dataclass
class _Progress:
    """Where training stands; JSON-ready."""

    epoch: int = 0
    best: float = -math.inf
    since_best: int = 0
    history: list[dict[str, float]] = field(default_factory=list)
    scaler: dict[str, Any] = field(default_factory=dict)  # of fp16's loss scaling


def fit(
    head: nn.Module,
    features: Features,
    labels: NDArray[np.int64],
    train_rows: NDArray[np.int64],
    valid_rows: NDArray[np.int64],
    config: Train,
    *,
    augment: FrameAugment | None = None,
    views: Sequence[NDArray[np.int64]] | None = None,
    seed: tuple[int, ...] = (0,),
    checkpoint: Path | None = None,
    log: Log | None = None,
) -> list[dict[str, float]]:
    """Train `head` in place on `train_rows`; returns one dict of figures per epoch.

    labels: class number per row of `features`. views: per training row, the rows of `features` that may stand
    for it; each epoch draws one. Without them each row stands for itself.

    The head ends with its moving average where there is one, and with the best epoch's weights where early
    stopping is on. Everything random follows from `seed` and the epoch's number, so a run that was killed and
    goes on from `checkpoint` ends with the very weights of one that was not. Raises ValueError when the loss
    is not finite.
    """
    if config.early_stopping and not len(valid_rows):
        raise ValueError("early_stopping needs validation rows; set train.valid_fraction or a `valid` split")
    optimizer = torch.optim.AdamW(_decay_groups(head, config.weight_decay), lr=config.learning_rate)
    steps = math.ceil(len(train_rows) / config.batch_size)
    schedule = _schedule(config, steps * config.epochs)
    average = {name: tensor.clone() for name, tensor in head.state_dict().items()} if config.ema else {}
    best: dict[str, Tensor] = {}  # weights of the best epoch, kept for early stopping
    scaler = torch.amp.GradScaler(features.device.type, enabled=config.precision == "fp16")
    progress = _Progress()
    if checkpoint is not None and checkpoint.exists():
        state, metadata = load_tensors(checkpoint)
        progress = _Progress(**metadata)
        average = restore_training(state, head, optimizer)
        scaler.load_state_dict(progress.scaler)
        best = {name.removeprefix("best."): t for name, t in state.items() if name.startswith("best.")}
    weights = _class_weights(labels[train_rows], config, int(labels.max()) + 1).to(features.device)
    saved_at = time.monotonic()
    with torch.random.fork_rng(devices=[features.device] if features.device.type == "cuda" else []):
        for epoch in range(progress.epoch, config.epochs):
            if config.early_stopping and progress.since_best >= config.early_stopping.patience:
                break
            sequence = np.random.SeedSequence([*seed, epoch])
            torch.manual_seed(int(sequence.generate_state(1)[0]))  # dropout; restored by fork_rng
            generator = torch.Generator().manual_seed(int(sequence.generate_state(2)[1]))
            rows_now = train_rows if views is None else _drawn(views, train_rows, sequence)
            batches = length_bucketed(
                features.lengths[rows_now],
                max_rows=config.batch_size,
                generator=np.random.default_rng(sequence),
            )
            started, losses = time.monotonic(), []
            for number, batch in enumerate(batches):
                rate = schedule(epoch * steps + number)
                for group in optimizer.param_groups:
                    group["lr"] = rate
                rows = rows_now[batch]
                loss = _step(
                    head, features, rows, labels, weights, optimizer, scaler, config, augment, generator
                )
                losses.append(loss * len(rows))
                _update_average(average, head, config.ema)
            figures = {"train_loss": sum(losses) / len(train_rows), "learning_rate": rate}
            if len(valid_rows):
                figures |= _validate(head, average, features, labels, valid_rows, config)
            figures["seconds"] = time.monotonic() - started
            progress.epoch = epoch + 1
            progress.history.append(figures)
            if _is_best(progress, figures, config):
                best = {name: t.clone() for name, t in (average or head.state_dict()).items()}
            if log is not None:
                log(epoch + 1, figures)
            if checkpoint is not None and time.monotonic() - saved_at >= CHECKPOINT_EVERY_S:
                state = training_state(head, average, optimizer)
                progress.scaler = scaler.state_dict()
                state |= {f"best.{name}": tensor for name, tensor in best.items()}
                save_tensors(checkpoint, state, vars(progress))
                saved_at = time.monotonic()
    if kept := best if config.early_stopping else average:
        head.load_state_dict(kept)
    head.eval()
    return progress.history


@torch.inference_mode()
def predict(
    head: nn.Module,
    features: Features,
    rows: NDArray[np.int64],
    *,
    batch_size: int = 64,
    precision: str = "fp32",
) -> NDArray[np.float32]:
    """Logits of `rows`, (rows, classes), in their order."""
    head.eval()
    logits: NDArray[np.float32] | None = None
    for batch in length_bucketed(features.lengths[rows], max_rows=batch_size):
        with _autocast(features.device, precision):
            values = head(*features.batch(rows[batch])).float().cpu().numpy()
        if logits is None:
            logits = np.empty((len(rows), values.shape[1]), dtype=np.float32)
        logits[batch] = values
    if logits is None:
        raise ValueError("no rows to predict")
    return logits


def _step(
    head: nn.Module,
    features: Features,
    rows: NDArray[np.int64],
    labels: NDArray[np.int64],
    weights: Tensor,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    config: Train,
    augment: FrameAugment | None,
    generator: torch.Generator,
) -> float:
    head.train()
    frames, lengths = features.batch(rows)
    frames = frames.float()
    if augment is not None:
        frames, lengths = augment(frames, lengths, generator)
    target = torch.from_numpy(labels[rows]).to(features.device)
    with _autocast(features.device, config.precision):
        logits = head(frames, lengths)
    loss = nn.functional.cross_entropy(
        logits.float(), target, weights, label_smoothing=config.label_smoothing
    )
    if not torch.isfinite(loss):
        raise ValueError(
            f"the loss became {loss.item()} on a batch of {len(rows)} rows; lower train.learning_rate "
            f"(now {config.learning_rate}) or set train.precision: fp32 (now {config.precision})"
        )
    optimizer.zero_grad(set_to_none=True)
    scaler.scale(loss).backward()
    scaler.unscale_(optimizer)
    nn.utils.clip_grad_norm_(head.parameters(), config.grad_clip)
    scaler.step(optimizer)
    scaler.update()
    return float(loss.item())


def _drawn(
    views: Sequence[NDArray[np.int64]], rows: NDArray[np.int64], seed: np.random.SeedSequence
) -> NDArray[np.int64]:
    """One of the views of each row, all equally likely."""
    generator = np.random.default_rng(seed.spawn(1)[0])  # a stream beside that of the batches
    choices = [views[row] for row in rows]
    picks = generator.integers([len(choice) for choice in choices])
    return np.array([choice[pick] for choice, pick in zip(choices, picks, strict=True)])


def _validate(
    head: nn.Module,
    average: dict[str, Tensor],
    features: Features,
    labels: NDArray[np.int64],
    rows: NDArray[np.int64],
    config: Train,
) -> dict[str, float]:
    """Scores and loss of the weights that would be kept: the moving average where there is one."""
    current = {name: tensor.clone() for name, tensor in head.state_dict().items()}
    if average:
        head.load_state_dict(average)
    logits = predict(head, features, rows, precision=config.precision)
    head.load_state_dict(current)
    classes = [str(i) for i in range(logits.shape[1])]
    named = scores([str(i) for i in labels[rows]], [str(i) for i in logits.argmax(1)], classes)
    loss = nn.functional.cross_entropy(torch.from_numpy(logits), torch.from_numpy(labels[rows]))
    return {f"valid_{name}": value for name, value in named.items()} | {"valid_loss": float(loss)}


def _is_best(progress: _Progress, figures: dict[str, float], config: Train) -> bool:
    if config.early_stopping is None:
        return False
    metric = config.early_stopping.metric
    value = -figures["valid_loss"] if metric == "loss" else figures[f"valid_{metric}"]
    progress.since_best = 0 if value > progress.best else progress.since_best + 1
    progress.best = max(progress.best, value)
    return progress.since_best == 0


def _update_average(average: dict[str, Tensor], head: nn.Module, decay: float) -> None:
    for name, tensor in head.state_dict().items() if average else ():
        if tensor.is_floating_point():
            average[name].lerp_(tensor, 1 - decay)
        else:
            average[name].copy_(tensor)


def _decay_groups(head: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Matrices decay; biases, norms and other vectors do not."""
    parameters = [p for p in head.parameters() if p.requires_grad]
    return [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]


def _schedule(config: Train, total: int) -> Callable[[int], float]:
    """Learning rate of a step: linear warm-up, then cosine to zero."""
    warmup = config.warmup_fraction * total

    def rate(step: int) -> float:
        if step < warmup:
            return config.learning_rate * (step + 1) / (warmup + 1)
        return (
            config.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1.0, total - warmup)))
        )

    return rate


def _class_weights(labels: NDArray[np.int64], config: Train, num_classes: int) -> Tensor:
    """(classes,) weights of the loss. Raises ValueError when a class has no rows."""
    counts = np.bincount(labels, minlength=num_classes)
    if (counts == 0).any():
        raise ValueError(f"classes {np.flatnonzero(counts == 0).tolist()} have no training rows in this fold")
    if config.class_weights == "none":
        return torch.ones(len(counts))
    return torch.from_numpy(len(labels) / (len(counts) * counts)).float()


def _autocast(device: torch.device, precision: str) -> Any:
    return torch.autocast(device.type, AUTOCAST[precision]) if precision in AUTOCAST else nullcontext()
