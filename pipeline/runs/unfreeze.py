"""Choosing which parts of a backbone train, and at which learning rates."""

from collections.abc import Sequence
from typing import Any

from torch import nn
from torch.utils.checkpoint import checkpoint

from stillwave.pipeline.backbones import Backbone
from stillwave.pipeline.config.train import Finetune


def trained_stages(backbone: Backbone, unfreeze: str | int) -> list[Sequence[nn.Module]]:
    """The stages that train, the one next to the head last. Raises ValueError if there are none."""
    stages = list(backbone.stages())
    if isinstance(unfreeze, int):
        layers = len(stages) - 1
        if unfreeze > layers:
            raise ValueError(
                f"finetune.unfreeze {unfreeze}: {type(backbone).__name__} has {layers} layers after its "
                "front end; give at most that, or `encoder` or `all`"
            )
        stages = stages[-unfreeze:]
    elif unfreeze == "encoder":
        stages = stages[1:]
    if not any(True for stage in stages for module in stage for _ in module.parameters()):
        raise ValueError(
            f"finetune.unfreeze {unfreeze}: {type(backbone).__name__} has no such weights to train; give "
            "`all`, or train on its stored frames with `stillwave train`"
        )
    return stages


def unfreeze(backbone: Backbone, config: Finetune) -> tuple[list[nn.Module], dict[str, float]]:
    """Unfreeze the stages that `config` names, and freeze the rest.

    Returns the modules that train and, by parameter name, the factor that layer-wise decay puts on the
    learning rate: 1 at the top, times `layer_decay` for each stage below it.
    """
    backbone.requires_grad_(False)
    names = {id(parameter): name for name, parameter in backbone.named_parameters()}
    factors: dict[str, float] = {}
    modules: list[nn.Module] = []
    for depth, stage in enumerate(reversed(trained_stages(backbone, config.unfreeze))):
        for module in stage:
            modules.append(module)
            for parameter in module.requires_grad_(True).parameters():
                factors[names[id(parameter)]] = config.layer_decay**depth
            if config.gradient_checkpointing:
                _checkpointed(module)
    return modules, factors


def _checkpointed(module: nn.Module) -> None:
    """In training, recompute the module's activations in the backward pass instead of keeping them.

    Its batch norms see each batch twice, so their running statistics change faster.
    """
    forward = module.forward

    def again(*args: Any, **kwargs: Any) -> Any:
        if not module.training:
            return forward(*args, **kwargs)
        return checkpoint(forward, *args, use_reentrant=False, **kwargs)

    module.forward = again
