"""Options that several commands have."""

from pathlib import Path
from typing import Annotated

import typer

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
Start = Annotated[
    Path | None,
    typer.Option(help="A run on the same rows and folds, with whose weights each fold begins."),
]
Backbones = Annotated[
    Path | None, typer.Option(help="Folder of backbone configs; default: ../backbones beside the recipe's.")
]
TrustRun = Annotated[
    bool,
    typer.Option(
        "--trust-run",
        help="Import the code and fetch the files that the run's config.json names: for runs of your own, or "
        "of people whom you trust.",
    ),
]
Device = Annotated[str, typer.Option(help="auto (CUDA, else mps, else cpu), cpu, mps, cuda, cuda:1, ...")]
