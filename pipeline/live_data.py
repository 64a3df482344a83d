"""What a recipe fine-tunes on: labelled rows of the manifest, and their waveforms or texts."""

import json
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from pipeline.backbones import Backbone
from pipeline.config.recipe import Recipe
from pipeline.config.train import Finetune
from pipeline.data import Data, check_enough, check_modality, label_numbers, labelled_rows
from pipeline.device import pick_device
from pipeline.features import joined
from pipeline.fingerprint import fingerprint
from pipeline.rows import plan_rows
from pipeline.waveforms import LiveFeatures


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
            fingerprint=json.loads(json.dumps(fingerprint(encoder))),
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


def _check_crop(recipe: Recipe, encoder: Backbone) -> None:
    """Raise ValueError when what training rows are cut to is too short for a frame."""
    crop_s, rate = recipe.finetune.crop_s if recipe.finetune else None, encoder.sample_rate
    if crop_s is not None and rate and not encoder.num_frames(round(crop_s * rate)):
        raise ValueError(
            f"finetune.crop_s {crop_s:g}: {round(crop_s * rate)} samples at {rate} Hz are too few for one "
            "frame; give a longer piece"
        )
