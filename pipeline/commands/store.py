"""The commands that maintain a store: info, verify, compact."""

from typing import Annotated

import typer

Store = Annotated[str, typer.Argument(help="An embedding store, for example data/embeddings/fbank.zarr.")]


def info(
    store: Store,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Show what a store holds and how it was made."""
    from stillwave.pipeline.commands import console

    console.show_store(store, as_json)


def verify(
    store: Store,
    repair: Annotated[
        bool, typer.Option("--repair", help="Discard damaged units, so that the next `extract` redoes them.")
    ] = False,
) -> None:
    """Check every shard's checksum and every row's place; exit 1 on damage."""
    from stillwave.cache.verify import repair as repair_store
    from stillwave.cache.verify import verify

    damage, count = repair_store(store) if repair else (verify(store), 0)
    for problem in damage.problems:
        typer.echo(problem, err=True)
    if count:
        typer.echo(f"{store}: {count} items to be redone by the next `stillwave extract`")
    if damage.problems:
        raise typer.Exit(1)
    typer.echo(f"{store}: sound")


def compact(store: Store) -> None:
    """Free the space of removed rows and half-filled shards."""
    from stillwave.cache.compact import compact

    typer.echo(f"{store}: {compact(store) / 2**20:.1f} MiB freed")
