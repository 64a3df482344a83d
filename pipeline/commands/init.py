"""The command that drafts configs for new recordings: init."""

import shlex
from pathlib import Path
from typing import Annotated

import typer


def init(
    folder: Annotated[Path, typer.Argument(help="Folder of the recordings.")],
    table: Annotated[
        Path | None,
        typer.Argument(help="CSV, TSV, Parquet or JSONL that names them; default: one found in FOLDER."),
    ] = None,
    label: Annotated[
        str | None, typer.Option(help="Column of TABLE to predict; default: the one that looks like labels.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for corpus.yaml and recipe.yaml.")] = Path(),
    force: Annotated[bool, typer.Option("--force", help="Overwrite existing files.")] = False,
) -> None:
    """Draft a corpus and a recipe from a folder of recordings; print what was found and the command to run.

    Columns, speakers and the split are guessed; comments in the YAML mark the guesses: check them.
    """
    from stillwave.pipeline.corpora.draft import draft

    corpus, recipe = out / "corpus.yaml", out / "recipe.yaml"
    if there := [str(file) for file in (corpus, recipe) if file.exists() and not force]:
        raise ValueError(f"{', '.join(there)}: already exist; write elsewhere with --out, or use --force")
    found = draft(folder, table, label)
    out.mkdir(parents=True, exist_ok=True)
    corpus.write_text(found.corpus, encoding="utf-8")
    recipe.write_text(found.recipe, encoding="utf-8")
    for warning in found.warnings:
        typer.echo(f"warning: {warning}", err=True)
    classes = ", ".join(f"{name} {count}" for name, count in found.classes.items())
    rows, source = sum(found.classes.values()), found.table or "the folders"
    typer.echo(f"from {source}: {rows} rows, {found.label}: {classes}")
    typer.echo(f"{found.speakers or 'unknown'} speakers; split: {found.split}")
    typer.echo(f"wrote {corpus} and {recipe}; check them, then run:")
    command = ["stillwave", "run", "--corpus", str(corpus), "--recipe", str(recipe)]
    typer.echo(shlex.join([*command, "--out", f"runs/{folder.absolute().name}"]))
