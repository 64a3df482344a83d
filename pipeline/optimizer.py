"""AdamW over the parts of a head, and the learning rate of every step."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from pipeline.config.train import Train

LIVE_ONLY = "encoders"  # the group of a backbone that trains, too; heads on cached frames have no such part


def build_optimizer(head: nn.Module, config: Train) -> torch.optim.AdamW:
    """AdamW with a group per part of the head that `config.groups` names, and one for the rest.

    A parameter is of the group with the longest name that fits its own. Matrices decay; biases, norms and
    other vectors do not. Each group has its `rate`, the factor on the schedule's learning rate. Raises
    ValueError for a name that fits no parameter.
    """
    parts: dict[tuple[str, bool], list[nn.Parameter]] = {}
    for name, parameter in head.named_parameters():
        if parameter.requires_grad:
            fits = [group for group in config.groups if f"{name}.".startswith(f"{group}.")]
            parts.setdefault((max(fits, key=len, default=""), parameter.ndim > 1), []).append(parameter)
    if unused := sorted(config.groups.keys() - {name for name, _ in parts} - {LIVE_ONLY}):
        children = ", ".join(name for name, _ in head.named_modules() if name and name.count(".") < 2)
        raise ValueError(f"train.groups {unused} fit no parameter of their own; the head has {children}")
    groups: list[dict[str, Any]] = []
    for (name, is_matrix), parameters in parts.items():
        group = config.groups.get(name)
        decay = config.weight_decay if group is None or group.weight_decay is None else group.weight_decay
        groups.append(
            {
                "params": parameters,
                "weight_decay": decay if is_matrix else 0.0,
                "rate": 1.0 if group is None else group.rate,
            }
        )
    return torch.optim.AdamW(groups, lr=config.learning_rate, fused=True)


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Give each group its learning rate: `rate` times its own factor."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["rate"]


def schedule(config: Train, total: int) -> Callable[[int], float]:
    """Learning rate of a step of `total`: linear warm-up, then cosine to zero."""
    warmup = config.warmup_fraction * total

    def rate(step: int) -> float:
        if step < warmup:
            return config.learning_rate * (step + 1) / (warmup + 1)
        return (
            config.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1.0, total - warmup)))
        )

    return rate
