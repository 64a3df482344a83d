"""How the linear layers of the fusion head start."""

from torch import nn


def xavier_uniform(module: nn.Module) -> None:
    """Xavier uniform weights (Glorot & Bengio, AISTATS 2010), zero biases; for `nn.Module.apply`.

    Weights of nn.Linear are uniform within sqrt(6 / (inputs + outputs)). Every other module is left alone.
    """
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
