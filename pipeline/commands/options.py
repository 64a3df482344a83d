"""Options that several commands have."""

from pathlib import Path
from typing import Annotated, Any

import typer

from stillwave.pipeline.config.named import Kind, config_names


def _config(kind: Kind, text: str) -> Any:
    """An option that find_config takes, and a shell completes."""
    return typer.Option(
        help=f"{text}, by name or path.",
        metavar="NAME|FILE",
        autocompletion=lambda: config_names(kind),
    )


AnalysisName = Annotated[str, _config("analysis", "What is measured and drawn, and how")]
BackboneName = Annotated[str, _config("backbones", "Backbone config, for example fbank")]
CorpusName = Annotated[str, _config("corpora", "Corpus config, for example emodb")]
RecipeName = Annotated[str, _config("recipes", "Recipe, for example fbank_segment")]
TranscriberName = Annotated[
    str, _config("transcribers", "Config of the speech recognition model, for example whisper_tiny_en")
]
Overrides = Annotated[
    list[str],
    typer.Option("-S", metavar="KEY=VALUE", help="Override a field of the config; repeatable."),
]
Root = Annotated[Path | None, typer.Option(help="Folder of the corpus; overrides the config's root.")]
Manifest = Annotated[str, typer.Option(help="The manifest that `prepare` wrote.")]
Rebuild = Annotated[
    bool, typer.Option("--rebuild", help="Rebuild a store made with other settings, instead of stopping.")
]
Workers = Annotated[
    int, typer.Option(min=0, help="Worker processes on this machine, one per GPU; 0 uses this process only.")
]
Scheduler = Annotated[
    str | None, typer.Option(help="Address of a Dask scheduler whose workers to use, tcp://HOST:8786.")
]
Start = Annotated[
    Path | None,
    typer.Option(help="A run on the same rows and folds to start from, fold by fold."),
]
Backbones = Annotated[
    Path | None,
    typer.Option(
        help="Folder of the recipe's backbones; default: ../backbones next to the recipe, else by name."
    ),
]
TrustRun = Annotated[
    bool,
    typer.Option(
        "--trust-run",
        help="Import the code and fetch the files that the run's config.json names: only for your own "
        "runs, or those of people you trust.",
    ),
]
Device = Annotated[str, typer.Option(help="auto (CUDA, else mps, else cpu), cpu, mps, cuda, cuda:1, ...")]
