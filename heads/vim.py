"""Virtual-logit matching: features outside the principal directions of the training rows."""

from collections.abc import Mapping
from typing import Self

import torch
from torch import Tensor, nn

from stillwave.heads.base import Outputs
from stillwave.heads.scores import Score


def with_principal(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a score, which may have the `residual` directions in place of the principal ones."""
    found = dict(tensors)
    if "residual" in found:
        residual = found.pop("residual")
        basis = torch.linalg.svd(residual, full_matrices=True).U
        found["principal"] = basis[:, residual.shape[1] :].contiguous()
    return found


class VirtualLogit(Score):
    """Log-odds of a virtual class whose logit grows with the part of the features in the residual space.

    After Wang et al., "ViM: out-of-distribution with virtual-logit matching" (CVPR 2022):
    score = scale * |R^T (features - origin)| - log sum exp(logits). The origin, -pinv(W) b, is where the
    logits are least; R are the directions outside the principal ones of the training rows, about the origin,
    not their mean; the scale makes the virtual logit as large as the largest logit, on average over those
    rows.

    Half of the dimensions are principal, as 512 of 1024 would be (the authors take 512 of 768 and 1000 of
    2048), and at most half of the training rows: as many directions as rows would leave no residual. If the
    training rows still have no residual, or their largest logit is not positive on average, the scale is 0
    and the score is the energy.
    """

    origin: Tensor
    principal: Tensor
    scale: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("origin", torch.empty(0, dtype=torch.float64))
        self.register_buffer("principal", torch.empty(0, 0, dtype=torch.float64))  # (dim, directions)
        self.register_buffer("scale", torch.zeros((), dtype=torch.float64))

    @torch.no_grad()
    def fit(self, outputs: Outputs, labels: Tensor, output: nn.Linear) -> Self:
        """Labels are not used."""
        features = outputs.features.double()
        rows, dim = features.shape
        if not rows:
            raise ValueError("the score 'vim' got no training rows; it needs at least one")
        weight = output.weight.double()
        bias = weight.new_zeros(len(weight)) if output.bias is None else output.bias.double()
        self.origin = -torch.linalg.pinv(weight) @ bias
        centred = features - self.origin
        # The right singular vectors, the largest first. Not the eigenvectors of a covariance, dim x dim: with
        # fewer rows than dimensions that costs far more.
        directions = torch.linalg.svd(torch.linalg.qr(centred, mode="r").R, full_matrices=False).Vh
        self.principal = directions[: min(dim // 2, rows // 2)].T.contiguous()
        norms = self._norms(features)
        largest = outputs.logits.double().amax(1).mean().clamp(min=0)
        # A smaller residual is rounding.
        smallest = 1e-9 * torch.linalg.vector_norm(centred, dim=1).mean()
        self.scale = torch.where(norms.mean() > smallest, largest / norms.mean(), 0.0)
        return self

    def forward(self, outputs: Outputs) -> Tensor:
        """-> (batch,)."""
        if not len(self.origin):
            raise ValueError("the score 'vim' is not fitted; call fit with training rows")
        virtual = self.scale * self._norms(outputs.features.double())
        return virtual - torch.logsumexp(outputs.logits.double(), 1)

    def _norms(self, features: Tensor) -> Tensor:
        centred = features - self.origin
        norms: Tensor = torch.linalg.vector_norm(centred - centred @ self.principal @ self.principal.T, dim=1)
        return norms
