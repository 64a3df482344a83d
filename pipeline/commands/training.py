"""The commands of stage two: train, finetune, evaluate, compare; and run, which runs all stages."""

from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from stillwave.pipeline.commands.options import (
    Backbones,
    CorpusName,
    Device,
    Manifest,
    Overrides,
    Rebuild,
    RecipeName,
    Root,
    Start,
    TrustRun,
    Workers,
)
from stillwave.pipeline.config.base import load_config, overrides_of
from stillwave.pipeline.config.named import find_config, is_path

GROUPS = ("corpus", "recipe", "backbones")  # the configs that overrides of `run` name


def train(
    recipe: RecipeName,
    manifest: Manifest,
    embeddings: Annotated[str, typer.Option(help="Folder of the stores.")],
    out: Annotated[Path, typer.Option(help="Run folder to write.")],
    start: Start = None,
    teacher: Annotated[
        Path | None, typer.Option(help="Teacher run, for recipes with losses.distill.")
    ] = None,
    device: Device = "auto",
    trust_run: TrustRun = False,
    overrides: Overrides = [],  # noqa: B006
) -> None:
    """Train a recipe's head on stored frames, one model per fold; a killed run resumes where it stopped."""
    from stillwave.pipeline.commands import console
    from stillwave.pipeline.config.recipe import Recipe
    from stillwave.pipeline.corpora.manifest import read_manifest
    from stillwave.pipeline.train.stage import train

    config = load_config(find_config("recipes", recipe), Recipe, overrides)
    rows = read_manifest(manifest, columns=[config.label])
    teach = None
    if teacher is not None:
        from stillwave.pipeline.runs.run import Run
        from stillwave.pipeline.train.distill import Teacher

        teach = partial(Teacher, Run.open(teacher, trusted=trust_run), rows, device=device)
    with console.Watch() as watch:
        watch.stage("train")
        train(
            config,
            rows,
            embeddings,
            out,
            manifest_path=manifest,
            start=start,
            teach=teach,
            device=device,
            progress=watch.epoch,
        )
    typer.echo(f"{out}: trained; `stillwave evaluate --run {out}` scores it")


def finetune(
    recipe: RecipeName,
    manifest: Manifest,
    out: Annotated[Path, typer.Option(help="Run folder to write.")],
    start: Start = None,
    backbones: Backbones = None,
    device: Device = "auto",
    overrides: Overrides = [],  # noqa: B006
) -> None:
    """Train backbone and head together, from waveforms; a killed run resumes where it stopped.

    `accelerate launch --multi_gpu --num_processes N -m stillwave finetune ...`trains with several processes.
    """
    from stillwave.pipeline.commands import console
    from stillwave.pipeline.config.recipe import Recipe
    from stillwave.pipeline.corpora.manifest import read_manifest
    from stillwave.pipeline.train.finetune import finetune

    config = load_config(find_config("recipes", recipe), Recipe, overrides)
    models = _backbone_configs(recipe, config, backbones)
    rows = read_manifest(manifest, columns=[config.label])
    with console.Watch() as watch:
        watch.stage("finetune")
        finetune(
            config,
            rows,
            models,
            out,
            manifest_path=manifest,
            start=start,
            device=device,
            progress=watch.epoch,
        )
    typer.echo(f"{out}: trained; `stillwave evaluate --run {out}` scores it")


