"""EnCodec, a pooling and a perceptron as one module: waveforms to embeddings, and to logits."""

from typing import Literal, get_args

import torch
from torch import Tensor, nn

from stillwave.heads.global_pooling import attention, deviation, maximum, mean
from stillwave.heads.pooled import PooledClassifier
from stillwave.pipeline.backbones.encodec.backbone import Encodec, EncodecConfig, load_codec

Method = Literal["mean", "max", "attention"]

METHODS = {"mean": mean, "max": maximum, "attention": attention}


class EmotionDetectionModel(nn.Module):
    """EnCodec frames -> mean over time -> 256 -> 128 -> logits.

    num_classes: for the logits. config: which EnCodec; by default the published 24 kHz mono one, with its
        frames before the quantizer. `config.embedding` sets the frames for `get_embeddings` and the
        classifier, `config.bandwidth` the number of codebooks. pooling: for the classifier, as in
        `PooledClassifier`.

    Audio is (batch, channels, samples) in [-1, 1] at `sample_rate`, mono at 24 kHz, stereo at 48 kHz.
    Embeddings are (batch, dim, frames). `lengths` (batch,) are valid samples, if items differ; values beyond
    them change nothing. None means that all are valid.

    At 48 kHz longer audio is encoded in segments of 1 s, each divided by its volume, as EnCodec was trained.

    EnCodec is frozen, and stays in eval mode during training, until `unfreeze`, or until its parameters are
    set to require gradients. Then gradients reach it, straight through the quantizer if there is one.
    """

    def __init__(
        self,
        num_classes: int = 8,
        config: EncodecConfig | None = None,
        *,
        pooling: Literal["mean", "max", "attention", "multi_scale"] = "mean",
    ) -> None:
        super().__init__()
        config = config or EncodecConfig(kind="encodec")
        codec = load_codec(config)
        # Rounding could change which codebook entry is nearest.
        quantized = config.model_copy(update={"embedding": "quantized", "precision": "fp32"})
        self.config = config
        self.encodec = Encodec(config.model_copy(update={"embedding": "encoder"}), codec)
        self.quantizer = codec.quantizer
        # Both backbones share one encoder; registering the second as a child would save it twice.
        self._quantized = (Encodec(quantized, codec),)
        self.head = PooledClassifier(self.encodec.dim, num_classes, standardise=False, pooling=pooling)
        self.sample_rate, self.channels = self.encodec.sample_rate, self.encodec.channels
        self.encodec.eval().requires_grad_(False)

    @property
    def classifier(self) -> nn.Sequential:
        """The perceptron after the pooling."""
        return self.head.mlp

    def unfreeze(self) -> "EmotionDetectionModel":
        """Let gradients reach EnCodec's encoder; use a smaller learning rate for it."""
        self.encodec.requires_grad_(True).train(self.training)
        return self

    def train(self, mode: bool = True) -> "EmotionDetectionModel":
        """As for any module, but a frozen EnCodec stays in eval mode."""
        super().train(mode)
        self.encodec.train(mode and any(p.requires_grad for p in self.encodec.parameters()))
        return self

    def forward(self, audio: Tensor, lengths: Tensor | None = None) -> Tensor:
        """-> logits (batch, num_classes)."""
        logits: Tensor = self.head(*self._frames(audio, lengths, self.config.embedding))
        return logits

    def get_embeddings(self, audio: Tensor, lengths: Tensor | None = None) -> Tensor:
        """The frames that the classifier pools: (batch, dim, frames), zero after an item's last frame."""
        return self._frames(audio, lengths, self.config.embedding)[0].transpose(1, 2)

    def get_encoder_embeddings(self, audio: Tensor, lengths: Tensor | None = None) -> Tensor:
        """The encoder's frames before the quantizer, (batch, dim, frames)."""
        return self._frames(audio, lengths, "encoder")[0].transpose(1, 2)

    def get_quantized_embeddings(self, audio: Tensor, lengths: Tensor | None = None) -> Tensor:
        """The sums of the frames' codebook entries, (batch, dim, frames)."""
        return self._frames(audio, lengths, "quantized")[0].transpose(1, 2)

    def get_global_embeddings(
        self, audio_or_embeddings: Tensor, method: Method = "mean", lengths: Tensor | None = None
    ) -> Tensor:
        """One vector per item, (batch, dim): the mean or maximum over time, or the parameter-free attention.

        audio_or_embeddings: distinguished by their second dimension. Lengths are samples for audio, frames
        for embeddings.
        """
        if method not in get_args(Method):
            choices = ", ".join(get_args(Method))
            raise ValueError(f"method is {method!r}; choose one of {choices}")
        frames, lengths = self._pooled_frames(audio_or_embeddings, lengths)
        return METHODS[method](frames, lengths)

    def get_multi_scale_embeddings(
        self, audio_or_embeddings: Tensor, lengths: Tensor | None = None
    ) -> Tensor:
        """Mean, maximum and standard deviation (n - 1) over time, concatenated: (batch, 3 * dim)."""
        pooled = self._pooled_frames(audio_or_embeddings, lengths)
        return torch.cat([mean(*pooled), maximum(*pooled), deviation(*pooled)], 1)

    def _pooled_frames(self, audio_or_embeddings: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor]:
        """Frames (batch, frames, dim) and their lengths, from audio or from embeddings."""
        if audio_or_embeddings.ndim == 3 and audio_or_embeddings.shape[1] == self.encodec.dim:
            frames = audio_or_embeddings.transpose(1, 2)
            return frames, _all_of(frames) if lengths is None else lengths
        return self._frames(audio_or_embeddings, lengths, self.config.embedding)

    def _frames(
        self, audio: Tensor, lengths: Tensor | None, embedding: Literal["encoder", "quantized"]
    ) -> tuple[Tensor, Tensor]:
        """Frames (batch, frames, dim), zero beyond their lengths, and the lengths."""
        if audio.ndim != 3 or audio.shape[1] != self.channels:
            raise ValueError(
                f"audio has shape {tuple(audio.shape)}; EnCodec {self.config.model} takes (batch, "
                f"{self.channels}, samples) at {self.sample_rate} Hz"
            )
        batch = audio[:, 0] if self.channels == 1 else audio.transpose(1, 2)
        backbone = self.encodec if embedding == "encoder" else self._quantized[0]
        frames: tuple[Tensor, Tensor] = backbone(batch, _all_of(batch) if lengths is None else lengths)
        return frames


def _all_of(batch: Tensor) -> Tensor:
    """(batch, time, ...) -> lengths (batch,), all of it."""
    return torch.full((len(batch),), batch.shape[1], device=batch.device)
