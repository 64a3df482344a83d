"""The rapid word pipeline's two models: words from raw waveforms, and the same knowing who speaks."""

import copy

import torch
from torch import Tensor

from heads.personal import UNKNOWN_SPEAKER, Personalised
from heads.pooled import PooledClassifier
from pipeline.backbones import build_backbone
from pipeline.config.backbone import Cnn1dConfig
from pipeline.config.train import Finetune
from pipeline.live import LiveModel

SAMPLE_RATE = 16000
ALL = Finetune(unfreeze="all")  # every weight trains
SHORTEST = 434  # samples that give the convolutions a frame


class SimpleAudioClassifier(LiveModel):
    """Three Conv1d layers with batch norm and dropout -> adaptive pooling -> dense head, on raw waveforms.

    As configs/backbones/cnn1d.yaml and configs/recipes/word_basic.yaml have it: what `stillwave rapid` saves
    as best_basic_model.safetensors is this model's state_dict.

    num_classes: 1 or more. input_size: samples of a clip, at 16 kHz, SHORTEST or more; other audio is cut to
    its first so many, or padded with silence. Raises ValueError for less.
    """

    def __init__(self, num_classes: int, input_size: int = SAMPLE_RATE, *, seed: int = 0) -> None:
        for name, value, least in (("num_classes", num_classes, 1), ("input_size", input_size, SHORTEST)):
            if value < least:
                raise ValueError(f"{name} is {value}; it must be {least} or more")
        config = Cnn1dConfig(kind="cnn1d", clip_s=input_size / SAMPLE_RATE, filters="mel", seed=seed)
        encoder = build_backbone(config)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            head = PooledClassifier(
                encoder.dim, num_classes, standardise=False, pooling="adaptive", bins=8, hidden=(128,)
            )
        super().__init__({"frames": encoder}, head, ALL)

    def forward(self, *inputs: Tensor) -> Tensor:
        """Audio (batch, samples) or (batch, 1, samples); its lengths, if not all -> (batch, num_classes)."""
        return self.outputs(*_with_lengths(*inputs)).logits


class PersonalizedModel(LiveModel):
    """A basic model, its features moved by a learned vector of who speaks: see heads/personal.py.

    base_model: what it starts as; it is copied, and stays as it is. num_speakers: those that have a vector of
    their own, numbered from 1; all others share the vector of the unknown speaker, number 0. embedding_dim,
    hidden, unknown: of `Personalised`.
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

        Speakers beyond the table are unknown ones, and so are all of them where none are given.
        """
        if speaker_ids is None:
            speaker_ids = torch.full((len(audio),), UNKNOWN_SPEAKER, device=audio.device)
        known = (speaker_ids > 0) & (speaker_ids <= self.num_speakers)
        speakers = torch.where(known, speaker_ids, UNKNOWN_SPEAKER)
        return self.outputs(*_with_lengths(audio), speakers).logits


def _with_lengths(audio: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """(batch, samples) or (batch, 1, samples) -> (batch, samples) and lengths (batch,)."""
    if audio.ndim == 3 and audio.shape[1] == 1:
        audio = audio[:, 0]
    if audio.ndim != 2 or not audio.shape[1]:
        raise ValueError(
            f"audio is {tuple(audio.shape)}; give (batch, samples) or (batch, 1, samples), samples > 0"
        )
    if lengths is None:
        lengths = torch.full((len(audio),), audio.shape[1], device=audio.device)
    return audio, lengths
