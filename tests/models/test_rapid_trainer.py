"""The rapid word pipeline on small speech: its files and their keys, splits, and tables that it refuses."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import typer
import yaml
from safetensors.torch import load_file
from typer.testing import CliRunner

from stillwave.models import rapid_trainer
from stillwave.models.personalized_model import PersonalizedModel
from stillwave.models.rapid_trainer import RapidTrainer
from stillwave.models.simple_audio_classifier import SimpleAudioClassifier
from stillwave.pipeline.backbones import load_backbone
from stillwave.pipeline.commands import model as model_commands
from stillwave.pipeline.config.base import ConfigError, load_config, parse_config
from stillwave.pipeline.config.named import SHIPPED, find_config
from stillwave.pipeline.config.recipe import Recipe
from stillwave.pipeline.corpora.manifest import read_manifest
from stillwave.pipeline.evaluate.stage import evaluate
from stillwave.pipeline.extract.stage import extract
from stillwave.pipeline.train.stage import train
from tests.fakes import files_of, write_wave

SMALL = {"channels": [8, 8, 8], "kernel_sizes": [80, 5, 3], "strides": [20, 2, 1], "pools": [4, 2, 1]}
FILES = {
    "best_basic_model.safetensors", "best_personalized_model.safetensors", "detailed_results_basic.json",
    "detailed_results_personalized.json", "rapid_training_summary.json",
}  # fmt: skip


def raw(name: str) -> Any:
    return yaml.safe_load((SHIPPED / name).read_text())


@pytest.fixture(scope="module")
def configs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pipeline's own configs with a small backbone, no augmentation and two epochs."""
    folder = tmp_path_factory.mktemp("configs")
    for name in ("recipes/word_basic.yaml", "recipes/word_personalized.yaml", "backbones/cnn1d.yaml"):
        content = raw(name)
        if "train" in content:
            content["train"] |= {"epochs": 2, "batch_size": 8}
            content["head"] |= {"bins": 2, "hidden": [8]}
            content["finetune"]["augment"] = None
        else:
            content |= SMALL
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(yaml.safe_dump(content))
    return folder


@pytest.fixture(scope="module")
def done(
    speech: Path, configs: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, Any]]:
    """A run of all of it: its folder and what it returned."""
    out = tmp_path_factory.mktemp("rapid") / "out"
    return out, RapidTrainer(speech / "table.csv", out, configs=configs, device="cpu").run_rapid_training()


def test_the_recipes_are_as_described() -> None:
    for name, epochs, every in (("word_basic", 8, 5), ("word_personalized", 12, 7)):
        recipe: Recipe = load_config(find_config("recipes", name), Recipe)
        assert (recipe.train.epochs, recipe.train.step_epochs, recipe.train.gamma) == (epochs, every, 0.5)
        assert recipe.train.schedule == "step"
        assert recipe.train.early_stopping is not None
        assert recipe.train.early_stopping.metric == "accuracy"
        assert recipe.train.early_stopping.patience == epochs  # it keeps the best and never stops early
    basic, personal = raw("recipes/word_basic.yaml"), raw("recipes/word_personalized.yaml")
    assert personal["train"]["learning_rate"] < basic["train"]["learning_rate"]
    assert personal["head"] == basic["head"]
    cnn = load_backbone(find_config("backbones", "cnn1d"))
    model = SimpleAudioClassifier(10)
    assert model.encoders["frames"].config.fingerprint_fields() == cnn.fingerprint_fields()
    assert (model.head.pooling.pooling, model.head.pooling.bins) == ("adaptive", basic["head"]["bins"])


