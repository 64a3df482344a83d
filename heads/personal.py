"""A head that knows the speaker: a learned vector for each training speaker, and one for all others."""

import torch
from torch import Tensor, nn

from stillwave.heads.base import Head, Outputs, WrappedHead
from stillwave.heads.bounds import Count, Fraction

UNKNOWN_SPEAKER = 0  # the number of all speakers without a vector of their own


class Personalised(WrappedHead):
    """Any head, with its features moved by the speaker: features + up(relu(down([features; vector]))).

    Speakers are numbers: 0 for unknown ones, 1 to num_speakers for those of the training rows. `up` starts
    at zero, so this starts out equal to the wrapped head. Logits are the wrapped head's own last layer
    applied to the moved features.

    dim: size of a speaker's vector. hidden: width between `down` and `up`.
    unknown: in training, a row counts as the unknown speaker's with this probability, so that the unknown
        vector learns what helps with any speaker, and serves speakers about whom nothing is known.
    """

    def __init__(
        self,
        head: Head,
        num_speakers: int,
        *,
        dim: Count = 32,
        hidden: Count = 64,
        unknown: Fraction = 0.1,
    ) -> None:
        super().__init__()
        if num_speakers < 1:
            raise ValueError(f"num_speakers is {num_speakers}; a personalised head needs at least one")
        if not 0 <= unknown < 1:
            raise ValueError(f"unknown is {unknown}; it is a probability, at least 0 and below 1")
        self.head = head
        self.unknown = unknown
        width = self.output.in_features
        self.speakers = nn.Embedding(num_speakers + 1, dim)
        self.down = nn.Linear(width + dim, hidden)
        self.up = nn.Linear(hidden, width)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def outputs(self, *inputs: Tensor) -> Outputs:
        """The wrapped head's inputs, then speakers (batch,) int64 -> outputs as of the wrapped head.

        The features are the moved ones; the learned uncertainty is the wrapped head's.
        """
        *others, speakers = inputs
        found = self.head.outputs(*others)
        if self.training and self.unknown:
            hidden = torch.rand(len(speakers), device=speakers.device) < self.unknown
            speakers = torch.where(hidden, UNKNOWN_SPEAKER, speakers)
        features = self.moved(found.features, self.speakers(speakers))
        return Outputs(self.output(features), features, found.learned_uncertainty)

    def moved(self, features: Tensor, vectors: Tensor) -> Tensor:
        """The wrapped head's features (batch, width) for speakers' vectors (batch, dim) -> (batch, width)."""
        both = torch.cat([features, vectors.to(features.dtype)], -1)
        change: Tensor = self.up(self.down(both).relu())
        return features + change
