"""Backbones that are trained too: the same numbers as stored frames give, and then better ones."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from numpy.typing import NDArray

import stillwave.pipeline.train.fit as fit_module
from stillwave.pipeline.backbones import build_backbone, parse_backbone
from stillwave.pipeline.config.recipe import Recipe
from stillwave.pipeline.config.train import Finetune
from stillwave.pipeline.corpora.manifest import write_manifest
from stillwave.pipeline.evaluate.stage import evaluate
from stillwave.pipeline.extract.stage import extract
from stillwave.pipeline.runs.data import load_data
from stillwave.pipeline.runs.head import build_head
from stillwave.pipeline.runs.inference import predict
from stillwave.pipeline.runs.model import Model, at_precision
from stillwave.pipeline.runs.run import Run
from stillwave.pipeline.runs.unfreeze import unfreeze
from stillwave.pipeline.train.finetune import finetune
from stillwave.pipeline.train.optimizer import build_optimizer
from stillwave.pipeline.train.processes import Launched
from stillwave.pipeline.train.stage import train
from tests.fakes import files_of
from tests.pipeline.backbones.variants import HEAR_API
from tests.pipeline.train.test_fit import Killed

HEAD = {"kind": "segment", "num_heads": 4, "hidden": 16, "dropout": 0.0, "pooling_dropout": 0.0}
POOLED = {"kind": "pooled", "pooling": "attentive", "hidden": [16], "dropout": 0.0}
TRAIN = {"epochs": 2, "batch_size": 8, "learning_rate": 1e-3, "label_smoothing": 0.0}
# Small, and of every kind that has a live form; weights are seeded.
BACKBONES: dict[str, dict[str, Any]] = {
    "fbank": {"kind": "fbank"},
    "wav2vec2": {"kind": "wav2vec2", "weights": "random", "size": "tiny"},
    "layers": {"kind": "wav2vec2", "weights": "random", "size": "tiny", "layers": "all"},
    "ast": {"kind": "ast", "weights": "random", "size": "tiny"},
    "encodec": {"kind": "encodec", "weights": "random", "size": "tiny"},
    "quantized": {"kind": "encodec", "weights": "random", "size": "tiny", "embedding": "quantized"},
    "fastconformer": {
        "kind": "fastconformer",
        "weights": "random",
        "size": "tiny",
        "implementation": "custom",
    },
    "mbert": {"kind": "mbert", "weights": "random", "size": "tiny"},
}
TRAINABLE = [name for name in BACKBONES if name != "fbank"]


def config(name: str, **fields: Any) -> Any:
    return parse_backbone(BACKBONES[name] | {"storage_dtype": "float32"} | fields, "test", trusted=True)


def recipe(name: str = "wav2vec2", **fields: Any) -> Recipe:
    values = {"backbones": [name], "label": "word", "head": HEAD, "train": TRAIN}
    return Recipe.model_validate(values | fields)


def tuned(name: str = "wav2vec2", train: dict[str, Any] | None = None, **fields: Any) -> Recipe:
    """A recipe that fine-tunes; fields are those of `finetune`."""
    settings = {"unfreeze": "all", "learning_rate": 1e-3} | fields
    return recipe(name, finetune=settings, train=TRAIN | (train or {}))


@pytest.fixture(scope="module")
def table(speech: Path) -> pd.DataFrame:
    """Two speakers tested: one model to train, not three."""
    folds = pd.read_parquet(speech / "manifest.parquet")
    table = folds.drop(columns="fold").assign(split=np.where(folds["fold"] == 0, "test", "train"))
    write_manifest(table, speech / "split.parquet")
    return table


def path_of(table: pd.DataFrame, speech: Path) -> Path:
    return speech / ("split.parquet" if "split" in table else "manifest.parquet")


@pytest.fixture
def folds(speech: Path) -> pd.DataFrame:
    return pd.read_parquet(speech / "manifest.parquet")


def run_finetune(table: pd.DataFrame, speech: Path, out: Path, recipe: Recipe, **options: Any) -> Path:
    models = {name: config(name) for name in recipe.stores().values()}
    return finetune(recipe, table, models, out, manifest_path=path_of(table, speech), **options)


def cached(table: pd.DataFrame, speech: Path, out: Path, recipe: Recipe, **options: Any) -> Path:
    for name in recipe.stores().values():
        extract(config(name), table, out / f"{name}.zarr")
    return train(recipe, table, out, out / "run", manifest_path=path_of(table, speech), **options)


@pytest.fixture(scope="module")
def cached_run(table: pd.DataFrame, speech: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return cached(table, speech, tmp_path_factory.mktemp("cached"), recipe())


def relative(a: NDArray[Any], b: NDArray[Any]) -> float:
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


@pytest.mark.parametrize("head", [HEAD, POOLED], ids=["segment", "pooled"])
@pytest.mark.parametrize("name", BACKBONES)
def test_cached_and_live_logits_agree(
    name: str, head: dict[str, Any], table: pd.DataFrame, speech: Path, tmp_path: Path
) -> None:
    wanted = recipe(name, head=head, train=TRAIN | {"epochs": 1})
    run = cached(table, speech, tmp_path, wanted)
    stored = load_data(wanted, table, tmp_path)
    live = load_data(wanted, table, encoders=Run.open(run).encoders())
    rows = np.arange(12)
    from_store = predict(Run.open(run).model(0).head, stored.features, rows)
    from_audio = predict(Run.open(run).model(0, Run.open(run).encoders()), live.features, rows)
    assert relative(from_audio, from_store) < 1e-4
    np.testing.assert_array_equal(stored.features.lengths, live.features.lengths)
    assert stored.digest() == live.digest()
    assert stored.stores() == live.stores()


def test_speech_and_text_live_agree_with_their_stores_and_may_be_absent(
    table: pd.DataFrame, speech: Path, tmp_path: Path
) -> None:
    table = table.copy()
    table.loc[[1, 5], "text"] = None
    head = {"kind": "fusion_openmax", "shared_dim": 8, "num_heads": 2, "depth": 2, "base_dim": 16}
    both = recipe(backbones=["wav2vec2", "mbert"], modalities=["audio", "text"], head=head)
    extract(config("wav2vec2"), table, tmp_path / "wav2vec2.zarr")
    extract(config("mbert", max_bad_fraction=0.5), table, tmp_path / "mbert.zarr")
    run = train(both, table, tmp_path, tmp_path / "run", manifest_path=speech / "manifest.parquet")
    stored = load_data(both, table, tmp_path)
    live = load_data(both, table, encoders=Run.open(run).encoders())
    assert live.absent() == stored.absent() == {"audio": 0, "text": 2}
    rows = np.arange(10)
    from_store = predict(Run.open(run).model(0).head, stored.features, rows)
    assert (
        relative(predict(Run.open(run).model(0, Run.open(run).encoders()), live.features, rows), from_store)
        < 1e-4
    )

    settings = {"unfreeze": 1, "learning_rate": 1e-4}
    tuned_run = run_finetune(
        table,
        speech,
        tmp_path / "tuned",
        both.model_copy(update={"finetune": Finetune(**settings)}),
        start=run,
    )
    moved = {name.split(".")[1] for name in Run.open(tuned_run).weights(0) if name.startswith("encoders.")}
    assert moved == {"audio", "text"}


def test_fine_tuning_starts_with_the_answers_of_its_cached_run(
    table: pd.DataFrame, speech: Path, tmp_path: Path, cached_run: Path
) -> None:
    still = tuned(learning_rate=1e-12, train={"learning_rate": 1e-12, "epochs": 1})
    run = run_finetune(table, speech, tmp_path / "run", still, start=cached_run)
    evaluate(cached_run, tmp_path / "a")
    evaluate(run, tmp_path / "b")
    before, after = (pd.read_parquet(tmp_path / name / "predictions.parquet") for name in "ab")
    np.testing.assert_allclose(after["raw_low"], before["raw_low"], atol=1e-4)
    np.testing.assert_allclose(after["score_vim"], before["score_vim"], rtol=1e-2)
    assert Run.open(run).config["start"]["run"] == str(cached_run)


@pytest.mark.parametrize("name", TRAINABLE)
def test_fine_tuning_learns_in_every_backbone(
    name: str, table: pd.DataFrame, speech: Path, tmp_path: Path
) -> None:
    wanted = tuned(name, unfreeze="encoder", train={"epochs": 3})
    run = run_finetune(table, speech, tmp_path / "run", wanted)
    history = pd.read_csv(run / "fold_0" / "history.csv")
    assert history["train_loss"].iloc[-1] < history["train_loss"].iloc[0]
    fresh = build_backbone(config(name)).state_dict()
    state = Run.open(run).weights(0)
    moved = {
        key.removeprefix("encoders.frames."): t for key, t in state.items() if key.startswith("encoders.")
    }
    assert any(not torch.equal(tensor, fresh[key]) for key, tensor in moved.items())
    front = {id(p) for module in build_backbone(config(name)).stages()[0] for p in module.parameters()}
    assert len(moved) <= len(fresh) - min(1, len(front))
    assert 0 <= evaluate(run, tmp_path / "report")["uar"] <= 1


def test_only_the_named_layers_train_and_are_kept(table: pd.DataFrame, speech: Path, tmp_path: Path) -> None:
    run = run_finetune(table, speech, tmp_path / "run", tuned(unfreeze=1))
    state, facts = Run.open(run).weights(0), Run.open(run).facts(0)
    assert {name.rsplit(".layers.", 1)[1][0] for name in state if name.startswith("encoders.")} == {"2"}
    assert facts == {"classes": ["high", "low"], "speakers": None}
    assert (run / "fold_0" / "model.safetensors").stat().st_size < 600_000


def test_rates_fall_from_layer_to_layer() -> None:
    model = Model(
        {"frames": build_backbone(config("wav2vec2"))},
        torch.nn.Linear(2, 2),
        Finetune(unfreeze="all", layer_decay=0.5),
    )
    by_layer = {
        name: rate for name, rate in model.factors.items() if name.endswith("attention.q_proj.weight")
    }
    assert list(by_layer.values()) == [1.0, 0.5, 0.25]
    (first,) = {factor for name, factor in model.factors.items() if "feature_extractor" in name}
    assert first == 0.5**4
    optimizer = build_optimizer(model, recipe().train, {n: 0.01 * f for n, f in model.factors.items()})
    rates = {id(p): group["rate"] for group in optimizer.param_groups for p in group["params"]}
    named = dict(model.named_parameters())
    assert rates[id(named["head.weight"])] == 1.0
    assert rates[id(named["encoders.frames.encoder.layers.0.attention.q_proj.weight"])] == 0.0025
    assert len(rates) == len(named)


def test_what_is_frozen_stays_in_eval_mode() -> None:
    head = torch.nn.Linear(2, 2)
    some = Model({"frames": build_backbone(config("wav2vec2"))}, head, Finetune(unfreeze=1)).train()
    training = {name for name, module in some.encoders.named_modules() if module.training}
    assert training
    assert all(".layers.2" in name for name in training)
    whole = Model({"frames": build_backbone(config("wav2vec2"))}, head, Finetune(unfreeze="all")).train()
    assert all(module.training for module in whole.modules())
    none = Model({"frames": build_backbone(config("wav2vec2"))}, head).train()
    assert not any(module.training for module in none.encoders.modules())


@pytest.mark.parametrize("name", TRAINABLE)
def test_recomputing_activations_changes_no_gradient(name: str, table: pd.DataFrame) -> None:
    wanted = recipe(name)
    encoder = build_backbone(config(name))
    data = load_data(wanted, table, encoders={"frames": encoder})
    inputs = data.features.batch(np.array([0, 7, 3]))
    shapes = {name: part.frame_shape for name, part in data.parts.items()}
    gradients = []
    for again in (False, True):
        settings = Finetune(unfreeze="all", gradient_checkpointing=again)
        head = build_head(wanted, shapes, len(data.classes))
        model = Model({"frames": build_backbone(config(name))}, head, settings)
        model.train()
        with torch.random.fork_rng():
            torch.manual_seed(0)  # dropout
            model(*inputs).square().sum().backward()
        gradients.append({n: p.grad for n, p in model.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    assert any(key.startswith("encoders.") for key in gradients[0])
    for key, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][key], gradient, atol=1e-5, rtol=1e-4)


def test_a_killed_fine_tuning_ends_with_the_weights_of_one_that_was_not(
    folds: pd.DataFrame, speech: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fit_module, "CHECKPOINT_EVERY_S", 0)
    effects = {"speed": {"probability": 0.7}, "gaussian": {"probability": 0.5}}
    wanted = tuned(unfreeze=2, augment=effects, crop_s=0.6, train={"epochs": 3, "ema": 0.9})
    whole = run_finetune(folds, speech, tmp_path / "whole", wanted)

    def kill(fold: int, epoch: int, figures: dict[str, float]) -> None:
        if (fold, epoch) == (1, 2):
            raise Killed

    with pytest.raises(Killed):
        run_finetune(folds, speech, tmp_path / "killed", wanted, progress=kill)
    with pytest.raises(ValueError, match="training has not finished"):
        Run.open(tmp_path / "killed")
    goes_on: list[tuple[int, int]] = []
    killed = run_finetune(
        folds,
        speech,
        tmp_path / "killed",
        wanted,
        progress=lambda fold, epoch, _: goes_on.append((fold, epoch)),
    )
    assert goes_on[0] == (1, 2)
    for fold in (0, 1, 2):
        expected, got = Run.open(whole).weights(fold), Run.open(killed).weights(fold)
        assert expected.keys() == got.keys()
        for name, tensor in expected.items():
            torch.testing.assert_close(got[name], tensor, atol=1e-6, rtol=1e-5)


def test_what_an_epoch_hears_follows_from_seed_epoch_and_row(table: pd.DataFrame) -> None:
    effects = {"speed": {"probability": 1.0}}
    wanted = tuned(augment=effects, crop_s=0.5)
    features = load_data(wanted, table, encoders={"frames": build_backbone(config("wav2vec2"))}).features

    def heard(epoch: int, seed: int, rows: list[int]) -> list[torch.Tensor]:
        values, lengths = features.of_epoch(epoch, (seed,)).batch(np.array(rows))
        return [value[:length] for value, length in zip(values, lengths.tolist(), strict=True)]

    alone, together = heard(3, 1, [5]), heard(3, 1, [2, 5, 9])
    torch.testing.assert_close(alone[0], together[1], atol=0, rtol=0)
    assert all(len(item) <= 0.5 * 16000 / 0.9 + 1 for item in together)
    for other in (heard(4, 1, [5]), heard(3, 2, [5])):
        assert len(other[0]) != len(alone[0]) or not torch.equal(other[0], alone[0])
    clean = features.batch(np.array([5]))[0]
    assert clean.shape[1] == int(table.loc[5, "num_samples"])


def test_mixed_precision_trains_and_weights_stay_fp32(
    table: pd.DataFrame, speech: Path, tmp_path: Path
) -> None:
    run = run_finetune(table, speech, tmp_path / "run", tuned(unfreeze=1, train={"precision": "bf16"}))
    assert {
        tensor.dtype for name, tensor in Run.open(run).weights(0).items() if name.startswith("encoders.")
    } == {torch.float32}
    model = Run.open(run).model(0, Run.open(run).encoders())
    encoder: Any = model.encoders["frames"]
    assert encoder.config.precision == "bf16"
    encoder = at_precision(build_backbone(config("wav2vec2")), "bf16")
    assert encoder.config.precision == "bf16"


def launch(processes: int, project: Path, out: Path, *options: str) -> None:
    """The command line under `accelerate launch`, on CPUs."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [
        sys.executable, "-m", "accelerate.commands.launch", "--num_processes", str(processes),
        # Without GPUs, the way to several processes all the same: gloo connects them.
        "--multi_gpu" if processes > 1 else "--cpu",
        "--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no",
        "-m", "stillwave.pipeline.cli", "finetune",
        "--recipe", str(project / "recipe.yaml"), "--manifest", str(project / "manifest.parquet"),
        "--backbones", str(project), "--out", str(out), *options,
    ]  # fmt: skip
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("trained; `stillwave evaluate") == processes  # each of them says so


