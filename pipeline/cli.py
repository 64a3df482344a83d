"""The command line: each command parses, loads its configs, and calls the stage's one function.

Stages are imported inside the commands, so that --help is fast.
"""

import sys
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from stillwave.pipeline.commands import analysis as analysis_commands
from stillwave.pipeline.commands import init as init_commands
from stillwave.pipeline.commands import model as model_commands
from stillwave.pipeline.commands import store as store_commands
from stillwave.pipeline.commands import training as training_commands
from stillwave.pipeline.commands import transcribe as transcribe_commands
from stillwave.pipeline.commands.options import (
    BackboneName,
    CorpusName,
    Device,
    Manifest,
    Overrides,
    Rebuild,
    Root,
    Scheduler,
    Workers,
)
from stillwave.pipeline.config.base import ConfigError, load_config
from stillwave.pipeline.config.named import find_config
from stillwave.version import VERSION

app = typer.Typer(
    name="stillwave",
    help="Cached frame embeddings and light heads for speech emotion and audio classification.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(VERSION)
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass


app.command()(init_commands.init)


@app.command()
def prepare(
    corpus: CorpusName,
    out: Annotated[
        str, typer.Option(help="Manifest to write; quarantine.csv and corpus.html go next to it.")
    ],
    root: Root = None,
    overrides: Overrides = [],  # noqa: B006 - typer reads the default and makes its own list
) -> None:
    """Read a corpus, check every file, split it, and write the manifest and a page about it."""
    from stillwave.analysis.corpus import write_corpus
    from stillwave.pipeline.commands import console
    from stillwave.pipeline.corpora import CorpusConfig
    from stillwave.pipeline.corpora.prepare import prepare

    config = load_config(find_config("corpora", corpus), CorpusConfig, overrides)
    with console.Watch() as watch:
        watch.stage("prepare")
        watch.prepared(prepare(config, root, out, watch.files))
    page = write_corpus(out, label=config.label, group=config.split.group)
    console.err.print(f"prepare: look at {page} in a browser")


app.command()(transcribe_commands.transcribe)


@app.command()
def extract(
    backbone: BackboneName,
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
    from stillwave.pipeline.backbones import load_backbone
    from stillwave.pipeline.commands import console
    from stillwave.pipeline.corpora.manifest import read_manifest
    from stillwave.pipeline.extract.stage import extract

    file = find_config("backbones", backbone)
    config = load_backbone(file, overrides)
    with console.Watch() as watch:
        watch.stage(f"extract {file.stem}")
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
        watch.extracted(file.stem, result)


for _command in (
    training_commands.train,
    training_commands.finetune,
    training_commands.evaluate,
    training_commands.compare,
    training_commands.run,
    model_commands.predict,
    model_commands.enroll,
    model_commands.export,
    model_commands.rapid,
    analysis_commands.corpus,
    analysis_commands.analyze,
    analysis_commands.explore,
    analysis_commands.report,
    store_commands.info,
    store_commands.verify,
    store_commands.compact,
):
    app.command()(_command)


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for the demo corpus.")] = Path("data/corpora/demo"),
    corpus: CorpusName = "demo",
) -> None:
    """Synthesise the built-in demo corpus; does nothing if it exists."""
    from stillwave.pipeline.corpora.demo import Demo, make_demo

    make_demo(out, seed=load_config(find_config("corpora", corpus), Demo).seed)
    typer.echo(f"{out}: demo corpus ready")


def main() -> None:
    """Entry point: user errors are printed as one message and exit with 1; config errors exit with 2."""
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
