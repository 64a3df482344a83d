"""The recipe's head, built from its config."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import nn

from stillwave.heads.base import Head
from stillwave.heads.losses import prior_bias
from stillwave.heads.personal import Personalised
from stillwave.pipeline.config.recipe import Recipe


def build_head(
    recipe: Recipe,
    shapes: Mapping[str, tuple[int, ...]],
    num_classes: int,
    seed: tuple[int, ...] = (0,),
    num_speakers: int = 0,
) -> Head:
    """The recipe's head, with weights drawn from `seed`.

    shapes: frame shapes, (dim,) or (layers, dim), by the names of `recipe.stores()`. num_speakers: speakers
    with their own vectors, if the recipe personalises.
    """
    names = list(recipe.stores())  # the order of the head's inputs; config.json has the names sorted
    dims = {name: shapes[name][-1] for name in names}
    layers = {name: shapes[name][0] if len(shapes[name]) == 2 else 1 for name in names}
    options = recipe.head.options()
    head: Head
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(np.random.SeedSequence(seed).generate_state(1)[0]))
        if recipe.modalities or recipe.head.kind == "statistics":
            head = recipe.head.module(dims, num_classes, num_layers=layers, **options)
        else:
            head = recipe.head.module(dims["frames"], num_classes, num_layers=layers["frames"], **options)
        if recipe.losses.focal and recipe.losses.focal_kind == "sigmoid":
            nn.init.constant_(head.output.bias, prior_bias(num_classes))
        if recipe.personalise is not None:
            head = Personalised(head, num_speakers, **recipe.personalise.options())
    return head