@pytest.mark.slow
def test_two_processes_have_the_loss_curve_of_one(table: pd.DataFrame, speech: Path, tmp_path: Path) -> None:
    """Dropout off, for each process draws its own."""
    wanted = tuned(
        train={"epochs": 3, "batch_size": 9, "class_weights": "balanced", "valid_fraction": 0.3},
        unfreeze="encoder",
        augment={"speed": {"probability": 0.5}},
    )
    settings = transformers_without_dropout(tmp_path / "weights")
    (tmp_path / "wav2vec2.yaml").write_text(yaml.safe_dump(settings))
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(wanted.model_dump(mode="json", exclude_none=True)))
    (tmp_path / "manifest.parquet").write_bytes(path_of(table, speech).read_bytes())
    for processes in (1, 2):
        launch(processes, tmp_path, tmp_path / f"run_{processes}")
    one, two = (
        pd.read_csv(tmp_path / f"run_{count}" / "fold_0" / "history.csv").drop(columns="seconds")
        for count in (1, 2)
    )
    assert one["train_loss"].iloc[-1] < one["train_loss"].iloc[0]
    pd.testing.assert_frame_equal(one, two, rtol=1e-4, atol=1e-5)
    first, second = (Run.open(tmp_path / f"run_{count}").weights(0) for count in (1, 2))
    for name, tensor in first.items():
        torch.testing.assert_close(second[name], tensor, atol=2e-3, rtol=1e-2)


