"""What a recipe fine-tunes on: labelled rows of the manifest, and their waveforms or texts."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from stillwave.pipeline.backbones import Backbone
from stillwave.pipeline.backbones.device import pick_device
from stillwave.pipeline.backbones.fingerprint import fingerprint
from stillwave.pipeline.config.recipe import Recipe
from stillwave.pipeline.config.train import Finetune
from stillwave.pipeline.extract.rows import plan_rows
from stillwave.pipeline.runs.data import (
    Data,
    check_enough,
    check_modality,
    label_numbers,
    labelled_rows,
    load_data,
)
from stillwave.pipeline.runs.features import joined
from stillwave.pipeline.runs.run import Run
from stillwave.pipeline.runs.waveforms import LiveFeatures


def load_live_data(
    recipe: Recipe,
    manifest: pd.DataFrame,
    encoders: Mapping[str, Backbone],
    device: str = "auto",
    *,
    trained: Sequence[str] | None = None,
) -> Data:
    """As `load_data`, of waveforms and texts in place of stored frames. encoders: by modality."""
    labelled, classes = labelled_rows(recipe, manifest, trained)
    sources = {}
    for name, encoder in encoders.items():
        check_modality(name, encoder.modality == "text", f"the backbone {recipe.stores()[name]}")
        rows, items, _ = plan_rows(encoder, labelled, None)
        _check_crop(recipe, encoder)
        sources[name] = {row.id: items[row.item] for row in rows}
    has_frames = np.array([any(id_ in table for table in sources.values()) for id_ in labelled["id"]], bool)
    used = labelled[has_frames].reset_index(drop=True)
    check_enough(used, classes, recipe.label, f"the backbone {' and '.join(recipe.backbones)}")
    parts = {
        name: LiveFeatures(
            encoder,
            [sources[name].get(id_) for id_ in used["id"]],
            pick_device(device),
            fingerprint=fingerprint(encoder),
            settings=encoder.config.model_dump(mode="json"),  # type: ignore[union-attr, operator]
            finetune=recipe.finetune or Finetune(),
        )
        for name, encoder in encoders.items()
    }
    return Data(
        manifest=used,
        features=joined(list(parts.values())),
        parts=parts,
        classes=classes,
        labels=label_numbers(used[recipe.label], classes),
        views=tuple(np.array([row]) for row in range(len(used))),
        missing=tuple(labelled["id"][~has_frames]),
    )


def data_of_run(
    run: Run,
    manifest: pd.DataFrame,
    *,
    embeddings: str | Path | None = None,
    backbones: str | Path | None = None,
    device: str = "auto",
    trained: Sequence[str] | None = None,
) -> Data:
    """What a run reads of the rows of `manifest`: stored frames, or waveforms where its backbone trained.

    embeddings: folder of the stores, if not that of the training. backbones: as of `Run.encoders`.
    """
    if run.live:
        return load_live_data(run.recipe, manifest, run.encoders(backbones), device, trained=trained)
    return load_data(run.recipe, manifest, embeddings or run.place("embeddings"), device, trained=trained)


def check_as_trained(run: Run, data: Data, what: str = "the manifest or the frames") -> None:
    """Raise ValueError unless `data` are the rows and the frames that the run was trained on.

    what: they, as the error calls them.
    """
    if data.digest(run.recipe.train.group) != run.rows or data.stores() != run.stores:
        raise ValueError(
            f"{run}: {what} have changed since it was trained, or the manifest is another: name the one that "
            "it was trained with, or train it again"
        )


def _check_crop(recipe: Recipe, encoder: Backbone) -> None:
    """Raise ValueError when what training rows are cut to is too short for a frame."""
    crop_s, rate = recipe.finetune.crop_s if recipe.finetune else None, encoder.sample_rate
    if crop_s is not None and rate and not encoder.num_frames(round(crop_s * rate)):
        raise ValueError(
            f"finetune.crop_s {crop_s:g}: {round(crop_s * rate)} samples at {rate} Hz are too few for one "
            "frame; give a longer piece"
        )
