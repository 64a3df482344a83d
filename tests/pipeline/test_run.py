"""The whole path on small real audio, from Python and from the command line."""

import importlib.metadata
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

import stillwave.pipeline.train.stage as train_module
from stillwave.cache import EmbeddingStore
from stillwave.pipeline.cli import main
from stillwave.pipeline.evaluate.stage import evaluate
from stillwave.pipeline.runs.run import Run
from tests.fakes import files_of, speech_config, write_speech, write_wave

RECIPE = {
    "backbones": ["fbank"],
    "label": "word",
    "head": {"kind": "segment", "num_heads": 4, "channels": 16, "strides": [4], "hidden": 16, "dropout": 0.1},
    "train": {"epochs": 8, "batch_size": 8, "learning_rate": 5.0e-3},
}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus, its configs, and a finished run in `out`."""
    folder = tmp_path_factory.mktemp("project")
    write_speech(folder / "speech")
    for name, body in {
        "configs/corpora/tones.yaml": speech_config().model_dump(mode="json"),
        "configs/backbones/fbank.yaml": {"kind": "fbank", "deltas": 0},
        "configs/recipes/tones.yaml": RECIPE,
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(yaml.safe_dump(body))
    assert stillwave(*run_arguments(folder)) == 0
    return folder


def run_arguments(folder: Path) -> list[str]:
    return [
        "run", "--corpus", f"{folder}/configs/corpora/tones.yaml", "--root", f"{folder}/speech",
        "--recipe", f"{folder}/configs/recipes/tones.yaml", "--out", f"{folder}/out",
    ]  # fmt: skip


def stillwave(*arguments: str) -> int:
    """The command in this process; returns its exit code."""
    old, sys.argv = sys.argv, ["stillwave", *arguments]
    try:
        main()
    except SystemExit as stop:
        return int(stop.code or 0)
    finally:
        sys.argv = old
    return 0


def test_run_goes_from_a_folder_of_speech_to_a_report(project: Path) -> None:
    metrics = json.loads((project / "out/report/metrics.json").read_text())
    assert metrics["n"] == 36
    assert metrics["n_missing"] == 0
    assert metrics["uar"] > 0.8  # an octave apart
    assert set(metrics) >= {
        "accuracy",
        "weighted_f1",
        "macro_f1",
        "per_class",
        "per_speaker",
        "confusion",
        "folds",
    }
    table = pd.read_parquet(project / "out/report/predictions.parquet")
    assert len(table) == 36
    assert table["fold"].nunique() == 3
    assert (table.groupby("speaker")["fold"].nunique() == 1).all()
    assert table.filter(like="p_").sum(axis=1).to_numpy() == pytest.approx(1, abs=1e-5)
    assert sum(map(sum, metrics["confusion"]["matrix"])) == 36
    for name in ("confusion.png", "per_speaker.png"):
        assert (project / "out/report/plots" / name).read_bytes().startswith(b"\x89PNG")
    curves = pd.read_csv(project / "out/report/curves.csv")
    assert len(curves) == 3 * 8
    assert curves["train_loss"].notna().all()


def test_the_single_stages_give_the_same_as_run(project: Path, tmp_path: Path) -> None:
    configs, table = project / "configs", f"{tmp_path}/manifest.parquet"
    corpus = ["--corpus", f"{configs}/corpora/tones.yaml", "--root", f"{project}/speech"]
    assert stillwave("prepare", *corpus, "--out", table) == 0
    backbone = ["--backbone", f"{configs}/backbones/fbank.yaml", "--manifest", table]
    assert stillwave("extract", *backbone, "--out", f"{tmp_path}/e/fbank.zarr") == 0
    recipe = ["--recipe", f"{configs}/recipes/tones.yaml", "--manifest", table]
    assert stillwave("train", *recipe, "--embeddings", f"{tmp_path}/e", "--out", f"{tmp_path}/run") == 0
    assert stillwave("evaluate", "--run", f"{tmp_path}/run") == 0
    ours = json.loads((tmp_path / "run/report/metrics.json").read_text())
    theirs = json.loads((project / "out/report/metrics.json").read_text())
    theirs["run"] |= {"folder": f"{tmp_path}/run", "manifest": table}
    assert ours == theirs
    assert files_of(tmp_path / "e/fbank.zarr") == files_of(project / "out/embeddings/fbank.zarr")


def test_a_killed_run_keeps_its_finished_folds(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done, real = [], train_module._train_fold

    def killed_after_one(folder: Path, *rest: object) -> None:
        if done:
            raise KeyboardInterrupt
        done.append(folder)
        real(folder, *rest)  # type: ignore[arg-type]

    inputs = ["--manifest", f"{project}/out/manifest.parquet", "--embeddings", f"{project}/out/embeddings"]
    recipe = f"{project}/configs/recipes/tones.yaml"
    arguments = ["train", "--recipe", recipe, *inputs, "--out", f"{tmp_path}/run"]
    monkeypatch.setattr(train_module, "_train_fold", killed_after_one)
    stillwave(*arguments)
    with pytest.raises(ValueError, match="training has not finished"):
        evaluate(tmp_path / "run")
    stamp = (tmp_path / "run/fold_0/model.safetensors").stat().st_mtime_ns
    monkeypatch.setattr(train_module, "_train_fold", real)
    assert stillwave(*arguments) == 0
    assert (tmp_path / "run/fold_0/model.safetensors").stat().st_mtime_ns == stamp
    for fold in range(3):
        file = f"fold_{fold}/model.safetensors"
        assert (tmp_path / "run" / file).read_bytes() == (project / "out/run" / file).read_bytes()


def test_each_prediction_is_that_of_the_fold_that_had_not_seen_the_row(project: Path) -> None:
    table = pd.read_parquet(project / "out/report/predictions.parquet").set_index("id")
    manifest = pd.read_parquet(project / "out/manifest.parquet").set_index("id")
    store = EmbeddingStore(project / "out/embeddings/fbank.zarr")
    for id_ in manifest.index[::4]:
        fold = int(manifest["fold"][id_])
        head, config = Run.open(project / "out/run").model(fold).head, Run.open(project / "out/run").config
        (row,) = store.rows([id_])
        frames = torch.from_numpy(store[row].astype(np.float32))[None]
        with torch.inference_mode():
            expected = head(frames, torch.tensor([frames.shape[1]])).softmax(1)[0].numpy()
        assert table["fold"][id_] == fold
        assert table["label"][id_] == manifest["word"][id_]
        assert table.loc[id_, [f"p_{name}" for name in config["classes"]]].tolist() == pytest.approx(
            expected, abs=1e-4
        )


def test_standardisation_is_fitted_on_training_rows_only(project: Path) -> None:
    manifest = pd.read_parquet(project / "out/manifest.parquet")
    store = EmbeddingStore(project / "out/embeddings/fbank.zarr")
    for fold in range(3):
        head = Run.open(project / "out/run").model(fold).head
        rows = store.rows(manifest["id"][manifest["fold"] != fold])
        frames = np.concatenate([store[row] for row in rows]).astype(np.float64)
        np.testing.assert_allclose(head.standardise.mean.numpy(), frames.mean(0), rtol=1e-4)
        np.testing.assert_allclose(head.standardise.std.numpy(), frames.std(0), rtol=1e-4)


def test_a_run_that_was_moved_is_evaluated_where_it_is(project: Path, tmp_path: Path) -> None:
    shutil.copytree(project / "out", tmp_path / "moved")
    metrics = evaluate(
        tmp_path / "moved/run",
        manifest=tmp_path / "moved/manifest.parquet",
        embeddings=tmp_path / "moved/embeddings",
    )
    assert metrics["uar"] == json.loads((project / "out/report/metrics.json").read_text())["uar"]


def test_training_never_replaces_a_folder_of_somebody_else(project: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "wav2vec2"}')
    (tmp_path / "thesis.txt").write_text("four years of work")
    inputs = ["--manifest", f"{project}/out/manifest.parquet", "--embeddings", f"{project}/out/embeddings"]
    recipe = f"{project}/configs/recipes/tones.yaml"
    assert stillwave("train", "--recipe", recipe, *inputs, "--out", str(tmp_path)) == 1
    assert (tmp_path / "thesis.txt").exists()


@pytest.mark.parametrize(
    "key",
    ["recipe", "classes", "folds", "rows", "stores", "backbones", "live", "manifest", "embeddings"],
)
def test_a_run_that_lacks_a_key_is_refused(key: str, project: Path, tmp_path: Path) -> None:
    (tmp_path / "complete").touch()
    config = Run.open(project / "out/run").config
    for value, message in ((None, f"lacks the key '{key}'"), (3, f"'{key}' is 3, no ")):
        changed = {name: there for name, there in config.items() if name != key}
        changed |= {} if value is None else {key: value}
        (tmp_path / "config.json").write_text(json.dumps(changed))
        with pytest.raises(ValueError, match=rf"config\.json: {message}.*train the run again"):
            Run.open(tmp_path)


@pytest.mark.parametrize("content", ["[1, 2]", "3", "null", '"a run"'])
def test_a_config_that_is_no_object_is_refused(content: str, tmp_path: Path) -> None:
    (tmp_path / "complete").touch()
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(ValueError, match=r"config\.json: holds no JSON object.*train the run again"):
        Run.open(tmp_path)


def test_evaluate_refuses_data_that_changed_since_training(project: Path, tmp_path: Path) -> None:
    shutil.copytree(project / "out", tmp_path / "out")
    config = json.loads((tmp_path / "out/run/config.json").read_text())
    config["manifest"], config["embeddings"] = (
        f"{tmp_path}/out/manifest.parquet",
        f"{tmp_path}/out/embeddings",
    )
    (tmp_path / "out/run/config.json").write_text(json.dumps(config))
    evaluate(tmp_path / "out/run")
    table = pd.read_parquet(tmp_path / "out/manifest.parquet")
    table.sample(frac=1, random_state=0).to_parquet(tmp_path / "out/manifest.parquet")
    evaluate(tmp_path / "out/run")  # the same rows, whatever their order
    table["word"] = table["word"].to_numpy()[::-1]
    table.to_parquet(tmp_path / "out/manifest.parquet")
    then = config["manifest_sha256"][:12]
    message = rf"the manifest .*manifest\.parquet \(sha256 \w{{12}}, then {then}\) changed since training"
    with pytest.raises(ValueError, match=message):
        evaluate(tmp_path / "out/run")


def test_info_verify_and_compact(project: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    store = tmp_path / "fbank.zarr"
    shutil.copytree(project / "out/embeddings/fbank.zarr", store)
    assert stillwave("info", str(store), "--json") == 0
    facts = json.loads(capfd.readouterr().out)
    assert (facts["rows"], facts["layout"]["dim"], facts["fingerprint"]["kind"]) == (36, 80, "fbank")
    assert 0 < facts["shortest"] < facts["longest"]
    assert stillwave("verify", str(store)) == 0
    assert stillwave("compact", str(store)) == 0
    shard = store / "frames/c/0/0"
    shard.write_bytes(shard.read_bytes()[:-1] + b"?")
    assert stillwave("verify", str(store)) == 1
    assert "c/0/0: checksum differs" in capfd.readouterr().err
    assert stillwave("verify", "--repair", str(store)) == 1
    extract = ["extract", "--backbone", f"{project}/configs/backbones/fbank.yaml"]
    assert stillwave(*extract, "--manifest", f"{project}/out/manifest.parquet", "--out", str(store)) == 0
    assert stillwave("verify", str(store)) == 0


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["extract"], 2, "Missing option"),
        (["nonsense"], 2, "No such command"),
        (["info", "nothing.zarr"], 1, "no embedding store here"),
        (["compact", "nothing.zarr"], 1, "no embedding store here"),
        (["run", "--device", "abacus"], 1, "device 'abacus' cannot be used"),
        (["run", "-S", "recipe.head.kernel_size=4"], 2, "must be odd"),
        (["run", "-S", "recipe.augment.warp=0.1"], 2, "need `bands`"),
        (["evaluate", "--run", "nothing"], 1, "make it with `stillwave train`"),
        (["run", "-S", "train.epochs=1"], 2, "say which config it is for"),
        (["run", "-S", "recipe.train.epoch=1"], 2, "`train.epoch`: Extra inputs"),
        (["run", "-S", "backbones.fbank.deltas=9"], 2, "deltas"),
    ],
)
def test_mistakes_have_a_message_and_an_exit_code(
    arguments: list[str], code: int, message: str, project: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    if arguments[0] == "run":
        arguments = run_arguments(project) + arguments[1:]
    assert stillwave(*arguments) == code
    assert message in capfd.readouterr().err


HELP = """
import sys
import stillwave.pipeline.cli
sys.argv = ["stillwave", "--help"]
try:
    stillwave.pipeline.cli.main()
