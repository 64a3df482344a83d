"""Stage two with a backbone that trains, too: the same loop, on waveforms instead of stored frames."""

import copy
from collections.abc import Iterator, Mapping
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

from stillwave.heads.masks import valid_mask
from stillwave.pipeline.audio.augment import import_stretch
from stillwave.pipeline.backbones import BackboneConfig, build_backbone
from stillwave.pipeline.config.recipe import Recipe
from stillwave.pipeline.runs.data import Rows
from stillwave.pipeline.runs.features import Features
from stillwave.pipeline.runs.live import LiveModel, at_precision
from stillwave.pipeline.runs.live_data import load_live_data
from stillwave.pipeline.runs.waveforms import LiveFeatures
from stillwave.pipeline.train.processes import Launched
from stillwave.pipeline.train.stage import Kind, Progress, frame_augment, head_of, train_models

FRAMES_AT_ONCE = 16  # rows per batch when only frames are wanted


def finetune(
    recipe: Recipe,
    manifest: pd.DataFrame,
    backbones: Mapping[str, BackboneConfig],
    out: str | Path,
    *,
    manifest_path: str | Path,
    start: str | Path | None = None,
    device: str = "auto",
    progress: Progress | None = None,
) -> Path:
    """As `train`, but the recipe's backbones train along; `backbones` are their configs by name.

    Under `accelerate launch` every process calls this: they share each batch, and the numbers are those of
    one process. start: a run on stored frames to begin with, or a fine-tuned one to personalise.
    """
    config = recipe.finetune
    if config is None:
        raise ValueError("the recipe has no `finetune`: its backbone is frozen; use `stillwave train`")
    if hear := [store for store in recipe.stores().values() if backbones[store].kind == "hear"]:
        raise ValueError(
            f"{hear[0]}: somebody else's HEAR module cannot be trained along; extract its frames instead"
        )
    if config.augment is not None and config.augment.pitch is not None:
        import_stretch("finetune.augment.pitch")  # what is refused must cost no old run
    processes = Launched(recipe.train.precision, device)
    encoders = {name: build_backbone(backbones[store]) for name, store in recipe.stores().items()}
    data = load_live_data(recipe, manifest, encoders, processes.device(device))
    for part in data.parts.values():
        assert isinstance(part, LiveFeatures)
        part.read()  # a file that cannot be read must cost no old run

    def build(seed: tuple[int, ...], num_speakers: int) -> LiveModel:
        fresh = {name: copy.deepcopy(encoder) for name, encoder in encoders.items()}
        ready = {name: at_precision(encoder, recipe.train.precision) for name, encoder in fresh.items()}
        head = head_of(recipe, data, seed, num_speakers)
        return LiveModel(ready, head, config, frame_augment(recipe, data))

    top = config.learning_rate / recipe.train.learning_rate
    kind = Kind(
        build=build,
        frames=_frames,
        rates=lambda model: {name: top * factor for name, factor in model.factors.items()},
        augment=None,  # the model's own, behind its backbone
    )
    where = {"manifest": str(manifest_path), "embeddings": None, "live": True}
    return train_models(
        recipe, data, Path(out), kind, where, start=start, progress=progress, processes=processes
    )


def _frames(model: LiveModel, features: Features, rows: Rows, number: int) -> Iterator[Tensor]:
    """Valid frames of one modality of `rows`, as the backbones give them before they train."""
    model.eval()
    for start in range(0, len(rows), FRAMES_AT_ONCE):
        with torch.no_grad():
            found = model.frames(*features.batch(rows[start : start + FRAMES_AT_ONCE]))
        values, lengths = found[2 * number : 2 * number + 2]
        yield values[valid_mask(lengths, values.shape[1])]
