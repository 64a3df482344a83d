"""The rapid word pipeline: a table of recordings to a basic and a personalised model, in one call.

Nothing here is new: prepare -> finetune(word_basic) -> evaluate -> finetune(word_personalized, which starts
from the basic run) -> evaluate, and the results once more under the names of the pipeline's description.
"""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from stillwave.models.word_table import COLUMNS, check_table, check_words, warn_of_untested
from stillwave.pipeline.audio.files import write_if_changed
from stillwave.pipeline.backbones import build_backbone, load_backbone
from stillwave.pipeline.config.base import load_config
from stillwave.pipeline.config.corpus import Holdout
from stillwave.pipeline.config.named import Kind, find_config
from stillwave.pipeline.config.recipe import Recipe
from stillwave.pipeline.corpora.manifest import read_manifest
from stillwave.pipeline.corpora.prepare import prepare
from stillwave.pipeline.corpora.quarantine import quarantined_ids
from stillwave.pipeline.corpora.table import Table
from stillwave.pipeline.evaluate.stage import evaluate
from stillwave.pipeline.run import Watcher
from stillwave.pipeline.runs.data import load_data
from stillwave.pipeline.runs.folds import folds_of
from stillwave.pipeline.runs.run import Run
from stillwave.pipeline.train.finetune import finetune

TEST = 0.2  # of the rows
MODELS = ("basic", "personalized")
SUMMARY = "rapid_training_summary.json"
PARTIAL = "manifest.partial"  # folder of a manifest that is not yet checked


