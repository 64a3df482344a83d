"""A linear head on the mean, and the deviation, of the frames of any number of stores."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

import torch
from torch import Tensor, nn

from stillwave.heads.base import Head, Outputs
from stillwave.heads.bounds import Dropout
from stillwave.heads.global_pooling import deviation, mean
from stillwave.heads.layers import LayerMix, Standardise
from stillwave.heads.masks import zero_padding

LIMIT = 3.0  # of a standardised statistic


class StatisticsClassifier(Head):
    """Per part: statistics over time -> standardise -> layer weights; then side by side -> linear.

    dims, num_layers: of the stored frames of each part, in input order; 1 layer unless given.
    statistics: `mean` over time, or `mean_std`, the mean and then the standard deviation.
    dropout: of the standardised statistics, before the linear layer.

    For frames of trained encoders and few rows. Every layer has its own part of the linear layer, since one
    direction means different things in different layers; `layer_mix` weighs the layers, with weights as in
    SUPERB (Yang et al., Interspeech 2021), times their number. Parts count equally, whatever their widths.
    The linear layer starts at zero: with few rows, what training does not undo of random weights is noise.

    Standardised statistics are limited to 3 deviations. Some hardly vary in training and do later: the mean
    of a position's encoding is the same for all clips of a length, and thousands of deviations off for
    others, where without a limit it would decide alone.

    A length of 0 means that the item lacks the part, which then adds nothing. Padding changes nothing: the
    logits of an item do not depend on its batch.
    """

    def __init__(
        self,
        dims: Mapping[str, int],
        num_classes: int,
        *,
        num_layers: Mapping[str, int] = MappingProxyType({}),
        statistics: Literal["mean", "mean_std"] = "mean_std",
        dropout: Dropout = 0.5,
    ) -> None:
        super().__init__()
        if not dims:
            raise ValueError("dims name no part; name at least one")
        if taken := [name for name in dims if hasattr(nn.ModuleDict(), name)]:
            raise ValueError(f"parts {taken}: torch reserves these names; rename the stores")
        self.with_deviation = statistics == "mean_std"
        layers = [num_layers.get(name, 1) for name in dims]
        self.dims = tuple(dims.values())
        sizes = [dim * (2 if self.with_deviation else 1) for dim in self.dims]  # of a layer's statistics
        widths = [count * size for count, size in zip(layers, sizes, strict=True)]
        self.scales = [(sum(widths) / (len(widths) * width)) ** 0.5 for width in widths]
        self.standardise = nn.ModuleList(
            Standardise(count, size) if count > 1 else Standardise(size)
            for count, size in zip(layers, sizes, strict=True)
        )
        self.layer_mix = nn.ModuleDict({
            name: LayerMix(count) for name, count in zip(dims, layers, strict=True)
        })  # fmt: skip
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(sum(widths), num_classes)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    @property
    def output(self) -> nn.Linear:
        """The linear layer: features to logits."""
        return self.linear

    @property
    def standardisers(self) -> tuple[Standardise, ...]:
        """One per part, of its statistics, in the order of the inputs."""
        return tuple(module for module in self.standardise if isinstance(module, Standardise))

    def summarise(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Frames and lengths of each part -> its statistics as a single frame, and 1 or 0; others as given.

        The frame is (batch, 1, [layers,] dim or 2 * dim). Summaries stay as they are.
        """
        found: list[Tensor] = []
        for number, dim in enumerate(self.dims):
            frames, lengths = inputs[2 * number : 2 * number + 2]
            if frames.shape[-1] == dim:  # also the mean of a frame that is a mean
                frames, lengths = self._statistics(frames, lengths), lengths.clamp(max=1)
            found += [frames, lengths]
        return *found, *inputs[len(found) :]

    def outputs(self, *inputs: Tensor) -> Outputs:
        """Frames, or the result of `summarise`, and lengths of each part -> logits and features.

        Features are the standardised statistics of all parts, weighted.
        """
        if len(inputs) != 2 * len(self.scales):
            raise ValueError(
                f"got {len(inputs)} tensors; this head reads frames and lengths of {len(self.scales)} parts"
            )
        summaries = self.summarise(*inputs)
        parts = zip(self.standardisers, self.layer_mix.values(), self.scales, strict=True)
        blocks = []
        for number, (standardise, mix, scale) in enumerate(parts):
            values, there = summaries[2 * number : 2 * number + 2]
            block = standardise(values[:, 0]).clamp(-LIMIT, LIMIT)
            weights = mix.weights
            if isinstance(weights, Tensor):
                block = block * (weights.softmax(0) * len(weights))[:, None]
            blocks.append(torch.where(there[:, None] > 0, scale * block.flatten(1), 0))
        features: Tensor = self.dropout(torch.cat(blocks, 1))
        return Outputs(self.linear(features), features)

    def _statistics(self, frames: Tensor, lengths: Tensor) -> Tensor:
        """(batch, frames, [layers,] dim) -> (batch, 1, [layers,] size); finite for a length of 0."""
        flat = zero_padding(frames.float(), lengths).flatten(2)
        counts = lengths.clamp(min=1)
        found = [mean(flat, counts), deviation(flat, counts)] if self.with_deviation else [mean(flat, counts)]
        return torch.cat([values.unflatten(1, frames.shape[2:]) for values in found], -1)[:, None]
