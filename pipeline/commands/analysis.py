"""The commands that show corpora and results: corpus, analyze, explore, report."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from stillwave.pipeline.commands.options import AnalysisName, Device, Overrides, TrustRun
from stillwave.pipeline.config.base import load_config
from stillwave.pipeline.config.named import find_config
from stillwave.pipeline.config.packages import needed


def corpus(
    manifest: Annotated[str, typer.Argument(help="A manifest that `prepare` wrote: a path or URL.")],
    out: Annotated[
        str | None, typer.Option(help="Page to write; default: corpus.html beside the manifest.")
    ] = None,
    label: Annotated[
        str | None,
        typer.Option(help="Column of the classes; default: emotion or word, else the first."),
    ] = None,
    group: Annotated[str, typer.Option(help="Column that the split keeps on one side.")] = "speaker",
) -> None:
    """Write one page about a corpus: hours, classes, speakers, durations, what leaks, clips to hear.

    `prepare` writes it too, with the label and the group of its config.
    """
    with needed("corpus", "jinja2"):
        from stillwave.analysis.corpus import write_corpus

    typer.echo(f"{write_corpus(manifest, out, label=label, group=group)}: open it in a browser")


def analyze(
    store: Annotated[str, typer.Argument(help="An embedding store, for example data/embeddings/fbank.zarr.")],
    out: Annotated[Path, typer.Option(help="Analysis folder to write.")],
    manifest: Annotated[
        str | None,
        typer.Option(
            help="Its manifest; default: RUN's, else manifest.parquet in the folder above the stores."
        ),
    ] = None,
    run: Annotated[
        Path | None, typer.Option(help="A run whose out-of-fold predictions are shown too.")
    ] = None,
    embeddings: Annotated[
        str | None, typer.Option(help="The folder of the run's stores, if it has moved.")
    ] = None,
    config: AnalysisName = "default",
    device: Device = "auto",
    trust_run: TrustRun = False,
    overrides: Overrides = [],  # noqa: B006
) -> None:
    """Look at a store: one vector per row, projections, clusters, neighbours, probes; tables and pictures."""
    from stillwave.analysis.analyze import analyze
    from stillwave.pipeline.commands import console
    from stillwave.pipeline.config.analysis import Analysis
    from stillwave.pipeline.runs.run import Run

    settings = load_config(find_config("analysis", config), Analysis, overrides)
    with console.Watch() as watch:
        facts = analyze(
            store,
            out,
            settings,
            manifest=manifest,
            run=None if run is None else Run.open(run, trusted=trust_run),
            embeddings=embeddings,
            device=device,
            progress=watch.stage,
        )
    console.show_analysis(facts, out)


def explore(
    folders: Annotated[list[Path], typer.Argument(help="Folders that `analyze` wrote.")],
    out: Annotated[Path, typer.Option(help="Page to write.")] = Path("reports/explorer.html"),
    audio: Annotated[
        Literal["link", "embed", "none"],
        typer.Option(help="Play recordings from their place, embed them in the page, or leave them out."),
    ] = "link",
) -> None:
    """Write an offline page to explore embeddings: points, filters, neighbours, sound."""
    with needed("explore", "bokeh"):
        from stillwave.analysis.explorer import write_explorer

    for notice in write_explorer(folders, out, audio):
        typer.echo(notice, err=True)
    typer.echo(f"{out}: open it in a browser")


def report(
    runs: Annotated[list[Path], typer.Argument(help="Runs that were evaluated, or their evaluations.")],
    out: Annotated[Path, typer.Option(help="Page to write.")] = Path("reports/index.html"),
    reports: Annotated[
        Path | None,
        typer.Option(help="Folder of their evaluations, by run's name; default: OUT's, then RUN/report."),
    ] = None,
) -> None:
    """Write one page about runs: scores with intervals, paired tests, pictures, tables, curves, settings."""
    with needed("report", "jinja2"):
        from stillwave.analysis.report import write_page

    write_page(runs, out, reports)
    typer.echo(f"{out}: open it in a browser")
