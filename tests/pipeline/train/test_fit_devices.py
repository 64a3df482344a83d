"""Training on each device: the CPU's loss curve in every precision, after a kill, from memory and disk."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

import stillwave.pipeline.train.fit as fit_module
from stillwave.cache import EmbeddingStore
from stillwave.heads.augment import FrameAugment
from stillwave.pipeline.backbones.fbank import FbankConfig
from stillwave.pipeline.backbones.mbert import MbertConfig
from stillwave.pipeline.config.recipe import Recipe
from stillwave.pipeline.config.train import Train
from stillwave.pipeline.corpora.manifest import read_manifest
from stillwave.pipeline.extract.stage import extract
from stillwave.pipeline.runs.features import ABSENT, CachedFeatures, joined, valid_frames
from stillwave.pipeline.runs.head import build_head
from stillwave.pipeline.train.fit import build_objective, fit
from stillwave.pipeline.train.optimizer import build_optimizer
from stillwave.pipeline.train.processes import Processes
from stillwave.pipeline.train.step import Step
from tests.devices import on_a_gpu, on_each_device
from tests.pipeline.train.test_fit import NONE, Killed, kill_after
from tests.pipeline.train.test_fusion import HEAD, LOSSES

SEGMENT = {
    "kind": "segment", "num_heads": 4, "channels": 16, "strides": [4], "hidden": 16, "dropout": 0.0,
    "encoder_dropout": 0.0, "pooling_dropout": 0.0,
}  # fmt: skip
RECIPES: dict[str, dict[str, Any]] = {
    "segment": {"backbones": ["fbank"], "head": SEGMENT},
    "fusion": {
        "backbones": ["fbank", "mbert"],
        "modalities": ["audio", "text"],
        "head": HEAD | {"dropout": 0.0, "modality_dropout": 0.0},
        "losses": LOSSES,
    },
}
AUGMENT = FrameAugment(stretch=0.1, time_masks=1, time_mask_frames=3, bands=80, warp=0.1, gain=1.0, tilt=1.0)
# How far a loss may be from the CPU's in fp32: convolutions on a GPU have ten bits there, too.
BOUNDS = {"fp32": 0.02, "bf16": 0.05, "fp16": 0.05}


@dataclass
class Task:
    """Rows of stores, some of which lack a modality, and their labels."""

    stores: list[EmbeddingStore]
    rows: list[NDArray[np.int64]]
    labels: NDArray[np.int64]

    def features(self, name: str, device: str) -> list[CachedFeatures]:
        count = len(RECIPES[name]["backbones"])
        parts = zip(self.stores[:count], self.rows, strict=False)
        return [CachedFeatures(store, rows, torch.device(device)) for store, rows in parts]

    def head(self, name: str, device: str, seed: int = 0) -> Any:
        parts = self.features(name, "cpu")
        recipe = Recipe.model_validate({"label": "word"} | RECIPES[name])
        shapes = dict(zip(recipe.stores(), [part.frame_shape for part in parts], strict=True))
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            head = build_head(recipe, shapes, 2)
        for standardise, part in zip(head.standardisers, parts, strict=True):
            standardise.fit(valid_frames(part, np.arange(len(self.labels))))
        return head.to(device)

    def fit(self, name: str, device: str, head: nn.Module, **options: Any) -> list[dict[str, float]]:
        fields = {"epochs": 4, "batch_size": 8, "learning_rate": 3e-3} | options.pop("train", {})
        losses = Recipe.model_validate({"label": "word"} | RECIPES[name]).losses
        features = joined(self.features(name, device))
        rows = np.arange(len(self.labels))
        return fit(head, features, self.labels, rows, NONE, Train(**fields), losses=losses, **options)


@pytest.fixture(scope="module")
def task(speech: Path, tmp_path_factory: pytest.TempPathFactory) -> Task:
    folder, manifest = tmp_path_factory.mktemp("devices"), read_manifest(speech / "manifest.parquet")
    configs = (
        FbankConfig(kind="fbank", deltas=0),
        MbertConfig(kind="mbert", weights="random", size="tiny"),
    )
    stores, rows = [], []
    for config in configs:
        extract(config, manifest, folder / f"{config.kind}.zarr", device="cpu")
        stores.append(EmbeddingStore(folder / f"{config.kind}.zarr"))
        rows.append(stores[-1].rows(manifest["id"]))
    rows[1] = rows[1].copy()
    rows[1][[3, 8, 20]] = ABSENT  # without text
    labels = (manifest["word"] == "high").to_numpy().astype(np.int64)
    return Task(stores, rows, labels)


@on_each_device
@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("precision", BOUNDS)
def test_the_loss_curve_is_the_cpus(name: str, precision: str, device: str, task: Task) -> None:
    expected = task.fit(name, "cpu", task.head(name, "cpu"))
    head = task.head(name, device)
    history = task.fit(name, device, head, train={"precision": precision})
    assert {parameter.device.type for parameter in head.parameters()} == {device}
    losses, others = ([epoch["train_loss"] for epoch in run] for run in (history, expected))
    np.testing.assert_allclose(losses, others, rtol=BOUNDS[precision])
    assert losses[-1] < losses[0]


@on_each_device
@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("exact", [True, False])
def test_a_killed_training_ends_with_the_same_weights(
    name: str, exact: bool, device: str, task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fit_module, "CHECKPOINT_EVERY_S", 0)
    augment = AUGMENT if name == "segment" else None
    whole, killed, resumed = (task.head(name, device, seed) for seed in (0, 0, 9))
    common: dict[str, Any] = {
        "augment": augment,
        "train": {"precision": "fp16" if exact else "fp32", "ema": 0.9},
    }
    with deterministic(exact):
        task.fit(name, device, whole, **common)
        checkpoint = tmp_path / "checkpoint.safetensors"
        with pytest.raises(Killed):
            task.fit(name, device, killed, checkpoint=checkpoint, log=kill_after(2), **common)
        task.fit(name, device, resumed, checkpoint=checkpoint, **common)
    if not exact:
        close(whole, resumed)
        return
    for key, tensor in whole.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[key]), key


def close(first: nn.Module, second: nn.Module) -> None:
    """Weights are the same to 1e-4, but where a gradient is 0 and the optimizer follows its rounding."""
    for key, tensor in first.state_dict().items():
        if key != "pooling.score.bias":  # a softmax does not see it
            torch.testing.assert_close(tensor, second.state_dict()[key], rtol=1e-4, atol=1e-4)


@contextmanager
def deterministic(on: bool) -> Iterator[None]:
    """torch's deterministic algorithms alone, where it has a choice."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(on)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)


