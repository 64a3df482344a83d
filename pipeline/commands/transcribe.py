"""The command that fills empty texts: transcribe."""

from typing import Annotated

import typer

from stillwave.pipeline.commands.options import Device, Manifest, Overrides, TranscriberName
from stillwave.pipeline.config.base import load_config
from stillwave.pipeline.config.named import find_config


def transcribe(
    model: TranscriberName,
    manifest: Manifest,
    out: Annotated[str, typer.Option(help="Manifest to write; transcripts are kept next to it.")],
    device: Device = "auto",
    overrides: Overrides = [],  # noqa: B006
) -> None:
    """Write the manifest again, with a text for every recording that had none; a killed run resumes.

    -S weights=FOLDER takes another model of the same kind. MANIFEST and OUT may be URLs.
    """
    from stillwave.pipeline.commands import console
    from stillwave.pipeline.corpora.manifest import read_manifest
    from stillwave.pipeline.transcribe.config import TranscriberConfig
    from stillwave.pipeline.transcribe.stage import transcribe

    file = find_config("transcribers", model)
    config = load_config(file, TranscriberConfig, overrides)
    with console.Watch() as watch:
        watch.stage(f"transcribe {file.stem}")
        result = transcribe(config, read_manifest(manifest), out, device=device, progress=watch.files)
        watch.transcribed(file.stem, result)
