"""The report's page, from real runs whose names are out to break it."""

import json
import re
import shutil
from collections import Counter
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from stillwave.analysis.pages import SHARED
from stillwave.analysis.report import render, write_page
from stillwave.analysis.report_facts import kept_epoch
from stillwave.analysis.report_runs import read_shown
from stillwave.pipeline.backbones import parse_backbone
from stillwave.pipeline.cli import main
from stillwave.pipeline.config.base import parse_config
from stillwave.pipeline.config.recipe import Recipe
from stillwave.pipeline.config.train import EarlyStopping
from stillwave.pipeline.corpora.manifest import read_manifest
from stillwave.pipeline.corpora.prepare import prepare
from stillwave.pipeline.evaluate.compare import compare
from stillwave.pipeline.evaluate.report import full_report
from stillwave.pipeline.evaluate.stage import evaluate, rows_digest
from stillwave.pipeline.extract.stage import extract
from stillwave.pipeline.runs import environment
from stillwave.pipeline.runs.inference import predict
from stillwave.pipeline.train.fit import fit
from stillwave.pipeline.train.stage import train
from tests.analysis.html_page import Page
from tests.fakes import speech_config, write_speech
from tests.pipeline.train.test_fit import ToyFeatures, head, settings

LOW, HIGH, MIDDLE = "<script>alert(1)</script>", "a $ and a $", 'x" onload="alert(2)'
SPEAKER = "<img src=x onerror=alert(3)>"
RECIPE: dict[str, Any] = {
    "backbones": ["fbank"],
    "label": "word",
    "head": {"kind": "pooled", "hidden": [8]},
    "train": {"epochs": 3, "batch_size": 8, "learning_rate": 1.0e-2},
}
RECIPES: dict[str, dict[str, Any]] = {
    "first": {},
    "second": {
        "losses": {"focal": 0.5},
        "train": RECIPE["train"] | {"seed": 1, "valid_fraction": 0.3},
    },
    "open": {"open_set": {"unknown": [MIDDLE], "score": "msp"}},
}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes, of which `open` never trains one; two rows have no frames; evaluations in `reports`."""
    folder = tmp_path_factory.mktemp("reports")
    write_speech(folder)
    first, *lines = (folder / "table.csv").read_text().splitlines()
    quoted = {"low": LOW, "high": HIGH, "middle": MIDDLE.replace('"', '""')}
    changed = []
    for i, line in enumerate(lines):
        path, word, speaker, text = line.split(",")
        name = f'"{quoted["middle" if i % 6 == 5 or i % 6 == 2 else word]}"'
        changed.append(",".join([path, name, SPEAKER if speaker == "s0" else speaker, text]))
    (folder / "table.csv").write_text("\n".join([first, *changed, ""]))
    prepare(speech_config(), folder, folder / "manifest.parquet")
    manifest = read_manifest(folder / "manifest.parquet")
    backbone = parse_backbone({"kind": "fbank", "deltas": 0}, "fbank", trusted=True)
    extract(backbone, manifest.iloc[2:], folder / "embeddings/fbank.zarr")
    for name in RECIPES:
        train_one(folder, name)
        evaluate(folder / "runs" / name, folder / "reports" / name)
    return folder


def train_one(folder: Path, name: str, **changes: Any) -> Path:
    recipe = parse_config(RECIPE | RECIPES[name] | changes, Recipe, name)
    manifest = folder / "manifest.parquet"
    rows = read_manifest(manifest)
    return train(recipe, rows, folder / "embeddings", folder / "runs" / name, manifest_path=manifest)


@cache
def page(project: Path, *names: str) -> Page:
    """The page of these runs, `page.html` of a folder with their names."""
    out = project / "pages" / "-".join(names) / "page.html"
    write_page([project / "runs" / name for name in names], out, project / "reports")
    return Page(out.read_text())


def read_metrics(project: Path, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((project / "reports" / name / "metrics.json").read_text())
    return found


def test_the_tables_say_what_was_measured(project: Path) -> None:
    found = page(project, "second")
    metrics = read_metrics(project, "second")
    scores = {row[0]: row for row in found.tables["Scores"]}
    low, high = metrics["intervals"]["rows"]["uar"]
    by_speaker = metrics["intervals"]["speakers"]["uar"]
    assert scores["UAR"][1:4] == [
        f"{metrics['uar']:.3f}",
        f"{low:.3f} to {high:.3f}",
        f"{by_speaker[0]:.3f} to {by_speaker[1]:.3f}",
    ]
    recalls = {row[0]: row[2] for row in found.tables["Scores of each class"][1:]}
    assert recalls == {name: f"{one['recall']:.3f}" for name, one in metrics["per_class"].items()}
    assert {row[0] for row in found.tables["Each speaker"][1:]} == {SPEAKER, *(f"s{i}" for i in range(1, 6))}
    before, after = (
        [f"{metrics['calibration'][when][name]:.3f}" for name in ("ece", "nll", "brier")]
        for when in ("before", "after")
    )
    assert found.tables["Calibration: lower is better"][1:] == [
        ["as trained", *before],
        ["after scaling", *after],
    ]
    history = pd.read_csv(project / "runs/second/fold_1/history.csv")
    fold = found.tables["Training of each fold"][2]
    assert fold[:2] == ["1", "3"]
    assert fold[3:] == [
        f"{history['train_loss'].iloc[-1]:.3f}",
        "3",  # no early stopping: the last epoch is kept, whichever was best
        f"{history['valid_uar'].iloc[-1]:.3f}",
        f"{history['valid_loss'].iloc[-1]:.3f}",
    ]
    said = found.text
    assert f"{metrics['n']} rows, each predicted" in said
    assert f"2 labelled rows without frames are left out: {', '.join(metrics['missing'])}" in said
    assert "learning_rate: 0.01" in said  # the recipe
    assert "window_s: 0.025" in said  # the fingerprint


def test_unknown_classes_have_their_curve_and_table(project: Path) -> None:
    found = page(project, "open")
    metrics = read_metrics(project, "open")["open_set"]
    rows = found.tables["Every score; the recipe's own is first"][1:]
    assert {row[0] for row in rows} == set(metrics["scores"])
    assert rows[0][:2] == ["msp", f"{metrics['scores']['msp']['auroc']:.3f}"]
    assert any("unknown rows detected" in label for label in found.attributes("aria-label"))
    assert f"Never trained: {MIDDLE}," in found.text
    assert "Unknown classes" not in page(project, "second").text


def test_runs_on_the_same_rows_are_paired_and_others_are_not(project: Path) -> None:
    found = page(project, "first", "second", "open")
    assert [row[0] for row in found.tables["All runs"]] == ["run", "first", "second", "open"]
    pairs = found.tables["Difference to first, on the same rows"][1:]
    folders = project / "reports/first", project / "reports/second"
    rows, speakers = compare(*folders), compare(*folders, group="speaker")
    uar = rows["metrics"]["uar"]
    assert [row[0] for row in pairs] == ["second"]
    assert pairs[0][1] == f"{uar['difference']:+.3f}"
    assert pairs[0][2] == "{:+.3f} to {:+.3f}".format(*uar["interval"])
    assert pairs[0][4] == "{:+.3f} to {:+.3f}".format(*speakers["metrics"]["uar"]["interval"])
    said = found.text
    assert "Not compared with first: open has the same rows, but other unknown classes (`stillwave" in said
    assert "another seed may change UAR as much" in said


def test_a_page_needs_no_other_file_and_its_links_lead_somewhere(project: Path) -> None:
    found = page(project, "first", "second", "open")
    counts = Counter(found.attributes("id"))
    assert [name for name, count in counts.items() if count > 1] == []
    targets = [*found.attributes("href"), *found.attributes("xlink:href")]
    assert {target.removeprefix("#") for target in targets if target.startswith("#")} <= counts.keys()
    assert all(target.startswith(("#", "data:image/png;base64,")) for target in targets)
    tags = {tag for tag, _ in found.elements}
    assert not tags & {"script", "link", "iframe", "object"}
    html = (project / "pages/first-second-open/page.html").read_text()
    assert "@import" not in html
    assert not re.search(r"url\((?!#)", html)
    used = re.findall(r"url\(#([^)]+)\)", html)
    assert used
    assert set(used) <= counts.keys()


def test_names_are_shown_and_not_run(project: Path) -> None:
    found = page(project, "first", "second", "open")
    tags = {tag for tag, _ in found.elements}
    assert not tags & {"script", "img"}
    assert not any(name.startswith("on") for _, attributes in found.elements for name in attributes)
    classes = {row[0] for row in found.tables["Scores of each class"]}
    assert {LOW, HIGH} <= classes
    assert SPEAKER in {row[0] for row in found.tables["Each speaker"]}
    assert MIDDLE in found.text


def test_every_picture_says_what_it_shows_and_every_table_has_a_name(project: Path) -> None:
    found = page(project, "first", "second", "open")
    pictures = [attributes for tag, attributes in found.elements if tag == "svg"]
    assert len(pictures) == 4 + 5 + 6  # four of every run; losses of the second; unknown classes of the third
    assert all(one["role"] == "img" and one["aria-label"] for one in pictures)
    count = Counter(tag for tag, _ in found.elements)
    assert count["table"] == count["caption"]
    heads = [attributes for tag, attributes in found.elements if tag == "th"]
    assert all(one.get("scope") in ("col", "row") for one in heads)


def test_the_same_runs_give_the_same_page(project: Path, tmp_path: Path) -> None:
    page(project, "second")
    write_page([project / "runs/second"], tmp_path / "page.html", project / "reports")
    assert (tmp_path / "page.html").read_bytes() == (project / "pages/second/page.html").read_bytes()


def test_evaluations_are_found_where_each_command_leaves_them(project: Path, tmp_path: Path) -> None:
    shutil.copytree(project / "runs/first", tmp_path / "one/run")
    with pytest.raises(ValueError, match=r"no evaluation, looked for in .*stillwave evaluate --run"):
        write_page([tmp_path / "one"], tmp_path / "page.html")
    for place in ("one/report", "one/run/report", "run"):
        shutil.copytree(project / "reports/first", tmp_path / place)
        (shown,) = read_shown([tmp_path / "one"], tmp_path)
        assert (shown.name, shown.report) == ("one", tmp_path / place)
        shutil.rmtree(tmp_path / place)


def test_an_evaluation_names_its_run(project: Path, tmp_path: Path) -> None:
    (shown,) = read_shown([project / "reports/second"], tmp_path)
    assert (shown.name, shown.run) == ("second", project / "runs/second")
    copied = shutil.copytree(project / "reports/second", tmp_path / "second")
    metrics = json.loads((copied / "metrics.json").read_text())
    (copied / "metrics.json").write_text(json.dumps(metrics | {"run": metrics["run"] | {"digest": "0"}}))
    with pytest.raises(ValueError, match="belongs to another training"):
        read_shown([copied], tmp_path)
    (copied / "metrics.json").write_text(json.dumps({}))
    with pytest.raises(ValueError, match="does not record its run"):
        read_shown([copied], tmp_path)
    told = metrics["run"] | {"folder": "runs/gone"}
    (copied / "metrics.json").write_text(json.dumps(metrics | {"run": told}))
    with pytest.raises(
        ValueError, match=r"of runs/gone, which does not exist: .*--reports .*delete .*second"
    ):
        read_shown([copied], tmp_path)


def test_what_is_no_run_is_named(project: Path, tmp_path: Path) -> None:
    run = project / "runs/first"
    with pytest.raises(ValueError, match="nothing: no such folder"):
        read_shown([tmp_path / "nothing"], tmp_path)
    with pytest.raises(ValueError, match=r"metrics.json is a file; give its folder"):
        read_shown([project / "reports/first/metrics.json"], tmp_path)
    with pytest.raises(ValueError, match="is given twice"):
        read_shown([run, project / "reports/first"], project / "reports")
    with pytest.raises(ValueError, match=r"is a folder; --out names a file.*index.html"):
        write_page([run], tmp_path, project / "reports")


def test_an_evaluation_of_another_training_is_refused(project: Path, tmp_path: Path) -> None:
    for part in ("manifest.parquet", "embeddings", "runs/first", "reports/first"):
        (tmp_path / part).parent.mkdir(exist_ok=True)
        copy = shutil.copytree if (project / part).is_dir() else shutil.copy
        copy(project / part, tmp_path / part)
    run = train_one(tmp_path, "first", train=RECIPE["train"] | {"seed": 7})
    with pytest.raises(
        ValueError, match=r"reports/first belongs to another training.*evaluate --run .*--out"
    ):
        write_page([run], tmp_path / "page.html", tmp_path / "reports")
    assert not (tmp_path / "page.html").exists()
    evaluate(run, run / "report")  # the old one beside it is passed over
    assert read_shown([run], tmp_path / "reports")[0].report == run / "report"


def test_a_run_that_went_on_elsewhere_says_so(project: Path, tmp_path: Path) -> None:
    shutil.copytree(project / "runs/first", tmp_path / "runs/first")
    file = tmp_path / "runs/first/environment.json"
    (one,) = environment.read(tmp_path / "runs/first")
    file.write_text(json.dumps([one, one | {"cpu": "<b>another</b>"}]))
    write_page([tmp_path / "runs/first"], tmp_path / "page.html", project / "reports")
    found = Page((tmp_path / "page.html").read_text())
    assert ["cpu", "<b>another</b>"] in found.tables["Trained on, 2 of 2"]
    assert ["torch", torch.__version__] in found.tables["Trained on, 1 of 2"]
    file.unlink()
    write_page([tmp_path / "runs/first"], tmp_path / "page.html", project / "reports")
    assert "older than environment.json" in (tmp_path / "page.html").read_text()


def test_the_command_writes_the_page_or_says_what_to_do(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    arguments = ["stillwave", "report", f"{project}/runs/first", "--out", f"{tmp_path}/new/index.html"]
    monkeypatch.setattr("sys.argv", [*arguments, "--reports", f"{project}/reports"])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 0
    assert "UAR" in (tmp_path / "new/index.html").read_text()
    monkeypatch.setattr("sys.argv", arguments)
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 1
    assert "stillwave evaluate --run" in capfd.readouterr().err


def evaluation(folder: Path, project: Path, name: str, *, ensemble: bool = False, louder: float = 0) -> Path:
    """A copy of a run's evaluation, as if by an ensemble, or of recordings that are others."""
    shutil.copytree(project / "reports" / name, folder)
    metrics = json.loads((folder / "metrics.json").read_text())
    if ensemble:
        metrics["run"] |= {"ensemble": True, "manifest": "other/manifest.parquet"}
        metrics["folds"]["each"] = [metrics["folds"]["each"][0] | {"fold": -1}]
    if louder:
        metrics["run"]["rows"] = "0" * 64
    (folder / "metrics.json").write_text(json.dumps(metrics))
    return folder