def transformers_without_dropout(folder: Path) -> dict[str, Any]:
    """A small wav2vec 2.0 without dropout, saved; returns the config of its backbone."""
    import transformers

    from stillwave.pipeline.backbones.wav2vec2 import SIZES
    from stillwave.pipeline.backbones.weights import random_weights

    off = dict.fromkeys(
        ("hidden_dropout", "activation_dropout", "attention_dropout", "feat_proj_dropout", "layerdrop"), 0.0
    )
    model = random_weights(
        0, lambda: transformers.Wav2Vec2Model(transformers.Wav2Vec2Config(**(SIZES["tiny"] | off)))
    )
    model.save_pretrained(folder)
    return {"kind": "wav2vec2", "weights": str(folder), "storage_dtype": "float32"}


def test_what_cannot_be_fine_tuned_is_refused(
    table: pd.DataFrame, speech: Path, tmp_path: Path, cached_run: Path
) -> None:
    path = speech / "manifest.parquet"
    with pytest.raises(ValueError, match="use `stillwave finetune`"):
        train(tuned(), table, tmp_path, tmp_path / "run", manifest_path=path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WORLD_SIZE", "2")
        with pytest.raises(ValueError, match="train in one process"):
            train(recipe(), table, tmp_path, tmp_path / "run", manifest_path=path)
    with pytest.raises(ValueError, match="use `stillwave train`"):
        run_finetune(table, speech, tmp_path / "run", recipe())
    with pytest.raises(ValueError, match=r"unfreeze 9: Wav2Vec2 has 4 layers after its front end"):
        run_finetune(table, speech, tmp_path / "run", tuned(unfreeze=9))
    with pytest.raises(ValueError, match=r"Fbank has no such weights to train"):
        unfreeze(build_backbone(config("fbank")), Finetune(unfreeze="all"))
    with pytest.raises(ValueError, match="`views` come from a store"):
        recipe(finetune={}, views={"train": "sample"})
    with pytest.raises(ValueError, match=r"train.groups.encoders"):
        recipe(finetune={}, train={"groups": {"encoders": {"rate": 0.1}}})
    run_finetune(table, speech, tmp_path / "live", tuned(unfreeze=1))
    with pytest.raises(ValueError, match=r"live: its backbone was trained, too"):
        cached(table, speech, tmp_path / "other", recipe(), start=tmp_path / "live")


def test_a_start_on_other_rows_settings_or_frames_is_refused(
    table: pd.DataFrame, speech: Path, tmp_path: Path, cached_run: Path
) -> None:
    for changed, wanted, match in (
        (table.iloc[:-2], tuned(), r"its rows, labels or folds differ from this run's"),
        (table, tuned(train={"seed": 3}), r"its train.seed differ from this run's \(0 there, 3 here\)"),
        (
            table,
            tuned().model_copy(update={"head": recipe(head=POOLED).head}),
            r"its head differ from this run's",
        ),
    ):
        with pytest.raises(ValueError, match=match):
            run_finetune(changed, speech, tmp_path / "run", wanted, start=cached_run)
    other = {"wav2vec2": config("wav2vec2", seed=5)}
    with pytest.raises(ValueError, match=r"trained on other frames: .*weights"):
        finetune(tuned(), table, other, tmp_path / "run", manifest_path="m", start=cached_run)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("how", ["lost", "broken"])
def test_a_start_without_its_weights_is_refused_before_it_costs_a_run(
    how: str, table: pd.DataFrame, speech: Path, tmp_path: Path, cached_run: Path
) -> None:
    start, out = tmp_path / "start", tmp_path / "run"
    shutil.copytree(cached_run, start)
    shutil.copytree(cached_run, out)
    before = files_of(out)
    file = start / "fold_0" / "model.safetensors"
    if how == "lost":
        file.unlink()
    else:
        file.write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"start/fold_0/model\.safetensors: no.*; train the run again"):
        run_finetune(table, speech, out, tuned(unfreeze=1), start=start)
    assert files_of(out) == before