def test_every_file_is_written_and_the_summary_has_its_keys(done: tuple[Path, dict[str, Any]]) -> None:
    out, summary = done
    assert {path.name for path in out.iterdir()} > FILES
    assert json.loads((out / "rapid_training_summary.json").read_text()) == summary
    assert list(summary) == [
        "training_completed", "basic_model", "personalized_model", "improvement", "improvement_percentage",
    ]  # fmt: skip
    assert summary["training_completed"] is True
    for name in ("basic", "personalized"):
        part = summary[f"{name}_model"]
        details = json.loads((out / f"detailed_results_{name}.json").read_text())
        assert part == {"accuracy": details["overall_accuracy"], "detailed_results": details}
        assert set(details) == {"overall_accuracy", "speaker_analysis", "word_analysis"}
        assert set(details["word_analysis"]) == {"low", "high"}
        for analysis in ("speaker_analysis", "word_analysis"):  # each row once
            parts = details[analysis].values()
            right = sum(one["accuracy"] * one["count"] for one in parts)
            assert right / sum(one["count"] for one in parts) == pytest.approx(details["overall_accuracy"])
    before, after = (summary[f"{name}_model"]["accuracy"] for name in ("basic", "personalized"))
    assert summary["improvement"] == pytest.approx(after - before)
    assert summary["improvement_percentage"] == pytest.approx(100 * (after - before) / before)


def test_the_split_is_80_20_stratified_and_validation_is_of_the_training_rows(
    done: tuple[Path, dict[str, Any]],
) -> None:
    rows = read_manifest(done[0] / "manifest.parquet")
    assert rows["split"].value_counts().to_dict() == {"train": 28, "test": 8}
    assert set(rows["word"][rows["split"] == "test"].value_counts()) == {4}
    details = json.loads((done[0] / "detailed_results_basic.json").read_text())
    assert sum(one["count"] for one in details["speaker_analysis"].values()) == 8
    assert all(one["known"] for one in details["speaker_analysis"].values())


def test_the_personalised_run_starts_from_the_basic_one(done: tuple[Path, dict[str, Any]]) -> None:
    config = json.loads((done[0] / "personalized" / "config.json").read_text())
    assert config["start"]["run"] == str(done[0] / "basic")
    assert config["recipe"]["personalise"] is not None


def test_the_saved_weights_are_those_of_the_models(done: tuple[Path, dict[str, Any]], configs: Path) -> None:
    """Under the models' own names, but for the sizes, which this test makes small."""
    basic = load_file(done[0] / "best_basic_model.safetensors")
    personal = load_file(done[0] / "best_personalized_model.safetensors")
    model = SimpleAudioClassifier(2)
    assert set(basic) == set(model.state_dict())
    speakers = personal["head.speakers.weight"]
    assert speakers.shape == (7, 32)
    assert set(personal) == set(PersonalizedModel(model, num_speakers=6).state_dict())
    assert not torch.equal(personal["head.head.mlp.0.weight"], basic["head.mlp.0.weight"])


def test_whole_speakers_are_held_out_on_request(speech: Path, configs: Path, tmp_path: Path) -> None:
    trainer = RapidTrainer(
        speech / "table.csv", tmp_path, configs=configs, speaker_independent=True, device="cpu"
    )
    trainer.prepare()
    rows = read_manifest(tmp_path / "manifest.parquet")
    sides = rows.groupby("speaker")["split"].nunique()
    assert (sides == 1).all()
    details = trainer.train_basic_model(epochs=1, lr=1e-3)
    assert not any(one["known"] for one in details["speaker_analysis"].values())
    config = json.loads((tmp_path / "basic" / "config.json").read_text())
    assert config["recipe"]["train"]["epochs"] == 1
    assert config["recipe"]["finetune"]["learning_rate"] == 1e-3


