"""Segment attention pooling: any number of frames to a fixed number of segment vectors."""

import math
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from stillwave.heads.masks import on_host

PoolingType = Literal["attention", "max", "avg", "learnable"]

# Knots of the learnable pooling's weight profile over a segment, with linear interpolation between them.
PROFILE_KNOTS = 8


def segment_bounds(lengths: Tensor, num_segments: int) -> tuple[Tensor, Tensor]:
    """First and one-past-last frame of every segment, each (batch, num_segments).

    Segment s of n frames is [floor(s * n / S), ceil((s + 1) * n / S)), as in torch's adaptive pooling:
    neighbouring segments may share a frame, none is empty, and if n < S frames are repeated.
    """
    s = torch.arange(num_segments, device=lengths.device)
    n = lengths[:, None]
    return s * n // num_segments, ((s + 1) * n + num_segments - 1) // num_segments


class SegmentAttentionPooling(nn.Module):
    """Split each item's own valid frames into segments and pool every segment to one vector.

    pooling_type:
        attention: multi-head attention with one learned query per head, softmax within the segment,
            after "Self-attentive speaker embeddings" (Zhu et al., Interspeech 2018); values and
            output are projected as in `nn.MultiheadAttention`.
        learnable: weights depend on the position within the segment only, not on the content.
        avg, max: over the frames of the segment.
    use_temporal_encoding adds a learned vector per segment, so that what follows can tell their order.
    dropout acts on the weights of `attention`.
    """

    def __init__(
        self,
        dim: int,
        num_segments: int = 8,
        pooling_type: PoolingType = "attention",
        num_heads: int = 8,
        dropout: float = 0.1,
        use_temporal_encoding: bool = True,
    ) -> None:
        super().__init__()
        if num_segments < 1:
            raise ValueError(f"num_segments is {num_segments}; it must be at least 1")
        if pooling_type not in get_args(PoolingType):
            choices = ", ".join(get_args(PoolingType))
            raise ValueError(f"pooling_type is {pooling_type!r}; choose one of {choices}")
        self.num_segments = num_segments
        self.pooling_type = pooling_type
        self.num_heads = num_heads if pooling_type == "attention" else 1
        self.dropout = nn.Dropout(dropout if pooling_type == "attention" else 0.0)
        if pooling_type == "attention":
            if dim % num_heads:
                raise ValueError(f"num_heads must divide dim; {dim} % {num_heads} = {dim % num_heads}")
            # A key projection times a fixed query is one vector per head: so project directly to scores.
            self.score = nn.Linear(dim, num_heads)
            self.value = nn.Linear(dim, dim)
            self.output = nn.Linear(dim, dim)
        elif pooling_type == "learnable":
            self.profile = nn.Parameter(torch.zeros(PROFILE_KNOTS))
        self.temporal_encoding = (
            nn.Parameter(torch.randn(num_segments, dim) / math.sqrt(dim)) if use_temporal_encoding else None
        )

    def forward(self, frames: Tensor, lengths: Tensor | None = None) -> Tensor:
        """(batch, frames, dim), lengths (batch,) >= 1, or all frames -> (batch, num_segments, dim)."""
        if lengths is None:
            lengths = torch.full((len(frames),), frames.shape[1], device=frames.device)
        if on_host(lengths) and (int(lengths.min()) < 1 or int(lengths.max()) > frames.shape[1]):
            raise ValueError(
                f"lengths span {int(lengths.min())}..{int(lengths.max())}; "
                f"they must be in 1..{frames.shape[1]}, the frames of this batch"
            )
        segments, inside = _segments(frames, *segment_bounds(lengths, self.num_segments))
        if self.pooling_type == "max":
            pooled = segments.amax(2)
        elif self.pooling_type == "attention":
            pooled = self._attend(segments, inside)
        else:
            learned = self.pooling_type == "learnable"
            scores = self._profile_scores(inside) if learned else frames.new_zeros(inside.shape)
            pooled = (_weights(scores, inside).to(frames.dtype)[:, :, None] @ segments).squeeze(2)
        return pooled if self.temporal_encoding is None else pooled + self.temporal_encoding

    def _attend(self, segments: Tensor, inside: Tensor) -> Tensor:
        """Weighted sums of every segment, per head; then their value and output projections.

        Projecting the sums is equivalent to projecting the frames, because both are linear, and there are
        several times fewer sums. The values' bias is scaled by the sum of the weights, which dropout changes.
        """
        scores = self.score(segments).transpose(2, 3)  # (batch, segments, heads, frames)
        weights = self.dropout(_weights(scores, inside[:, :, None])).to(segments.dtype)
        weight = self.value.weight.unflatten(0, (self.num_heads, -1))
        bias = self.value.bias.unflatten(0, (self.num_heads, -1))
        values = torch.einsum("bshd,hed->bshe", weights @ segments, weight)
        values = values + torch.einsum("bsh,he->bshe", weights.sum(-1), bias)
        pooled: Tensor = self.output(values.flatten(2))
        return pooled

    def _profile_scores(self, inside: Tensor) -> Tensor:
        """The learned profile read at each frame's centre within its segment, (batch, segments, frames)."""
        centre = torch.arange(inside.shape[-1], device=inside.device).to(self.profile.dtype) + 0.5
        knot = (centre / inside.sum(-1, keepdim=True)).clamp(0, 1) * (PROFILE_KNOTS - 1)
        low = knot.floor().long().clamp(max=PROFILE_KNOTS - 2)
        return torch.lerp(self.profile[low], self.profile[low + 1], knot - low)


def _segments(frames: Tensor, starts: Tensor, ends: Tensor) -> tuple[Tensor, Tensor]:
    """The frames of every segment stacked, (batch, segments, longest, dim), and which are inside it.

    Beyond its end a segment repeats its last frame, so padding is never read.
    """
    batch, num_frames = frames.shape[:2]
    # An upper bound if asking for the longest would wait for the GPU.
    longest = int((ends - starts).max()) if on_host(starts) else num_frames // starts.shape[1] + 2
    steps = torch.arange(longest, device=frames.device)
    index = torch.minimum(starts[..., None] + steps, ends[..., None] - 1)
    index = index + num_frames * torch.arange(batch, device=frames.device)[:, None, None]
    # As an embedding look-up: the gradient of indexing is several times slower, or not deterministic.
    segments = nn.functional.embedding(index, frames.flatten(0, 1))
    return segments, steps < (ends - starts)[..., None]


def _weights(scores: Tensor, inside: Tensor) -> Tensor:
    """Softmax over the frames inside the segment."""
    return torch.where(inside, scores, -torch.inf).softmax(-1)