def test_what_a_start_had_trained_is_kept_though_it_is_frozen_now(
    table: pd.DataFrame, speech: Path, tmp_path: Path
) -> None:
    whole = run_finetune(table, speech, tmp_path / "whole", tuned("wav2vec2", {"learning_rate": 1e-2}))
    still = tuned(unfreeze=1, learning_rate=1e-12, train={"learning_rate": 1e-12, "epochs": 1})
    run = run_finetune(table, speech, tmp_path / "run", still, start=whole)
    before, after = Run.open(whole).weights(0), Run.open(run).weights(0)
    assert before.keys() == after.keys()
    for name in (name for name in before if name.startswith("encoders.")):
        torch.testing.assert_close(after[name], before[name], atol=1e-6, rtol=1e-5)
    data = load_data(still, table, encoders=Run.open(run).encoders())
    rows = np.arange(8)
    one, other = (predict(Run.open(path).model(0), data.features, rows) for path in (whole, run))
    assert relative(other, one) < 1e-4


@pytest.mark.parametrize("role", ["start", "crop", "hear", "file"])
def test_what_is_refused_costs_no_run(role: str, table: pd.DataFrame, speech: Path, tmp_path: Path) -> None:
    run = run_finetune(table, speech, tmp_path / "run", tuned(unfreeze=1, train={"epochs": 1}))
    kept = (run / "fold_0/model.safetensors").read_bytes()
    if role == "start":
        with pytest.raises(ValueError, match="the start of this run, which would replace it"):
            run_finetune(table, speech, run, tuned(unfreeze=2), start=run)
    elif role == "crop":
        with pytest.raises(ValueError, match=r"crop_s 0.01: 160 samples at 16000 Hz are too few"):
            run_finetune(table, speech, run, tuned(unfreeze=1, crop_s=0.01))
    elif role == "file":
        lost = table.assign(path=[*table["path"][:-1], str(tmp_path / "lost.wav")])
        with pytest.raises(ValueError, match=r"lost.wav.*run that again"):
            run_finetune(lost, speech, run, tuned(unfreeze=1))
    else:
        module = parse_backbone({"kind": "hear", "module": HEAR_API}, "test", trusted=True)
        with pytest.raises(ValueError, match="HEAR modules cannot be trained"):
            finetune(tuned(), table, {"wav2vec2": module}, run, manifest_path="m")
    assert (run / "fold_0/model.safetensors").read_bytes() == kept
    assert Run.open(run).config["live"]


