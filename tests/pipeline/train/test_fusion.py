"""Speech and text together, through training and evaluation, with rows that lack one of them."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import stillwave.pipeline.train.fit as fit_module
from stillwave.heads.augment import FrameAugment
from stillwave.heads.base import Outputs
from stillwave.heads.fusion import FusionClassifier
from stillwave.heads.losses import ClassBalancedFocalLoss
from stillwave.pipeline.backbones.fbank import FbankConfig
from stillwave.pipeline.backbones.mbert import MbertConfig
from stillwave.pipeline.config.recipe import Recipe
from stillwave.pipeline.config.train import Losses, Train
from stillwave.pipeline.corpora.manifest import read_manifest, write_manifest
from stillwave.pipeline.evaluate.stage import evaluate
from stillwave.pipeline.extract.stage import extract
from stillwave.pipeline.runs.calibrate import Calibration
from stillwave.pipeline.runs.data import UNKNOWN, load_data
from stillwave.pipeline.runs.features import CachedFeatures
from stillwave.pipeline.runs.folds import folds_of
from stillwave.pipeline.runs.head import build_head
from stillwave.pipeline.runs.inference import outputs_of
from stillwave.pipeline.runs.run import Run
from stillwave.pipeline.runs.tensors import load_tensors, save_tensors
from stillwave.pipeline.train.fit import build_objective, fit
from stillwave.pipeline.train.stage import train
from tests.fakes import write_speech
from tests.pipeline.runs.test_inference import TwoModalities
from tests.pipeline.train.test_fit import NONE, Killed, kill_after

HEAD = {
    "kind": "fusion_openmax", "channels": 16, "strides": [4], "shared_dim": 16, "num_heads": 2,
    "fused_dim": 32, "depth": 3, "base_dim": 32, "bottleneck": 8, "anchor_dim": 8, "checkpoint_every": 2,
    "modality_dropout": 0.2, "dropout": 0.1,
}  # fmt: skip
LOSSES = {"focal": 0.3, "anchor": 0.1, "uncertainty": 0.05, "prototype": 0.01}
TRAIN = {"epochs": 12, "batch_size": 8, "learning_rate": 3e-3, "valid_fraction": 0.3}
MBERT = MbertConfig(kind="mbert", weights="random", size="tiny", max_bad_fraction=0.5)
NO_TEXT, NO_AUDIO = [3, 8, 20], [5, 30]  # numbers of rows in the manifest


def recipe(**fields: Any) -> Recipe:
    return Recipe.model_validate(
        {
            "backbones": ["fbank", "mbert"],
            "modalities": ["audio", "text"],
            "label": "word",
            "head": HEAD,
            "losses": LOSSES,
            "train": TRAIN,
        }
        | fields
    )


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with manifest.parquet and stores of audio and text, each of which lacks some rows."""
    folder = write_speech(tmp_path_factory.mktemp("fusion"))
    manifest = read_manifest(folder / "manifest.parquet")
    manifest.loc[NO_TEXT, "text"] = None
    write_manifest(manifest, folder / "manifest.parquet")
    for path in manifest["path"][NO_AUDIO]:
        Path(path).write_bytes(b"lost")
    extract(FbankConfig(kind="fbank", deltas=0, max_bad_fraction=0.5), manifest, folder / "e/fbank.zarr")
    extract(MBERT, manifest, folder / "e/mbert.zarr")
    return folder


@pytest.fixture(scope="module")
def run(corpus: Path) -> Path:
    manifest = read_manifest(corpus / "manifest.parquet")
    return train(recipe(), manifest, corpus / "e", corpus / "run", manifest_path=corpus / "manifest.parquet")


def test_rows_that_lack_a_modality_are_trained_and_predicted_on_the_other(corpus: Path, run: Path) -> None:
    metrics = evaluate(run)
    assert metrics["n"] == 36
    assert metrics["n_missing"] == 0
    assert metrics["absent"] == {"audio": len(NO_AUDIO), "text": len(NO_TEXT)}
    assert metrics["uar"] > 0.8  # an octave apart, and the text names the label
    table = pd.read_parquet(run / "report/predictions.parquet")
    assert len(table) == 36
    assert table.filter(like="p_").notna().all(axis=None)