@on_each_device
@pytest.mark.parametrize("name", RECIPES)
def test_frames_lie_on_the_device_and_come_from_disk_where_they_do_not_fit(
    name: str, device: str, task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = np.array([5, 3, 20, 0, 11])
    held = task.features(name, device)
    monkeypatch.setattr("stillwave.pipeline.runs.features.RESIDENT_BYTES", 0)
    mapped = task.features(name, device)
    for part in held:
        assert part._resident is not None
        assert part._resident.values.device.type == device
    assert [part._resident for part in mapped] == [None] * len(mapped)
    for ours, theirs in zip(joined(held).batch(rows), joined(mapped).batch(rows), strict=True):
        assert ours.device.type == theirs.device.type == device
        assert torch.equal(ours, theirs)
    # and trained on they give the same weights
    first, second = task.head(name, device), task.head(name, device)
    task.fit(name, device, second)
    monkeypatch.undo()
    task.fit(name, device, first)
    close(first, second)


@on_a_gpu
@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("accumulate", [1, 2])
def test_forward_and_backward_never_wait_for_the_gpu(
    name: str, accumulate: int, device: str, task: Task
) -> None:
    """What an update asks is asked at its end: whether the loss is a number, and fp16's scaler its own."""
    head, features = task.head(name, device).train(), joined(task.features(name, device))
    config = Train(accumulate=accumulate, learning_rate=1e-3)
    losses = Recipe.model_validate({"label": "word"} | RECIPES[name]).losses
    objective = build_objective(task.labels, 2, config, losses).to(device)
    processes, optimizer = Processes(), build_optimizer(head, config)
    scaler = processes.scaler(features.device, "fp32")
    augment = AUGMENT if name == "segment" else None
    step = Step(head, task.labels, objective, optimizer, scaler, config, augment, processes)
    generator = torch.Generator().manual_seed(0)
    rows = np.arange(8)
    step(features, rows, generator)
    torch.cuda.set_sync_debug_mode("error")
    try:
        labels = torch.from_numpy(task.labels[rows]).to(device, non_blocking=True)
        for piece in np.array_split(rows, accumulate):
            step._backward(features, piece, labels, generator)
        step._update([p for p in head.parameters() if p.requires_grad])
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_what_a_gpu_does_instead_gives_the_same_training(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bounds in place of the longest item, and clipping without a look: here on the CPU."""
    histories = []
    for asks in (True, False):
        for module in ("stillwave.heads.pooling", "stillwave.heads.augment", "stillwave.pipeline.train.step"):
            if not asks:
                monkeypatch.setattr(f"{module}.on_host", lambda tensor: False)
        histories.append(task.fit("segment", "cpu", task.head("segment", "cpu"), augment=AUGMENT))
    for ours, theirs in zip(*histories, strict=True):
        assert ours["train_loss"] == pytest.approx(theirs["train_loss"], rel=1e-4)
