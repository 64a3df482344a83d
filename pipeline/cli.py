"""The command line: each command parses, loads its configs, and calls the stage's one function.

Imports of the stages stay inside the commands, so that --help answers at once.
"""

import sys
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

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
Store = Annotated[str, typer.Argument(help="An embedding store, for example data/embeddings/fbank.zarr.")]


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
    device: Device = "auto",
) -> None:
    """Predict every test row out of fold; write metrics, predictions and plots."""
    from pipeline import console
    from pipeline.evaluate import evaluate

    metrics = evaluate(run, out, manifest=manifest, embeddings=embeddings, device=device)
    console.show_metrics(metrics, out or run / "report")


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
    models = {
        name: load_config(folder / f"{name}.yaml", BackboneConfig, overrides_of(ours, name, head.backbones))
        for name in head.backbones
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


@app.command()
def info(
    store: Store,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """What a store holds, and what made it."""
    from pipeline import console

    console.show_store(store, as_json)


@app.command()
def verify(
    store: Store,
    repair: Annotated[
        bool, typer.Option("--repair", help="Give up damaged units, so that the next `extract` redoes them.")
    ] = False,
) -> None:
    """Check every shard's checksum and every row's place; exit 1 on damage."""
    from cache.verify import repair as repair_store
    from cache.verify import verify

    damage, count = repair_store(store) if repair else (verify(store), 0)
    for problem in damage.problems:
        typer.echo(problem, err=True)
    if count:
        typer.echo(f"{store}: {count} items to be redone by the next `stillwave extract`")
    if damage.problems:
        raise typer.Exit(1)
    typer.echo(f"{store}: sound")


@app.command()
def compact(store: Store) -> None:
    """Give back the space of removed rows and half-filled shards."""
    from cache.compact import compact

    typer.echo(f"{store}: {compact(store) / 2**20:.1f} MiB freed")


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