def test_what_a_row_lacks_makes_no_difference_and_what_it_has_does(corpus: Path, run: Path) -> None:
    manifest = read_manifest(corpus / "manifest.parquet")
    data = load_data(recipe(), manifest, corpus / "e")
    head = Run.open(run).model(0).head
    rows = np.array([NO_TEXT[0], 0])
    audio, audio_lengths, text, text_lengths = data.features.batch(rows)
    assert text_lengths.tolist()[0] == 0
    with torch.no_grad():
        plain = head(audio, audio_lengths, text, text_lengths)
        changed = head(audio, audio_lengths, text + 1, text_lengths)
    torch.testing.assert_close(plain[0], changed[0])
    assert (plain[1] - changed[1]).abs().max() > 1e-4


@pytest.mark.parametrize("modality", ["audio", "text"])
def test_an_ablation_reads_the_one_store_and_the_rows_that_it_has(
    corpus: Path, tmp_path: Path, modality: str
) -> None:
    chosen = recipe(modalities=[modality], train=TRAIN | {"epochs": 2})
    manifest = read_manifest(corpus / "manifest.parquet")
    data = load_data(chosen, manifest, corpus / "e")
    lacking = {"audio": NO_AUDIO, "text": NO_TEXT}[modality]
    assert sorted(data.missing) == sorted(manifest["id"][lacking])
    assert list(data.parts) == [modality]
    train(chosen, manifest, corpus / "e", tmp_path, manifest_path=corpus / "manifest.parquet")
    assert evaluate(tmp_path)["n"] == 36 - len(lacking)
    head = Run.open(tmp_path).model(0).head
    assert isinstance(head, FusionClassifier)
    assert head.cross_attention is None


def test_every_loss_is_in_the_curves_and_the_weighted_sum_is_the_loss(run: Path) -> None:
    curves = pd.read_csv(run / "fold_0/history.csv")
    weights = {"cross_entropy": 1.0} | LOSSES
    total = sum(weight * curves[f"loss_{name}"] for name, weight in weights.items())
    np.testing.assert_allclose(curves["train_loss"], total, rtol=1e-5)
    assert (curves.filter(like="loss_").std() > 0).all()


def test_the_run_answers_as_the_composed_classifier_does(corpus: Path, run: Path) -> None:
    """Logits, uncertainty and anchor loss, with OpenMax's unknown class in last place."""
    head, config = Run.open(run).model(0).head, Run.open(run).config
    assert isinstance(head, FusionClassifier)
    data = load_data(recipe(), read_manifest(corpus / "manifest.parquet"), corpus / "e")
    rows = np.arange(6)
    with torch.no_grad():
        fused = head.fused(*data.features.batch(rows))
        logits, uncertainty, anchor_loss = head.classifier(fused, use_openmax=True, return_uncertainty=True)
    assert logits.shape == (6, len(config["classes"]) + 1)
    assert uncertainty.shape == (6, 1)
    assert anchor_loss.ndim == 0
    calibration = Calibration.load(run / "fold_0")
    score = calibration.scores(outputs_of(head, data.features, rows))["openmax"]
    np.testing.assert_allclose(1 - logits.softmax(1)[:, :-1].amax(1).numpy(), score, rtol=1e-4, atol=1e-6)


def test_a_run_of_before_still_names_its_score_by_its_old_name(run: Path, tmp_path: Path) -> None:
    """Version 0.1 called the score `uncertainty`, in config.json and beside the models."""
    shutil.copytree(run, tmp_path / "old")
    config = json.loads((run / "config.json").read_text())
    config["recipe"]["open_set"]["score"] = "uncertainty"
    (tmp_path / "old" / "config.json").write_text(json.dumps(config))
    file = tmp_path / "old" / "fold_0" / "calibration.safetensors"
    tensors, facts = load_tensors(file)
    assert "learned_uncertainty" in facts["scorers"]
    old = json.loads(json.dumps(facts).replace("learned_uncertainty", "uncertainty"))
    save_tensors(file, tensors, old)
    opened = Run.open(tmp_path / "old")
    assert opened.recipe.open_set.score == "learned_uncertainty"
    now, then = opened.calibration(0), Run.open(run).calibration(0)
    assert list(now.scorers) == list(then.scorers)
    assert now.thresholds == then.thresholds


