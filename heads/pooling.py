"""Segment attention pooling: any number of frames to a fixed number of segment vectors."""

import math
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from heads.masks import zero_padding

PoolingType = Literal["attention", "max", "avg", "learnable"]

# Knots of the learnable pooling's weight profile over a segment, interpolated linearly between.
PROFILE_KNOTS = 8


def segment_bounds(lengths: Tensor, num_segments: int) -> tuple[Tensor, Tensor]:
    """First and one-past-last frame of every segment, each (batch, num_segments).

    Segment s of n frames is [floor(s * n / S), ceil((s + 1) * n / S)), as in torch's adaptive pooling:
    neighbours may share a frame, no segment is ever empty, and with n < S frames are repeated.
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
            # A key projection times a fixed query is one vector per head: project straight to scores.
            self.score = nn.Linear(dim, num_heads)
            self.value = nn.Linear(dim, dim)
            self.output = nn.Linear(dim, dim)
        elif pooling_type == "learnable":
            self.profile = nn.Parameter(torch.zeros(PROFILE_KNOTS))
        self.temporal_encoding = (
            nn.Parameter(torch.randn(num_segments, dim) / math.sqrt(dim)) if use_temporal_encoding else None
        )

    def forward(self, frames: Tensor, lengths: Tensor) -> Tensor:
        """(batch, frames, dim), lengths (batch,) >= 1 -> (batch, num_segments, dim)."""
        if int(lengths.min()) < 1 or int(lengths.max()) > frames.shape[1]:
            raise ValueError(
                f"lengths span {int(lengths.min())}..{int(lengths.max())}; "
                f"they must lie in 1..{frames.shape[1]}, the frames of this batch"
            )
        starts, ends = segment_bounds(lengths, self.num_segments)
        if self.pooling_type == "max":
            pooled = _segment_max(frames, starts, ends)
        else:
            pooled = self._weighted(zero_padding(frames, lengths), starts, ends)
        return pooled if self.temporal_encoding is None else pooled + self.temporal_encoding

    def _weighted(self, frames: Tensor, starts: Tensor, ends: Tensor) -> Tensor:
        """Weighted means, as one matrix product per head over (segments, frames) weights."""
        position = torch.arange(frames.shape[1], device=frames.device)
        member = (position >= starts[..., None]) & (position < ends[..., None])  # (batch, segments, frames)
        values = frames
        if self.pooling_type == "attention":
            scores = self.score(frames).transpose(1, 2)[:, :, None]  # (batch, heads, 1, frames)
            values = self.value(frames)
        elif self.pooling_type == "learnable":
            scores = self._profile_scores(position, starts, ends)[:, None]  # (batch, 1, segments, frames)
        else:
            scores = frames.new_zeros(1, 1, 1, frames.shape[1])
        weights: Tensor = torch.where(member[:, None], scores, -torch.inf).softmax(-1)
        weights = self.dropout(weights).to(values.dtype)  # (batch, heads, segments, frames)
        by_head = values.reshape(*values.shape[:2], self.num_heads, -1).transpose(1, 2)
        pooled: Tensor = (weights @ by_head).transpose(1, 2).flatten(2)
        if self.pooling_type == "attention":
            pooled = self.output(pooled)
        return pooled

    def _profile_scores(self, position: Tensor, starts: Tensor, ends: Tensor) -> Tensor:
        """The learned profile read at each frame's centre within its segment, (batch, segments, frames)."""
        inside = (position - starts[..., None]).to(self.profile.dtype) + 0.5
        knot = (inside / (ends - starts)[..., None]).clamp(0, 1) * (PROFILE_KNOTS - 1)
        low = knot.floor().long().clamp(max=PROFILE_KNOTS - 2)
        return torch.lerp(self.profile[low], self.profile[low + 1], knot - low)


def _segment_max(frames: Tensor, starts: Tensor, ends: Tensor) -> Tensor:
    """Maximum over each segment, gathered side by side: a mask over all frames would hold S copies."""
    longest = int((ends - starts).max())
    index = starts[..., None] + torch.arange(longest, device=frames.device)  # (batch, segments, longest)
    # Past its end a segment repeats its last frame, which leaves the maximum as it is.
    index = torch.minimum(index, ends[..., None] - 1)
    item = torch.arange(frames.shape[0], device=frames.device)[:, None, None]
    return frames[item, index].amax(2)
