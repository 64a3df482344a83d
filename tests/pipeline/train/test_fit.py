from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

import stillwave.pipeline.train.fit as fit_module
from stillwave.heads.augment import FrameAugment
from stillwave.heads.classifier import SegmentClassifier
from stillwave.pipeline.backbones.base import Frames
from stillwave.pipeline.config.train import EarlyStopping, Losses, Train
from stillwave.pipeline.runs.inference import predict
from stillwave.pipeline.train.fit import build_objective, fit
from stillwave.pipeline.train.optimizer import schedule

NONE = np.array([], dtype=np.int64)


class ToyFeatures:
    """Live features: rows of random length whose frames are noise around their class."""

    device = torch.device("cpu")
    frame_shape = (6,)

    def __init__(self, count: int = 60, classes: int = 3) -> None:
        rng = np.random.default_rng(0)
        self.labels = np.arange(count) % classes
        self.lengths = rng.integers(3, 30, count)
        self.rows = [
            torch.from_numpy(rng.standard_normal((n, 6)).astype(np.float32) + 2 * np.eye(6)[label]).float()
            for n, label in zip(self.lengths, self.labels, strict=True)
        ]

    def batch(self, rows: NDArray[np.int64]) -> Frames:
        lengths = torch.from_numpy(self.lengths[rows])
        return Frames(nn.utils.rnn.pad_sequence([self.rows[i] for i in rows], batch_first=True), lengths)

    def of_epoch(self, epoch: int, seed: tuple[int, ...]) -> "ToyFeatures":
        return self


def head(seed: int = 0, **options: Any) -> SegmentClassifier:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return SegmentClassifier(6, 3, num_heads=2, hidden=16, dropout=0.2, **options)


def settings(**fields: Any) -> Train:
    return Train(**({"epochs": 6, "batch_size": 8, "learning_rate": 5e-3} | fields))


@pytest.mark.parametrize(
    "fields",
    [{}, {"ema": 0.9}, {"class_weights": "none"}, {"precision": "bf16"}, {"precision": "fp16"}],
    ids=str,
)
def test_training_learns_a_separable_task(fields: dict[str, Any]) -> None:
    features, model = ToyFeatures(), head()
    train, test = np.arange(40), np.arange(40, 60)
    history = fit(model, features, features.labels, train, NONE, settings(epochs=15, **fields))
    assert history[-1]["train_loss"] < 0.7 * history[0]["train_loss"]
    logits = predict(model, features, test)
    assert (logits.argmax(1) == features.labels[test]).mean() > 0.9


def test_predictions_keep_the_order_of_the_rows() -> None:
    features, model = ToyFeatures(), head().eval()
    rows = np.array([7, 3, 50, 11])
    together = predict(model, features, rows)
    alone = np.concatenate([predict(model, features, rows[i : i + 1]) for i in range(4)])
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_seeds_decide_and_the_callers_random_state_is_left_alone() -> None:
    features = ToyFeatures()
    weights = []
    torch.manual_seed(123)
    expected = torch.rand(3)
    torch.manual_seed(123)
    for seed in (1, 1, 2):
        model = head()
        fit(model, features, features.labels, np.arange(40), NONE, settings(), seed=(seed,))
        weights.append(torch.cat([p.flatten() for p in model.parameters()]))
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    assert torch.equal(torch.rand(3), expected)


class Killed(Exception):
    pass


def kill_after(epochs: int) -> Callable[[int, dict[str, float]], None]:
    def log(epoch: int, figures: dict[str, float]) -> None:
        if epoch == epochs:
            raise Killed

    return log


@pytest.mark.parametrize(
    "fields",
    [{}, {"ema": 0.9}, {"early_stopping": EarlyStopping(patience=3)}, {"precision": "fp16"}],
    ids=str,
)
def test_a_killed_training_ends_with_the_weights_of_one_that_was_not(
    fields: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fit_module, "CHECKPOINT_EVERY_S", 0)
    features, config = ToyFeatures(), settings(**fields)
    train, valid = np.arange(40), np.arange(40, 60)
    augment = FrameAugment(stretch=0.1, time_masks=1, time_mask_frames=3)
    common: dict[str, Any] = {"augment": augment, "seed": (4, 2)}
    whole = head()
    history = fit(whole, features, features.labels, train, valid, config, **common)
    checkpoint = tmp_path / "checkpoint.safetensors"
    with pytest.raises(Killed):
        fit(
            head(), features, features.labels, train, valid, config,
            checkpoint=checkpoint, log=kill_after(3), **common,
        )  # fmt: skip
    resumed = head(seed=99)  # its own initial weights must not matter
    again = fit(resumed, features, features.labels, train, valid, config, checkpoint=checkpoint, **common)
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name
    assert [f["train_loss"] for f in again] == [f["train_loss"] for f in history]


