"""Attentive statistics pooling: any number of frames to their weighted mean and deviation."""

import torch
from torch import Tensor, nn

from stillwave.heads.layers import xavier_uniform
from stillwave.heads.masks import valid_mask, zero_padding

MIN_VARIANCE = 1e-6  # the square root's gradient is finite here; standardised frames vary around 1


class AttentiveStatsPooling(nn.Module):
    """Weighted mean and standard deviation over time, one learned scalar weight per frame.

    As in "Attentive statistics pooling for deep speaker embedding" (Okabe et al., Interspeech 2018): scores
    e_t = v . tanh(W h_t + b), weights a = softmax(e), mean = sum a_t h_t, variance = sum a_t (h_t - mean)^2.
    The paper's scalar bias of e_t is left out: it has no effect on the softmax.
    """

    def __init__(self, input_dim: int = 768, attention_dim: int = 128) -> None:
        super().__init__()
        self.hidden = nn.Linear(input_dim, attention_dim)
        self.score = nn.Linear(attention_dim, 1, bias=False)
        self.apply(xavier_uniform)

    def forward(self, frames: Tensor, lengths: Tensor) -> Tensor:
        """(batch, frames, dim), lengths (batch,) -> (batch, 2 * dim), the mean and then the deviation.

        An item of length 0 gets zeros and the least deviation.
        """
        return self.statistics(zero_padding(frames, lengths), lengths)

    def statistics(self, frames: Tensor, lengths: Tensor) -> Tensor:
        """`forward` for callers whose padding is known to be finite: zeroing it costs a copy."""
        scores = self.score(self.hidden(frames).tanh()).squeeze(-1)  # (batch, frames)
        # Not -inf: an item without frames should average its zeros, not divide by zero.
        scores = scores.masked_fill(~valid_mask(lengths, frames.shape[1]), torch.finfo(scores.dtype).min)
        weights = scores.softmax(-1).to(frames.dtype)[:, None]  # (batch, 1, frames)
        mean = weights @ frames  # (batch, 1, dim)
        # Around the mean, not as a difference of squares, which cancels when frames hardly vary. The mean is
        # where this sum is least, so its derivative by the mean is 0 and need not be computed.
        variance = weights @ (frames - mean.detach()).square()
        return torch.cat([mean, variance.clamp(min=MIN_VARIANCE).sqrt()], -1).squeeze(1)