def test_unknown_classes_are_never_trained_and_always_tested(corpus: Path, tmp_path: Path) -> None:
    manifest = read_manifest(corpus / "manifest.parquet")
    manifest.loc[manifest.index % 3 == 0, "word"] = "other"
    write_manifest(manifest, tmp_path / "manifest.parquet")
    chosen = recipe(open_set={"unknown": ["other"], "score": "energy"}, train=TRAIN | {"epochs": 3})
    data = load_data(chosen, manifest, corpus / "e")
    assert data.classes == ("high", "low")
    others = np.flatnonzero(manifest["word"] == "other")
    assert (data.labels[others] == UNKNOWN).all()
    folds = folds_of(data, chosen)
    assert sorted(np.concatenate([fold.test for fold in folds])) == list(range(36))
    for fold in folds:
        assert not set(others) & {*fold.train.tolist(), *fold.valid.tolist()}
    out = train(chosen, manifest, corpus / "e", tmp_path / "run", manifest_path=tmp_path / "manifest.parquet")
    metrics = evaluate(out)
    table = pd.read_parquet(out / "report/predictions.parquet")
    assert metrics["n"] == table["known"].sum() == 24
    assert set(metrics["per_class"]) == {"high", "low"}
    found = metrics["open_set"]
    assert found["unknown"] == ["other"]
    assert {"msp", "mls", "energy", "openmax", "knn", "vim", "learned_uncertainty"} == set(found["scores"])
    assert found["scores"]["energy"]["n_unknown"] == 12
    np.testing.assert_array_equal(table["score"], table["score_energy"])
    np.testing.assert_array_equal(table["threshold"], table["tuned_energy"])
    rejected = table["score"] > table["threshold"]
    assert (table["decision"][rejected] == "unknown").all()
    assert (table["decision"][~rejected] == table["predicted"][~rejected]).all()
    tuned = found["scores"]["energy"]["thresholds"]["tuned"]
    assert tuned["unknown_rejected"] == pytest.approx(rejected[~table["known"]].mean())
    assert (
        json.loads((out / "report/summary.json").read_text())["auroc"] == found["scores"]["energy"]["auroc"]
    )
    assert (out / "report/plots/open_set.png").read_bytes().startswith(b"\x89PNG")


def test_an_ensemble_of_all_folds_predicts_rows_that_none_has_seen(
    corpus: Path, run: Path, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="36 of 36 rows are recordings that the run was trained on"):
        evaluate(run, ensemble=True, manifest=corpus / "manifest.parquet")
    new = write_speech(tmp_path / "new", count=14, seed=1000)
    manifest = read_manifest(new / "manifest.parquet")
    extract(FbankConfig(kind="fbank", deltas=0), manifest, new / "e/fbank.zarr")
    extract(MbertConfig(kind="mbert", weights="random", size="tiny"), manifest, new / "e/mbert.zarr")
    metrics = evaluate(run, ensemble=True, manifest=new / "manifest.parquet", embeddings=new / "e")
    assert metrics["n"] == 14
    table = pd.read_parquet(run / "ensemble/predictions.parquet").set_index("id")
    data = load_data(recipe(), manifest, new / "e")
    each = []
    for fold in range(3):
        outputs = outputs_of(Run.open(run).model(fold).head, data.features, np.arange(14))
        each.append(Calibration.load(run / f"fold_{fold}").probabilities(outputs))
    expected = np.mean(each, axis=0)
    assert np.std([p[:, 0] for p in each], axis=0).max() > 1e-4
    np.testing.assert_allclose(table.loc[data.manifest["id"], ["p_high", "p_low"]], expected, atol=1e-5)


def deep_head(seed: int) -> FusionClassifier:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return FusionClassifier(
            {"audio": 6, "text": 6}, 3, shared_dim=8, num_heads=2, fused_dim=16, base_dim=32, bottleneck=4,
            anchor_dim=8, modality_dropout=0.3, dropout=0.2,
        )  # fmt: skip