class RapidTrainer:
    """Train on a CSV (Parquet, JSONL) with columns file_path, word, speaker, and write all results to `out`.

    root: folder that the paths are relative to; by default the table's.
    speaker_independent: test whole speakers, none of whom was in training. Otherwise a fifth of the rows,
        stratified by word, whose speakers are also in training.
    seed: for the split, the weights and the training. configs: folder of the recipes and backbones, instead
        of those that find_config finds by name.

    The best checkpoint is the one with the highest accuracy on validation rows, a tenth of the training rows:
    the test rows choose nothing. A killed training resumes in the same `out`; what is complete is made again.
    A table that is refused changes nothing.
    """

    def __init__(
        self,
        csv_path: str | Path,
        out: str | Path = "runs/rapid",
        *,
        root: str | Path | None = None,
        speaker_independent: bool = False,
        seed: int = 0,
        device: str = "auto",
        configs: str | Path | None = None,
        watcher: Watcher | None = None,
    ) -> None:
        self.table, self.out = Path(csv_path), Path(out)
        self.root = self.table.parent if root is None else Path(root)
        self.speaker_independent, self.seed, self.device = speaker_independent, seed, device
        self.configs, self.watcher = configs, watcher or Watcher()

    def run_rapid_training(self) -> dict[str, Any]:
        """Run everything; returns the content of rapid_training_summary.json.

        Writes best_basic_model.safetensors and best_personalized_model.safetensors (the state_dicts of
        SimpleAudioClassifier and PersonalizedModel; safetensors, as a .pth is a pickle),
        detailed_results_basic.json,
        detailed_results_personalized.json and rapid_training_summary.json; also manifest.parquet,
        quarantine.csv, and the runs `basic` and `personalized` with their reports. Raises ValueError naming
        the table, column, row or file that cannot be used.
        """
        self.prepare()
        basic = self.train_basic_model()
        personalized = self.train_personalized_model()
        improvement = personalized["overall_accuracy"] - basic["overall_accuracy"]
        before = basic["overall_accuracy"]
        summary = {
            "training_completed": True,
            "basic_model": {"accuracy": before, "detailed_results": basic},
            "personalized_model": {
                "accuracy": personalized["overall_accuracy"],
                "detailed_results": personalized,
            },
            "improvement": improvement,
            "improvement_percentage": 100 * improvement / before if before else None,
        }
        self._write(SUMMARY, summary)
        return summary

    def prepare(self) -> None:
        """Check the table and every file, and split the rows: manifest.parquet, quarantine.csv.

        Raises ValueError as `run_rapid_training` does. If it is about unusable files, they are listed in
        manifest.partial/quarantine.csv. Warns about words without test rows.
        """
        recipes = [self._recipe(name) for name in MODELS]
        check_table(self.table, self.root)
        corpus = Table(
            kind="table",
            table=str(self.table.resolve()),
            columns=COLUMNS,
            label="word",
            max_duration_s=None,
            split=Holdout(
                kind="holdout",
                group="speaker" if self.speaker_independent else None,
                valid=0,
                test=TEST,
                seed=self.seed,
            ),
        )
        self.watcher.stage("prepare")
        partial = self.out / PARTIAL
        shutil.rmtree(partial, ignore_errors=True)
        try:
            result = prepare(corpus, self.root, partial / self._manifest.name, self.watcher.files)
            rows = read_manifest(partial / self._manifest.name, columns=["word", "speaker"])
            check_words(self.table, rows)
            for recipe in recipes:
                encoders = {
                    name: build_backbone(self._backbone(store)) for name, store in recipe.stores().items()
                }
                folds_of(load_data(recipe, rows, device=self.device, encoders=encoders), recipe)
        except BaseException:
            if not quarantined_ids(partial / "quarantine.csv"):
                shutil.rmtree(partial, ignore_errors=True)
            raise
        quarantine = self.out / "quarantine.csv"
        write_if_changed(quarantine, (partial / "quarantine.csv").read_bytes())
        changed = write_if_changed(self._manifest, (partial / self._manifest.name).read_bytes())
        shutil.rmtree(partial)
        self.watcher.prepared(
            replace(result, manifest=str(self._manifest), quarantine=str(quarantine), changed=changed)
        )
        warn_of_untested(self.table, rows)

    def train_basic_model(self, epochs: int | None = None, lr: float | None = None) -> dict[str, Any]:
        """Train and evaluate the basic model; epochs and learning rate default to the recipe's."""
        return self._train("basic", None, epochs, lr)

    def train_personalized_model(self, epochs: int | None = None, lr: float | None = None) -> dict[str, Any]:
        """The same with speakers, starting from the basic model's weights."""
        return self._train("personalized", self.out / "basic", epochs, lr)

    @property
    def _manifest(self) -> Path:
        return self.out / "manifest.parquet"

    def _recipe(self, name: str, overrides: tuple[str, ...] = ()) -> Recipe:
        file = self._config("recipes", f"word_{name}")
        recipe: Recipe = load_config(file, Recipe, [f"train.seed={self.seed}", *overrides])
        return recipe

    def _backbone(self, name: str) -> Any:
        return load_backbone(self._config("backbones", name), [f"seed={self.seed}"])

    def _config(self, kind: Kind, name: str) -> Path:
        return find_config(kind, name if self.configs is None else f"{self.configs}/{kind}/{name}.yaml")

    def _train(self, name: str, start: Path | None, epochs: int | None, lr: float | None) -> dict[str, Any]:
        overrides: tuple[str, ...] = ()
        if epochs is not None:
            overrides += (f"train.epochs={epochs}",)
        if lr is not None:
            overrides += (f"train.learning_rate={lr}", f"finetune.learning_rate={lr}")
        recipe = self._recipe(name, overrides)
        backbones = {store: self._backbone(store) for store in recipe.stores().values()}
        for needed, step in ((self._manifest, "prepare()"), (start, "train_basic_model()")):
            if needed is not None and not needed.exists():
                raise ValueError(f"{needed}: missing; call {step} first, or run_rapid_training() for all")
        manifest = read_manifest(self._manifest, columns=["word", "speaker"])
        self._forget(MODELS[MODELS.index(name) :])
        run = self.out / name
        self.watcher.stage(f"train {name}")
        finetune(
            recipe,
            manifest,
            backbones,
            run,
            manifest_path=self._manifest,
            start=start,
            device=self.device,
            progress=self.watcher.epoch,
        )
        shutil.copyfile(run / "fold_0" / "model.safetensors", self.out / f"best_{name}_model.safetensors")
        self.watcher.stage(f"evaluate {name}")
        trained = set(manifest["speaker"][manifest["split"] != "test"])
        results = detailed_results(evaluate(Run.open(run, trusted=True), device=self.device), trained)
        self._write(f"detailed_results_{name}.json", results)
        return results

    def _forget(self, names: tuple[str, ...]) -> None:
        """Delete the results of these models and the summary, because training starts again."""
        stale = [SUMMARY]
        for name in names:
            stale += [f"best_{name}_model.safetensors", f"detailed_results_{name}.json"]
        for file in stale:
            (self.out / file).unlink(missing_ok=True)

    def _write(self, name: str, content: dict[str, Any]) -> None:
        (self.out / name).write_text(json.dumps(content, indent=1, allow_nan=False))


def detailed_results(metrics: dict[str, Any], trained: set[str]) -> dict[str, Any]:
    """Accuracy over all test rows, per speaker (known: in training) and per word, from `evaluate`.

    A word without test rows has count 0 and accuracy None.
    """
    return {
        "overall_accuracy": metrics["accuracy"],
        "speaker_analysis": {
            name: {"accuracy": scores["accuracy"], "count": scores["n"], "known": name in trained}
            for name, scores in metrics["per_speaker"].items()
        },
        "word_analysis": {
            name: {"accuracy": scores["recall"] if scores["n"] else None, "count": scores["n"]}
            for name, scores in metrics["per_class"].items()
        },
    }