def test_an_ensemble_is_not_taken_for_the_run(project: Path, tmp_path: Path) -> None:
    copied = evaluation(tmp_path / "first", project, "first", ensemble=True)
    with pytest.raises(ValueError, match=r"by the ensemble of its models, on other/manifest.parquet; give"):
        read_shown([project / "runs/first"], tmp_path)
    write_page([project / "reports/first", copied], tmp_path / "page.html")
    found = Page((tmp_path / "page.html").read_text())
    names = [str(project / "reports/first"), str(copied)]
    assert [row[:2] for row in found.tables["All runs"][1:]] == [
        [names[0], "each fold's own"],
        [names[1], "ensemble"],
    ]
    said = found.text
    assert "rows, of other/manifest.parquet, on which no model was trained, predicted by the ensemble" in said
    assert found.tables["Scores"][0][-1] == "95 % by speakers"  # no mean of one fold
    assert ["evaluated on", "other/manifest.parquet, by the ensemble of all folds"] in found.tables[
        "What the run is"
    ]


def test_only_the_same_recordings_are_paired(project: Path, tmp_path: Path) -> None:
    copied = evaluation(tmp_path / "other", project, "second", louder=2.0)
    write_page([project / "reports/first", copied], tmp_path / "page.html")
    said = Page((tmp_path / "page.html").read_text()).text
    assert "Not compared with first: second has rows with the same ids, but other recordings" in said