def test_thirty_five_blocks_learn_and_a_killed_training_ends_with_the_same_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fit_module, "CHECKPOINT_EVERY_S", 0)
    monkeypatch.setattr(
        "stillwave.heads.fusion.deep.CHECKPOINT_ROWS", 1
    )  # activations computed again, whatever the batch
    features, losses = TwoModalities(), Losses(**LOSSES)
    config = Train(epochs=8, batch_size=8, learning_rate=3e-3)
    arguments: tuple[Any, ...] = (features, features.labels, np.arange(48), NONE, config)
    whole = deep_head(0)
    assert len(whole.classifier.deep_classifier.blocks) == 35
    history = fit(whole, *arguments, losses=losses, seed=(4,))
    assert history[-1]["loss_cross_entropy"] < 0.7 * history[0]["loss_cross_entropy"]
    checkpoint = tmp_path / "checkpoint.safetensors"
    with pytest.raises(Killed):
        fit(deep_head(0), *arguments, losses=losses, seed=(4,), checkpoint=checkpoint, log=kill_after(3))
    resumed = deep_head(99)
    fit(resumed, *arguments, losses=losses, seed=(4,), checkpoint=checkpoint)
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name


def copy_with(corpus: Path, folder: Path, manifest: pd.DataFrame) -> Path:
    """The corpus's stores beside another manifest."""
    shutil.copytree(corpus / "e", folder / "e")
    write_manifest(manifest, folder / "manifest.parquet")
    return folder


def test_text_that_was_not_extracted_is_not_taken_for_absent(corpus: Path, tmp_path: Path) -> None:
    manifest = read_manifest(corpus / "manifest.parquet")
    extract(MBERT, manifest.iloc[:20], tmp_path / "e/mbert.zarr")
    shutil.copytree(corpus / "e/fbank.zarr", tmp_path / "e/fbank.zarr")
    shutil.copy(f"{corpus}/e/fbank.zarr.quarantine.csv", tmp_path / "e")
    # of 16 rows, number 20 has no text, and number 30 neither audio nor text
    with pytest.raises(
        ValueError, match=r"mbert.zarr has no frames of 14 rows that have text.*extract again"
    ):
        load_data(recipe(), manifest, tmp_path / "e")


def test_backbones_in_the_wrong_order_are_refused(corpus: Path) -> None:
    manifest = read_manifest(corpus / "manifest.parquet")
    with pytest.raises(
        ValueError, match=r"mbert.zarr holds frames of text, but the recipe reads it as audio"
    ):
        load_data(recipe(backbones=["mbert", "fbank"]), manifest, corpus / "e")


def test_a_modality_that_a_fold_never_trains_is_refused(corpus: Path, tmp_path: Path) -> None:
    manifest = read_manifest(corpus / "manifest.parquet")
    manifest.loc[manifest["fold"] != 0, "text"] = None
    extract(MBERT.model_copy(update={"max_bad_fraction": 0.9}), manifest, tmp_path / "e/mbert.zarr")
    shutil.copytree(corpus / "e/fbank.zarr", tmp_path / "e/fbank.zarr")
    shutil.copy(f"{corpus}/e/fbank.zarr.quarantine.csv", tmp_path / "e")
    data = load_data(recipe(), manifest, tmp_path / "e")
    with pytest.raises(
        ValueError, match=r"fold 0 has no training rows with text.*remove text from `modalities`"
    ):
        folds_of(data, recipe())


def test_the_digest_sees_every_modality_and_the_groups(corpus: Path) -> None:
    manifest = read_manifest(corpus / "manifest.parquet")
    data = load_data(recipe(), manifest, corpus / "e")
    text = data.parts["text"]
    swapped = CachedFeatures(text.store, text.rows[::-1].copy(), text.device)
    assert replace(data, parts=data.parts | {"text": swapped}).digest() != data.digest()
    sessions = replace(data, manifest=data.manifest.assign(session=data.manifest["id"]))
    other = replace(data, manifest=data.manifest.assign(session="one"))
    assert sessions.digest() == other.digest()
    assert sessions.digest("session") != other.digest("session")


