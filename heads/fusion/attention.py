"""Attention between two modalities of one utterance."""

import torch
from torch import Tensor, nn

from stillwave.heads.layers import xavier_uniform
from stillwave.heads.masks import valid_mask, zero_padding


class CrossModalAttention(nn.Module):
    """Audio frames attend to text frames and vice versa, by multi-head attention in a shared space.

    Both sides are projected to `shared_dim`; there each attends to the other (Vaswani et al., NeurIPS 2017);
    the result is projected back, added to the frames and layer-normalised. In the shared space a frame is
    its own query and key: the projection has made it so, and both directions agree on what belongs together.
    If an item lacks the other modality, its frames are only normalised.

    ValueError unless num_heads divides shared_dim.
    """

    def __init__(
        self, audio_dim: int = 768, text_dim: int = 768, shared_dim: int = 256, num_heads: int = 8
    ) -> None:
        super().__init__()
        if shared_dim % num_heads:
            remainder = f"{shared_dim} % {num_heads} = {shared_dim % num_heads}"
            raise ValueError(f"num_heads must divide shared_dim; {remainder}")
        self.audio_shared = nn.Linear(audio_dim, shared_dim)
        self.text_shared = nn.Linear(text_dim, shared_dim)
        self.audio_reader = _Reader(audio_dim, shared_dim, num_heads)
        self.text_reader = _Reader(text_dim, shared_dim, num_heads)
        self.apply(xavier_uniform)

    def forward(
        self, audio: Tensor, audio_lengths: Tensor, text: Tensor, text_lengths: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Each side (batch, frames, its dim), lengths (batch,) >= 0 -> both, in unchanged shapes.

        Values beyond a length are finite but meaningless.
        """
        audio, text = zero_padding(audio, audio_lengths), zero_padding(text, text_lengths)
        return self.attend(audio, audio_lengths, text, text_lengths)

    def attend(
        self, audio: Tensor, audio_lengths: Tensor, text: Tensor, text_lengths: Tensor
    ) -> tuple[Tensor, Tensor]:
        """`forward` for callers whose padding is known to be finite: zeroing it costs a copy each."""
        audio_shared, text_shared = self.audio_shared(audio), self.text_shared(text)
        return (
            self.audio_reader(audio, audio_shared, text_shared, text_lengths),
            self.text_reader(text, text_shared, audio_shared, audio_lengths),
        )


class _Reader(nn.Module):
    """One direction: frames of `dim` attend to the other modality's frames in the shared space."""

    def __init__(self, dim: int, shared_dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.value = nn.Linear(shared_dim, shared_dim)
        # No bias: no context, no change.
        self.back = nn.Linear(shared_dim, dim, bias=False)
        self.norm = nn.LayerNorm(dim)

    def forward(self, frames: Tensor, shared: Tensor, other: Tensor, other_lengths: Tensor) -> Tensor:
        """(batch, frames, dim), the same and the other (batch, ., shared_dim) -> (batch, frames, dim)."""
        present = (other_lengths > 0)[:, None]
        # For an absent modality, attend to its padding: the softmax over nothing would be NaN.
        mask = valid_mask(other_lengths, other.shape[1]) | ~present
        context = nn.functional.scaled_dot_product_attention(
            self._by_head(shared),
            self._by_head(other),
            self._by_head(self.value(other)),
            attn_mask=mask[:, None, None],
        )
        context = torch.where(present[..., None], context.transpose(1, 2).flatten(2), 0)
        enhanced: Tensor = self.norm(frames + self.back(context))
        return enhanced

    def _by_head(self, x: Tensor) -> Tensor:
        """(batch, frames, shared_dim) -> (batch, heads, frames, shared_dim / heads)."""
        by_head: Tensor = x.unflatten(-1, (self.num_heads, x.shape[-1] // self.num_heads))
        return by_head.transpose(1, 2)
