"""A learned estimate of a prediction's uncertainty."""

from typing import Literal, get_args

import torch
from torch import Tensor, nn

from stillwave.heads.layers import xavier_uniform

UncertaintyTarget = Literal["correct", "error"]


class UncertaintyHead(nn.Module):
    """features -> hidden -> 0..1 by a sigmoid; higher is more uncertain.

    target: what `loss` trains the estimate for.
        correct: mean(uncertainty * correct): asks for certainty where the prediction is correct. Nothing asks
            for uncertainty elsewhere: its minimum is 0 everywhere, and long or heavily weighted training ends
            there. A regulariser, not an estimate. Its gradient reaches the features.
        error: binary cross-entropy against "this prediction is wrong", a proper score: its minimum is at the
            probability of an error. The features are detached: otherwise this loss would bend them to mark
            the few mistakes left on training rows, and so move the logits that it judges.
    """

    def __init__(
        self,
        input_dim: int = 256,
        hidden_dim: int = 64,
        output_dim: int = 1,
        target: UncertaintyTarget = "correct",
    ) -> None:
        super().__init__()
        if target not in get_args(UncertaintyTarget):
            choices = ", ".join(get_args(UncertaintyTarget))
            raise ValueError(f"uncertainty target is {target!r}; choose one of {choices}")
        self.target = target
        self.layers = nn.Sequential(
            nn.Linear(input_dim, hidden_dim), nn.ReLU(), nn.Linear(hidden_dim, output_dim), nn.Sigmoid()
        )
        self.apply(xavier_uniform)

    def forward(self, features: Tensor) -> Tensor:
        """(batch, input_dim) -> (batch, output_dim), 0..1."""
        uncertainty: Tensor = self.layers(features.detach() if self.target == "error" else features)
        return uncertainty

    def loss(self, uncertainty: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
        """Uncertainty (batch,), logits (batch, classes), labels (batch,) -> the target's loss, a scalar."""
        correct = logits.argmax(-1) == labels
        if self.target == "correct":
            return (uncertainty * correct).mean()
        likelihood = torch.where(correct, 1 - uncertainty, uncertainty)
        return -likelihood.clamp(min=torch.finfo(likelihood.dtype).tiny).log().mean()