def test_decoded_rows_are_kept_as_long_as_there_is_room(
    table: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = int(table.loc[0, "num_samples"]) * 4
    monkeypatch.setattr("stillwave.pipeline.runs.waveforms.RESIDENT_BYTES", 3 * size)
    wanted = tuned(augment={"gaussian": {"probability": 1.0}})
    data = load_data(wanted, table, encoders={"frames": build_backbone(config("wav2vec2"))})
    features: Any = data.features
    for epoch in range(4):
        features.of_epoch(epoch, (0,)).batch(np.arange(len(table)))
    kept = sum(item.nbytes for item in features._kept.items.values())
    assert 0 < kept <= 3 * size


def test_every_fold_has_a_loss_scaler_of_its_own() -> None:
    processes = Launched("fp32", "cpu")
    first, second = (processes.scaler(torch.device("cpu"), "fp16") for _ in range(2))
    assert first is not second
    assert first.is_enabled()


def test_a_file_that_changed_since_prepare_is_named(
    table: pd.DataFrame, speech: Path, tmp_path: Path
) -> None:
    changed = table.copy()
    copy = tmp_path / "changed.wav"
    copy.write_bytes(Path(table.loc[4, "path"]).read_bytes()[:-40])
    changed.loc[4, "path"] = str(copy)
    with pytest.raises(ValueError, match=r"changed.wav: .*run `?stillwave prepare`? again"):
        run_finetune(changed, speech, tmp_path / "run", tuned())


def test_backbones_that_are_no_longer_the_same_are_named(
    table: pd.DataFrame, speech: Path, tmp_path: Path, cached_run: Path
) -> None:
    assert Run.open(cached_run).encoders()["frames"].dim == 96
    (tmp_path / "wav2vec2.yaml").write_text(yaml.safe_dump(BACKBONES["wav2vec2"] | {"seed": 4}))
    with pytest.raises(
        ValueError, match=r"would give different frames from those of the training: .*weights"
    ):
        Run.open(cached_run).encoders(tmp_path)