def test_the_digest_is_of_contents_and_labels(project: Path) -> None:
    manifest = read_manifest(project / "manifest.parquet")
    rows = pd.read_parquet(project / "reports/first/predictions.parquet")
    told = read_metrics(project, "first")["run"]
    assert told["rows"] == rows_digest(rows, manifest) == read_metrics(project, "second")["run"]["rows"]
    assert told["rows"] != read_metrics(project, "open")["run"]["rows"]  # other classes are known
    assert (told["ensemble"], told["manifest"]) == (False, str(project / "manifest.parquet"))
    assert rows_digest(rows.sample(frac=1, random_state=0), manifest.iloc[::-1]) == told["rows"]
    louder = manifest.assign(sha256=[f"{key}0" for key in manifest["sha256"]])
    for one, other in ((rows, louder), (rows.assign(label="x"), manifest), (rows.iloc[1:], manifest)):
        assert rows_digest(one, other) != told["rows"]


def test_an_evaluation_that_was_cut_short_is_none(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copied = shutil.copytree(project / "reports/first", tmp_path / "first")

    def full(*_: Any, **__: Any) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(pd.DataFrame, "to_parquet", full)
    with pytest.raises(OSError, match="No space"):
        evaluate(project / "runs/first", copied)
    monkeypatch.undo()
    with pytest.raises(ValueError, match="no evaluation, looked for in"):
        read_shown([project / "runs/first"], tmp_path)


def test_few_speakers_and_missing_ones_are_spoken_of(project: Path, tmp_path: Path) -> None:
    assert "how precisely these 6 speakers were measured" in page(project, "first").text
    assert "but with fewer than about 20 speakers it is too short" in page(project, "first").text
    pages = []
    for name, lacking in (("first", slice(0, 2)), ("open", slice(0, None))):
        copied = shutil.copytree(project / "reports" / name, tmp_path / name)
        rows = pd.read_parquet(copied / "predictions.parquet")
        if name == "first":
            rows.loc[rows.index[lacking], "speaker"] = None
        else:
            rows.loc[~rows["known"], "speaker"] = None
        metrics = json.loads((copied / "metrics.json").read_text())
        metrics |= full_report(rows, metrics["confusion"]["classes"], "msp") | {
            "calibration": metrics["calibration"]
        }
        metrics["per_class"][LOW]["n"] = 0
        rows.to_parquet(copied / "predictions.parquet")
        (copied / "metrics.json").write_text(json.dumps(metrics))
        shutil.copytree(copied, tmp_path / f"{name}_again")
        write_page([copied, tmp_path / f"{name}_again"], tmp_path / f"{name}.html")
        pages.append(Page((tmp_path / f"{name}.html").read_text()))
    first, unknown = (one.text for one in pages)
    assert "2 of 34 rows have no speaker: they are in no bar or row of a speaker" in first
    assert "There is no interval by speakers: there are rows without a speaker" in first
    assert "rows have no speaker:" not in unknown  # those of known classes have one
    assert "this needs two speakers, and a speaker for every row, also of unknown classes" in unknown
    caption = f"Difference to {tmp_path}/open, on the same rows"
    assert pages[1].tables[caption][1][4:6] == ["–", "–"]
    assert pages[1].tables[f"{caption}: AUROC"][1][1:3] == ["+0.000", "+0.000 to +0.000"]
    assert next(row for row in pages[0].tables["Scores of each class"] if row[0] == LOW)[1:] == [
        *"–––",
        "0",
    ]


def test_auroc_has_an_interval(project: Path) -> None:
    metrics = read_metrics(project, "open")["open_set"]
    rows = page(project, "open").tables["AUROC of msp: 95 % interval"][1:]
    for unit, said in rows:
        low, high = metrics["intervals"][unit]["auroc"]
        assert low < metrics["scores"]["msp"]["auroc"] < high
        assert said == f"{low:.3f} to {high:.3f}"
    assert [unit for unit, _ in rows] == ["rows", "speakers"]


@pytest.mark.parametrize(("metric", "kept"), [(None, 3), ("uar", 1), ("loss", 2), ("accuracy", 3)], ids=str)
def test_the_epoch_kept_is_that_of_training(metric: str | None, kept: int) -> None:
    curve = pd.DataFrame(
        {
            "valid_uar": [0.2, 0.9, 0.9, 0.3],  # the first best one
            "valid_loss": [3.0, 2.0, 1.0, 4.0],
            "valid_accuracy": [float("nan")] * 4,
        },
        index=[10, 11, 12, 13],
    )
    assert kept_epoch(curve, metric) == 10 + kept


@pytest.mark.parametrize("metric", ["uar", "loss"])
def test_the_epoch_kept_has_the_figures_of_the_weights(metric: str) -> None:
    """Against training itself: the kept weights score what the table says of their epoch."""
    features, valid = ToyFeatures(), np.arange(40, 60)
    labels = np.random.default_rng(0).permutation(
        features.labels
    )  # nothing to learn: no epoch is best for long
    config = settings(epochs=8, early_stopping=EarlyStopping(metric=metric, patience=3))
    model = head()
    curve = pd.DataFrame(fit(model, features, labels, np.arange(40), valid, config))
    logits = torch.from_numpy(predict(model, features, valid))
    loss = torch.nn.functional.cross_entropy(logits, torch.from_numpy(labels[valid]))
    assert curve.loc[kept_epoch(curve, metric), "valid_loss"] == pytest.approx(float(loss), abs=1e-6)


def test_models_that_differ_by_fold_say_so(project: Path) -> None:
    (shown,) = read_shown([project / "runs/first"], project / "reports")
    facts = dict(page(project, "first").tables["What the run is"])
    total = sum(shown.sizes[0].values())
    assert facts["numbers per model"].startswith(f"{total:,} of the head; for new audio")
    larger = [sizes | {"personal": 16 * i} for i, sizes in enumerate(shown.sizes)]
    facts = dict(Page(render([replace(shown, sizes=larger)])).tables["What the run is"])
    assert facts["numbers per model"].startswith(f"{total:,} to {total + 32:,} (by fold) of the head")


def test_what_few_runs_have_is_said_too(project: Path) -> None:
    (shown,) = read_shown([project / "runs/first"], project / "reports")
    missing = [f"row{i}" for i in range(21)]
    metrics = shown.metrics | {"n_missing": 21, "missing": missing, "absent": {"audio": 0, "text": 4}}
    metrics |= {"per_speaker": {}, "per_language": {}, "intervals": {"rows": metrics["intervals"]["rows"]}}
    config = shown.config | {"live": True, "embeddings": None, "start": {"run": "runs/a"}}
    (one,) = shown.environments
    one = one | {"gpu": {"name": "H100", "memory_gib": 79.2}, "git": {"commit": "abc", "dirty": True}}
    found = Page(render([replace(shown, metrics=metrics, config=config, environments=[one])]))
    assert f"are left out: {', '.join(missing[:20])}, .... 4 rows have no text. Scores" in found.text
    assert "There is no interval by speakers: there are no speakers. Intervals by rows" in found.text
    assert "Speakers and languages" not in found.text
    assert "#run-0-speakers" not in found.attributes("href")
    facts = dict(found.tables["What the run is"])
    assert facts["frames"] == "none stored: the backbone is trained too"
    assert facts["numbers per model"].endswith("backbone; the frozen part is also needed")
    assert facts["start"] == "runs/a"
    trained = dict(found.tables["Trained on"])
    assert (trained["gpu"], trained["commit"]) == ("H100, 79.2 GiB", "abc, with uncommitted changes")


def test_layer_weights_are_drawn_and_the_largest_is_told(project: Path) -> None:
    (shown,) = read_shown([project / "runs/first"], project / "reports")
    folds = {"0": [0.25, 0.25, 0.5], "1": [0.125, 0.375, 0.5]}
    mix = {"layers": [2, 5, 11], "mean": [0.1875, 0.3125, 0.5], "folds": folds}
    other = {"layers": [0, 1], "mean": [0.75, 0.25], "folds": {"0": [0.75, 0.25]}}
    metrics = shown.metrics | {"layer_weights": {"layer_mix.audio": mix, "layer_mix.text": other}}
    found = Page(render([replace(shown, metrics=metrics)]))
    (said,) = [label for label in found.attributes("aria-label") if "learned weights" in label]
    assert said == (
        "first: learned weights of the backbone's layers; layer_mix.audio: most for layer 11, 0.500; "
        "layer_mix.text: most for layer 0, 0.750"
    )
    assert "does not mean that the layer is the best one by itself" in found.text
    assert "learned weights" not in " ".join(page(project, "first").attributes("aria-label"))


def test_blues_differ_on_dark_paper() -> None:
    dark = (SHARED / "report.css").read_text().split("prefers-color-scheme: dark")[1].split("}")[0]
    lightness = {}
    for name in ("paper", "mark", "sky", "ink"):
        value = re.search(rf"--{name}: #(\w{{6}})", dark)
        assert value
        red, green, blue = (
            (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4)
            for part in (int(value[1][i : i + 2], 16) / 255 for i in (0, 2, 4))
        )
        lightness[name] = 0.2126 * red + 0.7152 * green + 0.0722 * blue
    assert (lightness["mark"] + 0.05) / (lightness["paper"] + 0.05) > 3
    assert 116 * (lightness["sky"] ** (1 / 3) - lightness["mark"] ** (1 / 3)) > 25  # of L*
