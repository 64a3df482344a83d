"""The rapid word pipeline's basic model: words from raw waveforms."""

import torch
from torch import Tensor

from stillwave.heads.pooled import PooledClassifier
from stillwave.pipeline.backbones import build_backbone
from stillwave.pipeline.backbones.cnn1d import Cnn1dConfig
from stillwave.pipeline.config.train import Finetune
from stillwave.pipeline.runs.model import Model

SAMPLE_RATE = 16000
ALL = Finetune(unfreeze="all")  # every weight trains


class SimpleAudioClassifier(Model):
    """Three Conv1d layers with batch norm and dropout -> adaptive pooling -> dense head, on raw waveforms.

    The model of configs/backbones/cnn1d.yaml and configs/recipes/word_basic.yaml: what `stillwave rapid`
    saves as best_basic_model.safetensors is this model's state_dict.

    num_classes: 1 or more. input_size: samples per clip, at 16 kHz, 434 or more, which give the convolutions
    a frame; longer audio is cut to these first samples, shorter audio is padded with silence. Raises
    ValueError for less.
    """

    def __init__(self, num_classes: int, input_size: int = SAMPLE_RATE, *, seed: int = 0) -> None:
        shortest = build_backbone(Cnn1dConfig(kind="cnn1d", clip_s=None)).shortest()
        for name, value, least in (("num_classes", num_classes, 1), ("input_size", input_size, shortest)):
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
        """Audio (batch, samples) or (batch, 1, samples); lengths, by default all -> (batch, num_classes)."""
        return self.outputs(*with_lengths(*inputs)).logits


def with_lengths(audio: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor]:
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
