"""The rapid word pipeline's second model: words from raw waveforms, knowing the speaker."""

import copy

import torch
from torch import Tensor

from stillwave.heads.personal import UNKNOWN_SPEAKER, Personalised
from stillwave.models.simple_audio_classifier import ALL, SimpleAudioClassifier, with_lengths
from stillwave.pipeline.runs.model import Model


class PersonalizedModel(Model):
    """A basic model, with features moved by a learned vector of the speaker: see heads/personal.py.

    base_model: where it starts from; it is copied, and does not change. num_speakers: those with a vector of
    their own, numbered from 1; all others share the vector of the unknown speaker, number 0. embedding_dim,
    hidden, unknown: as in `Personalised`.
    """

    def __init__(
        self,
        base_model: SimpleAudioClassifier,
        num_speakers: int = 10,
        *,
        embedding_dim: int = 32,
        hidden: int = 64,
        unknown: float = 0.1,
    ) -> None:
        base = copy.deepcopy(base_model)
        head = Personalised(base.head, num_speakers, dim=embedding_dim, hidden=hidden, unknown=unknown)
        super().__init__(dict(base.encoders.items()), head, ALL)  # type: ignore[arg-type]
        self.num_speakers = num_speakers

    def forward(self, audio: Tensor, speaker_ids: Tensor | None = None) -> Tensor:  # type: ignore[override]
        """Audio (batch, samples) or (batch, 1, samples), speakers (batch,) int64 -> (batch, num_classes).

        Speakers beyond the table count as unknown, and so do all if none are given.
        """
        if speaker_ids is None:
            speaker_ids = torch.full((len(audio),), UNKNOWN_SPEAKER, device=audio.device)
        known = (speaker_ids > 0) & (speaker_ids <= self.num_speakers)
        speakers = torch.where(known, speaker_ids, UNKNOWN_SPEAKER)
        return self.outputs(*with_lengths(audio), speakers).logits