def test_early_stopping_keeps_the_best_epoch() -> None:
    features, model = ToyFeatures(), head()
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 3, 60)  # nothing to learn: validation soon stops improving
    config = settings(epochs=50, early_stopping=EarlyStopping(metric="uar", patience=3))
    valid = np.arange(40, 60)
    history = fit(model, features, labels, np.arange(40), valid, config)
    values = [figures["valid_uar"] for figures in history]
    assert len(history) == int(np.argmax(values)) + 1 + 3 < 50
    recalls = [
        (predict(model, features, valid).argmax(1) == labels[valid])[labels[valid] == k].mean()
        for k in range(3)
    ]
    assert np.mean(recalls) == pytest.approx(max(values))


def test_early_stopping_without_validation_rows_is_refused() -> None:
    features = ToyFeatures()
    with pytest.raises(ValueError, match=r"set train.valid_fraction"):
        fit(head(), features, features.labels, np.arange(40), NONE, settings(early_stopping=EarlyStopping()))


def test_a_class_without_training_rows_is_named() -> None:
    features = ToyFeatures()
    rows = np.flatnonzero(features.labels != 1)
    with pytest.raises(ValueError, match=r"classes \[1\] have no training rows"):
        fit(head(), features, features.labels, rows, NONE, settings())


def test_a_loss_that_is_not_finite_stops_training_and_names_the_remedy() -> None:
    features = ToyFeatures()
    features.rows[5] = features.rows[5] * float("nan")
    with pytest.raises(ValueError, match=r"lower train.learning_rate"):
        fit(head(), features, features.labels, np.arange(40), NONE, settings())


def test_balanced_weights_are_n_over_classes_times_count() -> None:
    labels = np.array([0, 0, 0, 1])
    objective = build_objective(labels, 2, settings(), Losses())
    np.testing.assert_allclose(objective.cross_entropy.weight, [4 / (2 * 3), 4 / (2 * 1)])


def test_the_schedule_warms_up_linearly_and_ends_at_zero() -> None:
    rate = schedule(settings(learning_rate=1.0, warmup_fraction=0.1, epochs=10), 10)
    assert rate(0) == pytest.approx(1 / 11)
    assert rate(10) == pytest.approx(1.0)
    assert rate(55) == pytest.approx(0.5)
    assert rate(99) < 1e-3
    assert all(
        a > b
        for a, b in zip([rate(i) for i in range(10, 99)], [rate(i) for i in range(11, 100)], strict=True)
    )


def test_the_step_schedule_halves_the_rate_every_few_epochs() -> None:
    config = settings(
        learning_rate=8.0, warmup_fraction=0, epochs=8, schedule="step", step_epochs=3, gamma=0.5
    )
    rate = schedule(config, 10)
    assert [rate(10 * epoch + 9) for epoch in range(8)] == [8, 8, 8, 4, 4, 4, 2, 2]
    assert schedule(settings(learning_rate=8.0, warmup_fraction=0, schedule="constant"), 10)(59) == 8.0


@pytest.mark.parametrize("class_weights", ["balanced", "none"])
def test_a_batch_in_pieces_gives_the_weights_of_the_whole(class_weights: str) -> None:
    features = ToyFeatures()
    train = np.flatnonzero(np.arange(60) % 4 > 0)  # classes of unequal size weigh unequally in a piece
    train = train[(features.labels[train] != 2) | (train % 2 == 0)]
    weights, losses = [], []
    for accumulate in (1, 3):
        model = head(pooling_type="avg")  # attention's gradients are rounding only, and Adam scales them up
        for module in model.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
        config = settings(epochs=2, accumulate=accumulate, class_weights=class_weights, batch_size=7)
        history = fit(model, features, features.labels, train, NONE, config, losses=Losses(focal=0.5))
        weights.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
        losses.append([epoch["train_loss"] for epoch in history])
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-5)
    torch.testing.assert_close(weights[0], weights[1], atol=1e-4, rtol=1e-3)
