"""The recipe's head: built from its config, and loaded from a run."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from heads.classifier import SegmentClassifier
from heads.losses import prior_bias
from heads.multimodal import FusionClassifier
from pipeline.checkpoint import load_tensors
from pipeline.config.base import parse_config
from pipeline.config.heads import SegmentHead
from pipeline.config.recipe import Recipe

AnyHead = SegmentClassifier | FusionClassifier

FORMAT = 2  # of a run folder; raise it when a run of before cannot be read


def build_head(
    recipe: Recipe, shapes: Mapping[str, tuple[int, ...]], num_classes: int, seed: tuple[int, ...] = (0,)
) -> AnyHead:
    """The recipe's head, its weights drawn from `seed`.

    shapes: of one frame, (dim,) or (layers, dim), by the names of `recipe.stores()`.
    """
    dims = {name: shape[-1] for name, shape in shapes.items()}
    layers = {name: shape[0] if len(shape) == 2 else 1 for name, shape in shapes.items()}
    options = recipe.head.model_dump(exclude={"kind"})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(np.random.SeedSequence(seed).generate_state(1)[0]))
        if isinstance(recipe.head, SegmentHead):
            head: AnyHead = SegmentClassifier(
                dims["frames"], num_classes, num_layers=layers["frames"], **options
            )
        else:
            head = FusionClassifier(dims, num_classes, num_layers=layers, **options)
    if recipe.losses.focal and recipe.losses.focal_kind == "sigmoid":
        nn.init.constant_(head.output.bias, prior_bias(num_classes))
    return head


def load_head(run: Path, fold: int) -> tuple[AnyHead, dict[str, Any]]:
    """A trained head of a run, in eval mode, and the run's config. Raises ValueError naming a bad file."""
    config = read_run(run)
    recipe: Recipe = parse_config(config["recipe"], Recipe, source=str(run / "config.json"))
    shapes = {name: tuple(store["frame_shape"]) for name, store in config["stores"].items()}
    head = build_head(recipe, shapes, len(config["classes"]))
    state, _ = load_tensors(run / f"fold_{fold}" / "model.safetensors")
    try:
        head.load_state_dict(state)
    except RuntimeError as error:
        first = str(error).splitlines()[1].strip()[:200]
        raise ValueError(
            f"{run / f'fold_{fold}'}: the weights are of another head ({first}...); train the run again"
        ) from None
    return head.eval(), config


def read_run(run: Path) -> dict[str, Any]:
    """The config.json of a run. Raises ValueError when there is no complete run of this format."""
    if not (run / "config.json").exists():
        raise ValueError(f"{run}: no run here; make it with `stillwave train`")
    if not (run / "complete").exists():
        raise ValueError(
            f"{run}: training has not finished; run the same `stillwave train` again, it goes on"
        )
    try:
        config = dict(json.loads((run / "config.json").read_text()))
    except ValueError as error:
        raise ValueError(f"{run / 'config.json'}: not JSON ({error}); train the run again") from None
    if config.get("format") != FORMAT:
        raise ValueError(
            f"{run}: a run of format {config.get('format', 1)} (Stillwave {config.get('stillwave', '?')}); "
            f"this version reads format {FORMAT}: train it again"
        )
    return config
