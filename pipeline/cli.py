"""The command line: each command parses, loads its configs, and calls the stage's one function.

Imports of the stages stay inside the commands, so that --help answers at once.
"""

import sys
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from pipeline import store_commands
from pipeline.config.base import ConfigError, load_config, overrides_of

app = typer.Typer(
    name="stillwave",
    help="Cached frame embeddings and light heads for speech emotion and audio classification.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode="rich",
)

Overrides = Annotated[
    list[str],
    typer.Option("-S", metavar="KEY=VALUE", help="Override a field of the config; may be given many times."),
]
Corpus = Annotated[Path, typer.Option(help="Corpus config, for example configs/corpora/emodb.yaml.")]
Root = Annotated[Path | None, typer.Option(help="Folder of the corpus; overrides the config's root.")]
Manifest = Annotated[str, typer.Option(help="The manifest that `prepare` wrote.")]
Rebuild = Annotated[
    bool, typer.Option("--rebuild", help="Start a store made with other settings anew instead of stopping.")
]
Workers = Annotated[
    int, typer.Option(min=0, help="Processes to use on this machine, one per GPU; 0: this one alone.")
]
Scheduler = Annotated[
    str | None, typer.Option(help="Address of a Dask scheduler whose workers do the work, tcp://HOST:8786.")
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")]


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(version("stillwave"))
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass


@app.command()
def prepare(
    corpus: Corpus,
    out: Annotated[str, typer.Option(help="Manifest to write; quarantine.csv goes beside it.")],
    root: Root = None,
    overrides: Overrides = [],  # noqa: B006 - typer reads the default and makes a list of its own
) -> None:
    """Read a corpus, check every file, split it, and write the manifest."""
    from pipeline import console
    from pipeline.config.corpus import CorpusConfig
    from pipeline.prepare import prepare

    config = load_config(corpus, CorpusConfig, overrides)
    with console.Watch() as watch:
        watch.stage("prepare")
        watch.prepared(prepare(config, root, out, watch.files))


@app.command()
def extract(
    backbone: Annotated[
        Path, typer.Option(help="Backbone config, for example configs/backbones/fbank.yaml.")
    ],
    manifest: Manifest,
    out: Annotated[str, typer.Option(help="Store to write, STORE.zarr.")],
    rebuild: Rebuild = False,
    device: Device = "auto",
    workers: Workers = 0,
    scheduler: Scheduler = None,
    overrides: Overrides = [],  # noqa: B006
) -> None:
    """Run a frozen backbone over the manifest, once; only rows that the store lacks are computed.

    MANIFEST and OUT may be URLs that fsspec knows, such as s3://bucket/name.zarr.
    """
    from pipeline import console
    from pipeline.config.backbone import BackboneConfig
    from pipeline.extract import extract
    from pipeline.manifest import read_manifest

    config = load_config(backbone, BackboneConfig, overrides)
    with console.Watch() as watch:
        watch.stage(f"extract {backbone.stem}")
        rows = read_manifest(manifest)
        result = extract(
            config,
            rows,
            out,
            rebuild=rebuild,
            device=device,
            workers=workers,
            scheduler=scheduler,
            progress=watch.items,
        )
        watch.extracted(backbone.stem, result)


@app.command()
def train(
    recipe: Annotated[Path, typer.Option(help="Recipe, for example configs/recipes/fbank_segment.yaml.")],
    manifest: Manifest,
    embeddings: Annotated[str, typer.Option(help="Folder of the stores.")],
    out: Annotated[Path, typer.Option(help="Run folder to write.")],
    device: Device = "auto",
    overrides: Overrides = [],  # noqa: B006
) -> None:
    """Train a recipe's head on stored frames, one model per fold; a killed run goes on where it was."""
    from pipeline import console
    from pipeline.config.recipe import Recipe
    from pipeline.manifest import read_manifest
    from pipeline.train import train

    config = load_config(recipe, Recipe, overrides)
    rows = read_manifest(manifest, columns=[config.label])
    with console.Watch() as watch:
        watch.stage("train")
        train(config, rows, embeddings, out, manifest_path=manifest, device=device, progress=watch.epoch)
    typer.echo(f"{out}: trained; `stillwave evaluate --run {out}` scores it")


@app.command()
def evaluate(
    run: Annotated[Path, typer.Option(help="Run folder that `train` wrote.")],
    out: Annotated[Path | None, typer.Option(help="Report folder; default: RUN/report.")] = None,
    manifest: Annotated[str | None, typer.Option(help="The manifest, if it was moved since.")] = None,
    embeddings: Annotated[str | None, typer.Option(help="The stores' folder, if it was moved since.")] = None,
    ensemble: Annotated[
        bool, typer.Option("--ensemble", help="Predict another MANIFEST by the models of all folds together.")
    ] = False,
    device: Device = "auto",
) -> None:
    """Predict every test row out of fold; write metrics, predictions and plots."""
    from pipeline import console
    from pipeline.evaluate import evaluate, report_folder

    metrics = evaluate(run, out, manifest=manifest, embeddings=embeddings, ensemble=ensemble, device=device)
    console.show_metrics(metrics, report_folder(run, out, ensemble))


@app.command()
def compare(
    a: Annotated[Path, typer.Argument(metavar="RUN_A", help="Run or report folder that `evaluate` wrote.")],
    b: Annotated[Path, typer.Argument(metavar="RUN_B", help="Another one; differences are B - A.")],
    common: Annotated[
        bool, typer.Option("--common", help="Compare the rows that both have, instead of stopping.")
    ] = False,
    group: Annotated[
        str | None, typer.Option(help="Draw all rows of a group together: a column, for example speaker.")
    ] = None,
    resamples: Annotated[int, typer.Option(min=1, help="Draws of each interval and test.")] = 5000,
    seed: Annotated[int, typer.Option(min=0, help="Of the draws.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Two runs on the same rows: scores, differences with 95 % intervals, and paired tests."""
    from pipeline import console
    from pipeline.compare import compare

    result = compare(a, b, common=common, group=group, resamples=resamples, seed=seed)
    console.show_comparison(result, as_json)


@app.command()
def run(
    corpus: Corpus,
    recipe: Annotated[Path, typer.Option(help="Recipe, for example configs/recipes/fbank_segment.yaml.")],
    out: Annotated[Path, typer.Option(help="Folder for manifest, stores, run and report.")],
    root: Root = None,
    backbones: Annotated[
        Path | None,
        typer.Option(help="Folder of backbone configs; default: ../backbones beside the recipe's."),
    ] = None,
    rebuild: Rebuild = False,
    device: Device = "auto",
    workers: Workers = 0,
    overrides: Overrides = [],  # noqa: B006
) -> None:
    """All of it without DVC: prepare, extract, train, evaluate.

    Overrides name their config: -S recipe.train.seed=1, -S corpus.max_duration_s=10,
    -S backbones.fbank.deltas=0.
    """
    from pipeline import console
    from pipeline.config.backbone import BackboneConfig
    from pipeline.config.corpus import CorpusConfig
    from pipeline.config.recipe import Recipe
    from pipeline.run import run

    folder = backbones or recipe.parent.parent / "backbones"
    head = load_config(recipe, Recipe, overrides_of(overrides, "recipe", _GROUPS))
    speech = load_config(corpus, CorpusConfig, overrides_of(overrides, "corpus", _GROUPS))
    ours = overrides_of(overrides, "backbones", _GROUPS)
    names = list(head.stores().values())
    models = {
        name: load_config(folder / f"{name}.yaml", BackboneConfig, overrides_of(ours, name, names))
        for name in names
    }
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
    console.show_metrics(metrics, out / "report")


_GROUPS = ("corpus", "recipe", "backbones")


for _command in (store_commands.info, store_commands.verify, store_commands.compact):
    app.command()(_command)


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder of the demo corpus.")] = Path("data/corpora/demo"),
    corpus: Annotated[Path, typer.Option(help="Its config.")] = Path("configs/corpora/demo.yaml"),
) -> None:
    """Synthesise the built-in demo corpus; does nothing when it is there."""
    from pipeline.config.corpus import Demo
    from pipeline.corpora.demo import make_demo

    make_demo(out, seed=load_config(corpus, Demo).seed)
    typer.echo(f"{out}: demo corpus ready")


def main() -> None:
    """Entry point: errors made for people are printed as one message, exit 1; wrong configs exit 2."""
    try:
        app()
    except ConfigError as error:
        _fail(error, 2)
    except (ValueError, OSError) as error:
        _fail(error, 1)


def _fail(error: Any, code: int) -> NoReturn:
    typer.echo(f"error: {error}", err=True)
    sys.exit(code)


if __name__ == "__main__":
    main()
