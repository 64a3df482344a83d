"""The recipe's head: built from its config, and loaded from a run."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from stillwave.heads.classifier import SegmentClassifier
from stillwave.heads.losses import prior_bias
from stillwave.heads.multimodal import FusionClassifier
from stillwave.heads.personal import Personalised
from stillwave.heads.pooled import PooledClassifier
from stillwave.pipeline.config.base import parse_config
from stillwave.pipeline.config.recipe import Recipe
from stillwave.pipeline.runs.tensors import load_facts, load_state, load_tensors

AnyHead = SegmentClassifier | PooledClassifier | FusionClassifier | Personalised

SEEN = "seen.json"  # what the run's rows are keyed by: nothing is estimated on them again
FORMAT = 3  # of a run folder; raise it when a run of before cannot be read
# What every config.json says, and its types.
KEYS: dict[str, tuple[type, ...]] = {
    "recipe": (dict,),
    "classes": (list,),
    "folds": (list,),
    "rows": (str,),
    "stores": (dict,),
    "backbones": (dict,),
    "live": (bool,),
    "manifest": (str,),
    "embeddings": (str, type(None)),
}


def build_head(
    recipe: Recipe,
    shapes: Mapping[str, tuple[int, ...]],
    num_classes: int,
    seed: tuple[int, ...] = (0,),
    num_speakers: int = 0,
) -> AnyHead:
    """The recipe's head, its weights drawn from `seed`.

    shapes: of one frame, (dim,) or (layers, dim), by the names of `recipe.stores()`. num_speakers: those that
    have a vector of their own, where the recipe personalises.
    """
    dims = {name: shape[-1] for name, shape in shapes.items()}
    layers = {name: shape[0] if len(shape) == 2 else 1 for name, shape in shapes.items()}
    options = recipe.head.options()
    head: AnyHead
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(np.random.SeedSequence(seed).generate_state(1)[0]))
        if recipe.modalities:
            head = recipe.head.module(dims, num_classes, num_layers=layers, **options)
        else:
            head = recipe.head.module(dims["frames"], num_classes, num_layers=layers["frames"], **options)
        if recipe.losses.focal and recipe.losses.focal_kind == "sigmoid":
            nn.init.constant_(head.output.bias, prior_bias(num_classes))
        if recipe.personalise is not None:
            head = Personalised(head, num_speakers, **recipe.personalise.model_dump())
    return head


def innermost(model: Any) -> Any:
    """The head itself, without what wraps it: a live model, a personalised head."""
    while hasattr(model, "head"):
        model = model.head
    return model


def untrained_head(config: dict[str, Any], facts: dict[str, Any]) -> AnyHead:
    """A head like the run's, with other weights. facts: the metadata of the fold's own."""
    recipe: Recipe = parse_config(config["recipe"], Recipe, source="config.json of the run", trusted=True)
    shapes = {name: tuple(store["frame_shape"]) for name, store in config["stores"].items()}
    return build_head(recipe, shapes, len(config["classes"]), num_speakers=len(facts.get("speakers") or ()))


def load_head(run: Path, fold: int) -> tuple[AnyHead, dict[str, Any]]:
    """A trained head of a run on stored frames, in eval mode, and the run's config.

    Raises ValueError naming a bad file.
    """
    config = read_run(run)
    if config["live"]:
        raise ValueError(f"{run}: a fine-tuned run, whose head is of no use without its backbone")
    state, facts = read_weights(run, fold)
    head = untrained_head(config, facts)
    load_state(head, state, run / f"fold_{fold}")
    return head.eval(), config


def model_digests(run: Path, folds: Iterable[int]) -> dict[str, str]:
    """sha256 of each fold's weights, by its number as text; empty where there are none."""
    files = {str(fold): run / f"fold_{fold}" / "model.safetensors" for fold in folds}
    return {
        fold: hashlib.sha256(file.read_bytes()).hexdigest() if file.exists() else ""
        for fold, file in files.items()
    }


def read_facts(run: Path, fold: int) -> dict[str, Any]:
    """What is said of one model, without its tensors: classes, and speakers that have a vector."""
    return load_facts(run / f"fold_{fold}" / "model.safetensors")


def read_weights(run: Path, fold: int) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors of one model, and what is said of them: classes, and speakers that have a vector."""
    folds = read_run(run)["folds"]
    if fold not in folds:
        raise ValueError(f"fold {fold}: {run} has {', '.join(map(str, folds))}")
    return load_tensors(run / f"fold_{fold}" / "model.safetensors")


def read_run(run: Path) -> dict[str, Any]:
    """The config.json of a run, which has all of KEYS. Raises ValueError naming the file and the key.

    Also when there is no complete run of this format.
    """
    file = run / "config.json"
    if not file.exists():
        raise ValueError(f"{run}: no run here; make it with `stillwave train`")
    if not (run / "complete").exists():
        raise ValueError(
            f"{run}: training has not finished; run the same `stillwave train` again, it goes on"
        )
    try:
        config = json.loads(file.read_text())
    except ValueError as error:
        raise ValueError(f"{file}: not JSON ({error}); train the run again") from None
    if not isinstance(config, dict):
        raise ValueError(f"{file}: holds no object of key: value, but {config!r:.40}; train the run again")
    if config.get("format") != FORMAT:
        raise ValueError(
            f"{run}: a run of format {config.get('format', 1)} (Stillwave {config.get('stillwave', '?')}); "
            f"this version reads format {FORMAT}: train it again"
        )
    for key, kinds in KEYS.items():
        if key not in config:
            raise ValueError(f"{file}: lacks the key {key!r}; train the run again")
        if not isinstance(config[key], kinds):
            wanted = " or ".join("null" if kind is type(None) else kind.__name__ for kind in kinds)
            raise ValueError(f"{file}: {key!r} is {config[key]!r:.40}, no {wanted}; train the run again")
    return config