except SystemExit:
    heavy = {"torch", "pandas", "zarr", "numpy", "transformers", "matplotlib"}
    print("heavy imports:", sorted(heavy & set(sys.modules)))
"""


def test_help_names_every_command_and_imports_nothing_heavy() -> None:
    shown = subprocess.run([sys.executable, "-c", HELP], capture_output=True, text=True, check=True).stdout
    assert "heavy imports: []" in shown
    for command in ("init", "prepare", "extract", "train", "evaluate", "run", "info", "verify", "compact"):
        assert f" {command} " in shown


def test_the_version_is_shown(capfd: pytest.CaptureFixture[str]) -> None:
    assert stillwave("--version") == 0
    assert capfd.readouterr().out.strip() == importlib.metadata.version("stillwave")


def test_adding_ten_files_extracts_ten_files(
    project: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "project"
    shutil.copytree(project / "speech", folder / "speech")
    shutil.copytree(project / "configs", folder / "configs")
    assert stillwave(*run_arguments(folder)) == 0
    assert "36 computed" in capfd.readouterr().err
    with (folder / "speech/table.csv").open("a") as table:
        for i in range(10):
            write_wave(folder / f"speech/wav/new{i}.wav", 0.6, 130 + 10 * i, seed=500 + i)
            table.write(f"wav/new{i}.wav,low,s{i % 6},new\n")
    assert stillwave(*run_arguments(folder)) == 0
    assert "46 rows, 10 computed" in capfd.readouterr().err
    assert len(EmbeddingStore(folder / "out/embeddings/fbank.zarr")) == 46