def test_scores_know_the_training_rows_only(corpus: Path, run: Path) -> None:
    data = load_data(recipe(), read_manifest(corpus / "manifest.parquet"), corpus / "e")
    for fold in folds_of(data, recipe()):
        bank = Calibration.load(run / f"fold_{fold.number}").scorers["knn"].bank
        assert len(bank) == len(fold.train)
        head = Run.open(run).model(fold.number).head
        own = outputs_of(head, data.features, fold.train).features
        torch.testing.assert_close(bank, torch.nn.functional.normalize(own), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_trains_and_scores_rows_that_lack_a_modality(
    corpus: Path, tmp_path: Path, precision: str
) -> None:
    chosen = recipe(train=TRAIN | {"precision": precision, "epochs": 6})
    manifest = read_manifest(corpus / "manifest.parquet")
    train(chosen, manifest, corpus / "e", tmp_path, manifest_path=corpus / "manifest.parquet")
    assert evaluate(tmp_path)["n"] == 36


def test_what_is_absent_stays_absent_under_augmentation(corpus: Path) -> None:
    """The head must see a length of 0 for the rows without audio, whatever becomes of the other lengths."""
    manifest = read_manifest(corpus / "manifest.parquet")
    data = load_data(recipe(), manifest, corpus / "e")
    seen: list[torch.Tensor] = []

    class Watching(FusionClassifier):
        def outputs(self, *inputs: torch.Tensor) -> Outputs:
            if self.training:
                seen.append(inputs[1].clone())
            return super().outputs(*inputs)

    dims = {name: part.frame_shape[-1] for name, part in data.parts.items()}
    head = Watching(dims, 2, shared_dim=8, num_heads=2, depth=1, base_dim=16)
    config = Train(epochs=1, batch_size=4)
    rows = np.arange(len(manifest))
    fit(head, data.features, data.labels, rows, NONE, config, augment=FrameAugment(stretch=0.2))
    lengths = torch.cat(seen)
    assert (lengths == 0).sum() == len(NO_AUDIO)
    assert sorted(lengths.tolist()) != sorted(data.parts["audio"].lengths.tolist())  # the others did change


def test_an_ensemble_needs_the_frames_that_the_run_was_trained_on(
    corpus: Path, run: Path, tmp_path: Path
) -> None:
    new = write_speech(tmp_path / "new", count=14, seed=2000)
    manifest = read_manifest(new / "manifest.parquet")
    extract(FbankConfig(kind="fbank", deltas=0, num_mels=40), manifest, new / "e/fbank.zarr")
    extract(MBERT, manifest, new / "e/mbert.zarr")
    with pytest.raises(ValueError, match=r"the frames in .* were made with other settings"):
        evaluate(run, ensemble=True, manifest=new / "manifest.parquet", embeddings=new / "e")


def test_an_ensemble_knows_its_training_rows_when_their_manifest_is_another_now(
    corpus: Path, tmp_path: Path
) -> None:
    folder = copy_with(corpus, tmp_path, read_manifest(corpus / "manifest.parquet"))
    original = tmp_path / "original.parquet"
    shutil.copy(folder / "manifest.parquet", original)
    chosen = recipe(train=TRAIN | {"epochs": 1})
    out = train(
        chosen,
        read_manifest(original),
        folder / "e",
        folder / "run",
        manifest_path=folder / "manifest.parquet",
    )
    write_speech(tmp_path / "other", count=14, seed=3000)
    shutil.copy(tmp_path / "other/manifest.parquet", folder / "manifest.parquet")
    with pytest.raises(ValueError, match="36 of 36 rows are recordings that the run was trained on"):
        evaluate(out, ensemble=True, manifest=original)
    (folder / "manifest.parquet").unlink()
    with pytest.raises(ValueError, match="give it with --manifest"):
        evaluate(out)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"train": TRAIN | {"valid_fraction": 0, "early_stopping": {"patience": 2}}},
            "early_stopping needs valid",
        ),
        (
            {"train": TRAIN | {"valid_fraction": 0}, "open_set": {"threshold": "tuned"}},
            "tuned needs validation",
        ),
        ({"augment": {"bands": 7, "gain": 0.1}}, "no multiple of bands = 7"),
        (
            {"train": TRAIN | {"groups": {"nothing": {"rate": 2}}}},
            r"train.groups \['nothing'\] match no parameter",
        ),
        (
            {
                "backbones": ["fbank"],
                "modalities": [],
                "head": {"kind": "custom", "class": "stillwave.heads.pooled:PooledClassifier"},
                "losses": {"anchor": 0.1},
            },
            r"PooledClassifier has no losses \['anchor'\]",
        ),
    ],
    ids=["early stopping", "tuned", "bands", "groups", "a loss of another head"],
)
def test_a_refused_recipe_costs_no_old_run(
    corpus: Path, run: Path, tmp_path: Path, fields: dict[str, Any], message: str
) -> None:
    shutil.copytree(run, tmp_path / "run")
    manifest = read_manifest(corpus / "manifest.parquet")
    with pytest.raises(ValueError, match=message):
        train(
            recipe(**fields),
            manifest,
            corpus / "e",
            tmp_path / "run",
            manifest_path=corpus / "manifest.parquet",
        )
    assert (tmp_path / "run/complete").exists()
    assert (tmp_path / "run/fold_0/model.safetensors").exists()


