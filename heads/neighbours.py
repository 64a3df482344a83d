"""The distance to the nearest training rows."""

from typing import Self

import torch
from torch import Tensor, nn

from stillwave.heads.base import Outputs
from stillwave.heads.scores import Score

# Rows compared at once: bounds the memory, rows x training rows x 8 bytes.
CHUNK = 1024
# The most training rows kept: more cost time and space in proportion, and the k-th nearest hardly moves.
BANK_ROWS = 20_000


class Neighbours(Score):
    """Distance to the k-th nearest training row, features normalised to length 1: 0 to 2.

    After Sun et al., "Out-of-distribution detection with deep nearest neighbors" (ICML 2022). All training
    rows count, regardless of the head's predictions; of more than BANK_ROWS, evenly spaced ones are kept,
    where the authors sample at random. With fewer than k rows it is the distance to the farthest.
    """

    bank: Tensor
    k: Tensor

    def __init__(self, k: int = 10) -> None:
        super().__init__()
        if k < 1:
            raise ValueError(f"k is {k}; it must be at least 1, the nearest training row")
        self.register_buffer("bank", torch.empty(0, 0))  # (rows, dim), normalised to length 1
        self.register_buffer("k", torch.tensor(k))

    @torch.no_grad()
    def fit(self, outputs: Outputs, labels: Tensor, output: nn.Linear) -> Self:
        """Keep the features, in their type."""
        if not len(outputs.features):
            raise ValueError("the score 'knn' got no training rows; it needs at least one")
        rows = len(outputs.features)
        kept = torch.linspace(0, rows - 1, min(rows, BANK_ROWS), dtype=torch.float64).round().long()
        features = outputs.features[kept.to(outputs.features.device)]
        self.bank = _normalise(features).to(features.dtype)
        return self

    def forward(self, outputs: Outputs) -> Tensor:
        """-> (batch,)."""
        if not len(self.bank):
            raise ValueError("the score 'knn' is not fitted; call fit with training rows")
        bank = self.bank.double()
        kth = min(int(self.k), len(bank))
        return torch.cat(
            [_kth_distance(part, bank, kth) for part in _normalise(outputs.features).split(CHUNK)]
        )


def _kth_distance(items: Tensor, bank: Tensor, kth: int) -> Tensor:
    """(rows, dim) to (bank rows, dim), all normalised to length 1 -> (rows,)."""
    which = (items @ bank.T).topk(kth, dim=1).indices[:, -1]
    # The product finds the row; a small distance computed from it would lose its digits to cancellation.
    distance: Tensor = torch.linalg.vector_norm(items - bank[which], dim=1)
    return distance


def _normalise(features: Tensor) -> Tensor:
    return nn.functional.normalize(features.double(), dim=1)
