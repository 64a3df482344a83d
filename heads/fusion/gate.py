"""Two pooled modalities to one vector."""

import torch
from torch import Tensor, nn

from stillwave.heads.layers import xavier_uniform


class FusionLayer(nn.Module):
    """Gated multimodal unit: per dimension, a learned gate sets how much of each modality passes.

    z = sigmoid(W [p_a; p_t]), output = z * tanh(p_a) + (1 - z) * tanh(p_t), with p_a and p_t linear in the
    inputs (Arevalo et al., "Gated multimodal units for information fusion", ICLR workshop 2017; the gate
    reads the projections, as in the authors' code).
    """

    def __init__(self, audio_dim: int = 1536, text_dim: int = 1536, output_dim: int = 512) -> None:
        super().__init__()
        self.audio_projection = nn.Linear(audio_dim, output_dim)
        self.text_projection = nn.Linear(text_dim, output_dim)
        self.gate_projection = nn.Linear(2 * output_dim, output_dim)
        self.apply(xavier_uniform)

    def forward(self, audio: Tensor, text: Tensor) -> Tensor:
        """(batch, audio_dim), (batch, text_dim) -> (batch, output_dim), within -1..1."""
        audio, text = self.audio_projection(audio), self.text_projection(text)
        return torch.lerp(text.tanh(), audio.tanh(), self._gate(audio, text))

    def gate(self, audio: Tensor, text: Tensor) -> Tensor:
        """z of the inputs of `forward`, (batch, output_dim): 1 where all is audio, 0 where all is text."""
        return self._gate(self.audio_projection(audio), self.text_projection(text))

    def _gate(self, audio: Tensor, text: Tensor) -> Tensor:
        gate: Tensor = self.gate_projection(torch.cat([audio, text], -1)).sigmoid()
        return gate
