"""All stages in one call, without DVC: a folder of speech to frames, a trained head and a report."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from stillwave.pipeline.backbones import BackboneConfig
from stillwave.pipeline.config.recipe import Recipe
from stillwave.pipeline.corpora import CorpusConfig
from stillwave.pipeline.corpora.manifest import read_manifest
from stillwave.pipeline.corpora.prepare import prepare
from stillwave.pipeline.evaluate.stage import evaluate
from stillwave.pipeline.extract.stage import ExtractResult, Progress, extract
from stillwave.pipeline.runs.run import Run
from stillwave.pipeline.train.finetune import finetune
from stillwave.pipeline.train.stage import train


class Watcher:
    """Progress callbacks; the command line draws progress bars, and this base class does nothing."""

    def stage(self, name: str) -> None: ...

    def prepared(self, result: Any) -> None: ...

    def extracted(self, name: str, result: ExtractResult) -> None: ...

    def files(self, done: int, total: int) -> None: ...

    def items(self, progress: Progress) -> None: ...

    def epoch(self, fold: int, epoch: int, figures: dict[str, float]) -> None: ...


@dataclass(frozen=True)
class RunPaths:
    """The outputs of `run`: the same files that the single stages and DVC write."""

    out: Path

    @property
    def manifest(self) -> Path:
        return self.out / "manifest.parquet"

    @property
    def embeddings(self) -> Path:
        return self.out / "embeddings"

    @property
    def run(self) -> Path:
        return self.out / "run"

    @property
    def report(self) -> Path:
        return self.out / "report"


def run(
    corpus: CorpusConfig,
    backbones: dict[str, BackboneConfig],
    recipe: Recipe,
    out: str | Path,
    *,
    root: Path | None = None,
    rebuild: bool = False,
    device: str = "auto",
    workers: int = 0,
    start: str | Path | None = None,
    watcher: Watcher | None = None,
) -> dict[str, Any]:
    """prepare -> extract -> train -> evaluate; returns the metrics. Existing frames are not recomputed.

    A recipe that fine-tunes its backbone needs no frames: prepare -> finetune -> evaluate.
    backbones: the config of each backbone that the recipe reads, by name. start: see `train`.
    """
    paths, watch = RunPaths(Path(out)), watcher or Watcher()
    watch.stage("prepare")
    watch.prepared(prepare(corpus, root, paths.manifest, watch.files))
    manifest = read_manifest(paths.manifest, columns=[recipe.label])
    models: Callable[..., Path]
    if recipe.finetune is not None:
        models = partial(finetune, recipe, manifest, backbones)
    else:
        for name in recipe.stores().values():
            watch.stage(f"extract {name}")
            result = extract(
                backbones[name],
                manifest,
                paths.embeddings / f"{name}.zarr",
                rebuild=rebuild,
                device=device,
                workers=workers,
                progress=watch.items,
            )
            watch.extracted(name, result)
        models = partial(train, recipe, manifest, paths.embeddings)
    watch.stage("train")
    models(paths.run, manifest_path=paths.manifest, start=start, device=device, progress=watch.epoch)
    watch.stage("evaluate")
    return evaluate(Run.open(paths.run, trusted=True), paths.report, device=device)