def test_tables_that_cannot_be_used(speech: Path, configs: Path, tmp_path: Path) -> None:
    lines = (speech / "table.csv").read_text().splitlines()
    table = tmp_path / "table.csv"

    def run(content: list[str]) -> None:
        table.write_text("\n".join([*content, ""]))
        RapidTrainer(table, tmp_path / "out", root=speech, configs=configs, device="cpu").prepare()

    with pytest.raises(ValueError, match=r"none\.csv: no such table; give .* file_path, word, speaker$"):
        RapidTrainer(tmp_path / "none.csv", tmp_path / "out", configs=configs).prepare()
    for ours in ("file_path", "word", "speaker"):
        needed = rf"table\.csv: no column '{ours}'; it needs file_path, word, speaker, and has .*who"
        with pytest.raises(ValueError, match=needed):
            run([lines[0].replace(ours, "who"), *lines[1:]])
    with pytest.raises(ValueError, match=r"'speaker'; it needs .*, and has file_path, word, who"):
        run([lines[0].replace("speaker", "who"), *lines[1:]])
    with pytest.raises(ValueError, match=r"table\.csv: line 2 has more fields"):
        run([lines[0], lines[1] + ",more", *lines[2:]])
    with pytest.raises(ValueError, match=r"'speaker' has no value for .*wav/000\.wav \(1 rows in all\)"):
        run([lines[0], lines[1].replace(",s0,", ",,"), *lines[2:]])
    with pytest.raises(ValueError, match=r"column 'word' has only 'low' in all 18 usable rows; .* 2 words"):
        run([lines[0], *lines[1::2]])
    with pytest.raises(ValueError, match=r"manifest\.partial/quarantine\.csv"):  # names each file and why
        run([lines[0], *[line.replace("wav/00", "wav/none") for line in lines[1:]]])
    assert "wav/none0.wav" in (tmp_path / "out" / "manifest.partial" / "quarantine.csv").read_text()
    with pytest.raises(ConfigError, match=r"word_basic\.yaml"):
        RapidTrainer(
            speech / "table.csv", tmp_path / "out", configs=tmp_path, device="cpu"
        ).run_rapid_training()


def test_a_refused_table_changes_nothing(
    done: tuple[Path, dict[str, Any]], speech: Path, configs: Path, tmp_path: Path
) -> None:
    out, table = tmp_path / "out", tmp_path / "table.csv"
    shutil.copytree(done[0], out)
    before = files_of(out)
    lines = (speech / "table.csv").read_text().splitlines()
    lost = [line.replace("wav/00", "wav/none") for line in lines[1:]]
    for content in (
        [lines[0], *lines[1::2]],
        [lines[0], lines[1].replace(",s0,", ",,"), *lines[2:]],
        [lines[0].replace("speaker", "who"), *lines[1:]],
        [lines[0], *lost],
    ):
        table.write_text("\n".join([*content, ""]))
        with pytest.raises(ValueError, match=r"table\.csv|quarantine\.csv"):
            RapidTrainer(table, out, root=speech, configs=configs, device="cpu").run_rapid_training()
        assert {
            name: data for name, data in files_of(out).items() if "manifest.partial/" not in name
        } == before
    RapidTrainer(speech / "table.csv", out, configs=configs, device="cpu").prepare()
    assert files_of(out) == before  # and what was refused is swept up


