"""Stage two with a backbone that trains: the same loop, on waveforms instead of stored frames."""

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from stillwave.pipeline.audio.augment import import_stretch
from stillwave.pipeline.backbones import BackboneConfig, build_backbone
from stillwave.pipeline.config.recipe import Recipe
from stillwave.pipeline.corpora.manifest import manifest_digest
from stillwave.pipeline.runs.data import load_data
from stillwave.pipeline.train.processes import Launched
from stillwave.pipeline.train.stage import OnEpoch, train_models

FROZEN = {"hear": "HEAR modules", "onnx": "ONNX graphs"}  # kinds that cannot be trained


def finetune(
    recipe: Recipe,
    manifest: pd.DataFrame,
    backbones: Mapping[str, BackboneConfig],
    out: str | Path,
    *,
    manifest_path: str | Path,
    start: str | Path | None = None,
    device: str = "auto",
    progress: OnEpoch | None = None,
) -> Path:
    """As `train`, but the recipe's backbones are trained too; `backbones` are their configs by name.

    Under `accelerate launch` every process calls this: they share each batch, and the numbers are those of
    one process. start: a run on stored frames to start from, or a fine-tuned one to personalise.
    """
    config = recipe.finetune
    if config is None:
        raise ValueError("the recipe has no `finetune`, so its backbone is frozen; use `stillwave train`")
    for store in recipe.stores().values():
        if (kind := backbones[store].kind) in FROZEN:
            raise ValueError(f"{store}: {FROZEN[kind]} cannot be trained; extract their frames instead")
    if config.augment is not None and config.augment.pitch is not None:
        import_stretch("finetune.augment.pitch")  # refuse before an old run is replaced
    processes = Launched(recipe.train.precision, device)
    encoders = {name: build_backbone(backbones[store]) for name, store in recipe.stores().items()}
    data = load_data(recipe, manifest, device=processes.device(device), encoders=encoders)
    for part in data.parts.values():
        part.read()  # fail on unreadable files before an old run is replaced
    where = {
        "manifest": str(manifest_path),
        "manifest_sha256": manifest_digest(manifest),
        "embeddings": None,
    }
    return train_models(recipe, data, Path(out), where, start=start, progress=progress, processes=processes)