def evaluate(
    run: Annotated[Path, typer.Option(help="Run folder written by `train` or `finetune`.")],
    out: Annotated[Path | None, typer.Option(help="Report folder; default: RUN/report.")] = None,
    manifest: Annotated[str | None, typer.Option(help="The manifest, if it has moved.")] = None,
    embeddings: Annotated[str | None, typer.Option(help="The stores' folder, if it has moved.")] = None,
    ensemble: Annotated[
        bool, typer.Option("--ensemble", help="Predict another MANIFEST with the mean of all folds' models.")
    ] = False,
    backbones: Backbones = None,
    device: Device = "auto",
    trust_run: TrustRun = False,
) -> None:
    """Predict every test row with a model that has not seen it; write metrics, predictions and plots."""
    from stillwave.pipeline.commands import console
    from stillwave.pipeline.evaluate.stage import evaluate, report_folder
    from stillwave.pipeline.runs.run import Run

    opened = Run.open(run, trusted=trust_run)
    metrics = evaluate(
        opened,
        out,
        manifest=manifest,
        embeddings=embeddings,
        backbones=backbones,
        ensemble=ensemble,
        device=device,
    )
    console.show_metrics(metrics, report_folder(run, out, ensemble))


def compare(
    a: Annotated[Path, typer.Argument(metavar="RUN_A", help="Run, or report folder written by `evaluate`.")],
    b: Annotated[Path, typer.Argument(metavar="RUN_B", help="The other; differences are B - A.")],
    common: Annotated[
        bool, typer.Option("--common", help="Compare the rows that both have, instead of stopping.")
    ] = False,
    group: Annotated[
        str | None, typer.Option(help="Resample whole groups: a column, for example speaker.")
    ] = None,
    resamples: Annotated[int, typer.Option(min=1, help="Resamples for each interval and test.")] = 5000,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the resampling.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Compare two runs on the same rows: scores, differences with 95 % intervals, and paired tests."""
    from stillwave.pipeline.commands import console
    from stillwave.pipeline.evaluate.compare import compare

    result = compare(a, b, common=common, group=group, resamples=resamples, seed=seed)
    console.show_comparison(result, as_json)


def run(
    corpus: CorpusName,
    recipe: RecipeName,
    out: Annotated[Path, typer.Option(help="Folder for manifest, stores, run and report.")],
    root: Root = None,
    backbones: Backbones = None,
    rebuild: Rebuild = False,
    device: Device = "auto",
    workers: Workers = 0,
    overrides: Overrides = [],  # noqa: B006
) -> None:
    """Prepare, extract, train and evaluate in one command, without DVC.

    Overrides start with the name of their config: -S recipe.train.seed=1, -S corpus.max_duration_s=10,
    -S backbones.fbank.deltas=0.
    """
    from stillwave.analysis.corpus import write_corpus
    from stillwave.pipeline.commands import console
    from stillwave.pipeline.config.recipe import Recipe
    from stillwave.pipeline.corpora import CorpusConfig
    from stillwave.pipeline.run import RunPaths, run

    head = load_config(find_config("recipes", recipe), Recipe, overrides_of(overrides, "recipe", GROUPS))
    speech = load_config(
        find_config("corpora", corpus), CorpusConfig, overrides_of(overrides, "corpus", GROUPS)
    )
    models = _backbone_configs(recipe, head, backbones, overrides_of(overrides, "backbones", GROUPS))
    with console.Watch() as watch:
        metrics = run(
            speech,
            models,
            head,
            out,
            root=root,
            rebuild=rebuild,
            device=device,
            workers=workers,
            watcher=watch,
        )
    write_corpus(RunPaths(out).manifest, label=speech.label, group=speech.split.group)
    console.show_metrics(metrics, out / "report")


def _backbone_configs(
    recipe: str, config: Any, folder: Path | None, overrides: list[str] | None = None
) -> dict[str, Any]:
    """The configs of the recipe's backbones, by name. overrides: start with the names.

    They are looked up in `folder`; by default next to the recipe's file, then as find_config does.
    """
    from stillwave.pipeline.backbones import load_backbone

    names = list(config.stores().values())
    beside = Path(recipe).parent.parent / "backbones"

    def file(name: str) -> Path:
        if folder is not None:
            return folder / f"{name}.yaml"
        own = beside / f"{name}.yaml"
        return own if is_path(recipe) and own.exists() else find_config("backbones", name)

    return {name: load_backbone(file(name), overrides_of(overrides or [], name, names)) for name in names}