@pytest.mark.parametrize("name", ["model.safetensors", "calibration.safetensors"])
def test_a_file_of_something_else_is_named(run: Path, tmp_path: Path, name: str) -> None:
    shutil.copytree(run, tmp_path / "run")
    save_tensors(tmp_path / "run/fold_0" / name, {"a": torch.ones(2)}, {"classes": []})
    with pytest.raises(ValueError, match=r"fold_0.*train the run again"):
        evaluate(tmp_path / "run")


def test_recipe_settings_reach_the_objective(corpus: Path) -> None:
    labels = np.array([0, 0, 0, 1])
    losses = Losses(focal=0.5, focal_kind="sigmoid", focal_beta=0.9, focal_gamma=1.0, cac=0.2, cac_alpha=3.0)
    objective = build_objective(labels, 2, Train(label_smoothing=0.25, class_weights="none"), losses)
    assert objective.weights == {"cross_entropy": 1.0, "focal": 0.5, "cac": 0.2}
    assert objective.cross_entropy.smoothing == 0.25
    assert objective.cross_entropy.weight.tolist() == [1, 1]
    assert (objective.focal.kind, objective.focal.gamma) == ("sigmoid", 1.0)
    expected = ClassBalancedFocalLoss(0.9, 1.0, [3, 1]).weight
    torch.testing.assert_close(objective.focal.weight, expected)
    assert objective.cac.anchors.max() == 3.0
    shapes = {"audio": (4,), "text": (4,)}
    head = build_head(recipe(losses=LOSSES | {"focal_kind": "sigmoid"}), shapes, 5)
    assert torch.equal(head.output.bias, torch.full((5,), -float(np.log(4))))


def test_a_class_called_unknown_cannot_stand_beside_unknown_rows(corpus: Path) -> None:
    manifest = read_manifest(corpus / "manifest.parquet")
    manifest["word"] = manifest["word"].replace({"high": "unknown"})
    manifest.loc[::3, "word"] = "other"
    with pytest.raises(
        ValueError,
        match=r"the class 'unknown' has the name that decisions give to the rows of open_set.unknown",
    ):
        load_data(recipe(open_set={"unknown": ["other"]}), manifest, corpus / "e")


def test_what_a_kill_left_behind_stops_nothing_and_is_cleared_away(corpus: Path, tmp_path: Path) -> None:
    manifest = read_manifest(corpus / "manifest.parquet")
    chosen = recipe(train=TRAIN | {"epochs": 1})
    (tmp_path / "run").mkdir()
    (tmp_path / "run/config.partial").write_text("{")  # killed while the config was written
    arguments: tuple[Any, ...] = (chosen, manifest, corpus / "e", tmp_path / "run")
    train(*arguments, manifest_path=corpus / "manifest.parquet")
    model = (tmp_path / "run/fold_0/model.safetensors").read_bytes()
    (tmp_path / "run/complete").unlink()
    (tmp_path / "run/fold_0/checkpoint.safetensors").touch()  # killed before it was taken away
    train(*arguments, manifest_path=corpus / "manifest.parquet")
    assert not (tmp_path / "run/fold_0/checkpoint.safetensors").exists()
    assert (tmp_path / "run/fold_0/model.safetensors").read_bytes() == model
