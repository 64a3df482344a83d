"""AdamW over the parts of a head, and the learning rate of every step."""

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import nn

from stillwave.pipeline.config.train import Train

LIVE_ONLY = "encoders"  # the group of a backbone that trains; heads on cached frames have no such part


def build_optimizer(
    head: nn.Module, config: Train, rates: Mapping[str, float] = MappingProxyType({})
) -> torch.optim.AdamW:
    """AdamW with a group per part of the head that `config.groups` names, and one for the rest.

    A parameter belongs to the group with the longest matching name. Matrices decay; biases, norms and other
    vectors do not. Each group has its `rate`, the factor on the schedule's learning rate. rates: such factors
    by parameter name, which override a group's. In a model with a part `head`, groups use the names of the
    head's parts. Raises ValueError for a name that matches no parameter.
    """
    parts: dict[tuple[str, bool, float | None], list[nn.Parameter]] = {}
    for name, parameter in head.named_parameters():
        if parameter.requires_grad:
            own = _own(name)
            fits = [group for group in config.groups if f"{own}.".startswith(f"{group}.")]
            key = max(fits, key=len, default=""), parameter.ndim > 1, rates.get(name)
            parts.setdefault(key, []).append(parameter)
    if unused := sorted(config.groups.keys() - {name for name, _, _ in parts} - {LIVE_ONLY}):
        names = [_own(name) for name, _ in head.named_modules()]
        children = ", ".join(name for name in names if name and name.count(".") < 2)
        raise ValueError(f"train.groups {unused} match no parameter of their own; the head has {children}")
    groups: list[dict[str, Any]] = []
    for (name, is_matrix, rate), parameters in parts.items():
        group = config.groups.get(name)
        if rate is None:
            rate = 1.0 if group is None else group.rate
        decay = config.weight_decay if group is None or group.weight_decay is None else group.weight_decay
        groups.append(
            {
                "params": parameters,
                "weight_decay": decay if is_matrix else 0.0,
                "rate": rate,
            }
        )
    return torch.optim.AdamW(groups, lr=config.learning_rate, fused=True)


def _own(name: str) -> str:
    """The parameter's name within the innermost head."""
    while name.startswith("head."):
        name = name.removeprefix("head.")
    return name


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Give each group its learning rate: `rate` times its own factor."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["rate"]


def schedule(config: Train, steps: int) -> Callable[[int], float]:
    """Learning rate of a step, with `steps` per epoch: linear warm-up, then `config.schedule`."""
    total = steps * config.epochs
    warmup = config.warmup_fraction * total

    def rate(step: int) -> float:
        if step < warmup:
            return config.learning_rate * (step + 1) / (warmup + 1)
        if config.schedule == "step":
            return config.learning_rate * config.gamma ** (step // steps // config.step_epochs)
        if config.schedule == "constant":
            return config.learning_rate
        return (
            config.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1.0, total - warmup)))
        )

    return rate