def test_an_interrupted_second_run_leaves_no_results_of_the_first(
    done: tuple[Path, dict[str, Any]],
    speech: Path,
    configs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:

    def killed(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    out = tmp_path / "out"
    shutil.copytree(done[0], out)
    trainer = RapidTrainer(speech / "table.csv", out, configs=configs, device="cpu")
    monkeypatch.setattr(rapid_trainer, "finetune", killed)
    with pytest.raises(KeyboardInterrupt):
        trainer.train_personalized_model()
    assert {path.name for path in out.iterdir()} & FILES == {
        "best_basic_model.safetensors",
        "detailed_results_basic.json",
    }
    with pytest.raises(KeyboardInterrupt):
        trainer.run_rapid_training()
    assert not {path.name for path in out.iterdir()} & FILES


def test_steps_that_come_too_early_name_the_one_before(speech: Path, configs: Path, tmp_path: Path) -> None:
    trainer = RapidTrainer(speech / "table.csv", tmp_path / "out", configs=configs, device="cpu")
    with pytest.raises(ValueError, match=r"manifest\.parquet: missing; call prepare\(\).*run_rapid_training"):
        trainer.train_basic_model()
    trainer.prepare()
    with pytest.raises(ValueError, match=r"out/basic: missing; call train_basic_model\(\)"):
        trainer.train_personalized_model()


def test_words_of_few_recordings(speech: Path, configs: Path, tmp_path: Path) -> None:
    """One that is never tested is warned of, and has no accuracy; one that is never trained is refused."""
    lines, table = (speech / "table.csv").read_text().splitlines(), tmp_path / "table.csv"
    rare = [f"{tmp_path}/{word}.wav,{word},s{i},once" for i, word in enumerate(("rare", "scarce"))]
    for seed, word in enumerate(("rare", "scarce")):
        write_wave(tmp_path / f"{word}.wav", 0.5, 400, seed=99 + seed)

    def trainer(content: list[str], **options: Any) -> RapidTrainer:
        table.write_text("\n".join([*content, ""]))
        return RapidTrainer(table, tmp_path / "out", root=speech, configs=configs, device="cpu", **options)

    once = trainer([*lines, rare[0]])
    with pytest.warns(UserWarning, match=r"table\.csv: no test row has the word 'rare': .* count is 0"):
        once.prepare()
    words = once.train_basic_model(epochs=1)["word_analysis"]
    assert words["rare"] == {"accuracy": None, "count": 0}
    assert {name: one["count"] for name, one in words.items()} == {"high": 4, "low": 4, "rare": 0}
    # of two speakers one is tested, and says a word that the other does not
    two = [lines[0], *(line for line in lines if ",s0," in line or ",s1," in line), *rare]
    with pytest.raises(ValueError, match=r"table\.csv: no training row has the word '(rare|scarce)': only"):
        trainer(two, speaker_independent=True).prepare()


def test_the_command_says_where_and_how_good(
    speech: Path, configs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:

    class Small(RapidTrainer):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options, configs=configs)

    monkeypatch.setattr(rapid_trainer, "RapidTrainer", Small)
    app = typer.Typer()
    app.command()(model_commands.rapid)
    arguments = [str(speech / "table.csv"), "--out", str(tmp_path), "--seed", "3", "--device", "cpu"]
    found = CliRunner().invoke(app, arguments)
    assert found.exit_code == 0, found.output
    summary = json.loads((tmp_path / "rapid_training_summary.json").read_text())
    basic, personal = (
        json.loads((tmp_path / f"detailed_results_{name}.json").read_text())["overall_accuracy"]
        for name in ("basic", "personalized")
    )
    assert summary["improvement"] == pytest.approx(personal - basic)
    said = f"rapid_training_summary.json: accuracy {basic:.3f} basic, {personal:.3f} personalised "
    assert f"{said}({personal - basic:+.3f})" in found.output.replace("\n", "")
    config = json.loads((tmp_path / "basic" / "config.json").read_text())
    assert config["recipe"]["train"]["seed"] == 3


def test_personalised_over_stored_frames(speech: Path, tmp_path: Path) -> None:
    """fbank_words and fbank_words_personalized, smaller and shorter."""
    manifest, rows = speech / "manifest.parquet", read_manifest(speech / "manifest.parquet")
    small = {"channels": 8, "hidden": 8, "num_segments": 2}
    fbank = load_backbone(find_config("backbones", "fbank_static"))
    extract(fbank, rows, tmp_path / "fbank_static.zarr")
    start = None
    for name in ("fbank_words", "fbank_words_personalized"):
        content = raw(f"recipes/{name}.yaml")
        content["head"] |= small
        content["train"] |= {"epochs": 4, "batch_size": 8, "learning_rate": 5e-3}
        recipe: Recipe = parse_config(content, Recipe, name)
        run = train(
            recipe, rows, tmp_path, tmp_path / name, manifest_path=manifest, start=start, device="cpu"
        )
        assert evaluate(run)["accuracy"] > 0.7  # chance is 0.5; seen: 0.83, 1.0
        start = run
    weights = load_file(tmp_path / "fbank_words_personalized" / "fold_0" / "model.safetensors")
    assert weights["speakers.weight"].shape[0] - 1 == rows["speaker"][rows["fold"] != 0].nunique()
