"""FastConformer and segment pooling as one trainable module: waveforms to a fixed number of vectors."""

from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

from stillwave.heads.pooling import PoolingType, SegmentAttentionPooling
from stillwave.pipeline.backbones.fastconformer.backbone import (
    FastConformer,
    FastConformerConfig,
    Implementation,
    Parts,
    assemble,
)
from stillwave.pipeline.backbones.fastconformer.conformer import Architecture, Conformer
from stillwave.pipeline.backbones.fastconformer.mel import LogMel, MelSettings
from stillwave.pipeline.config.base import Config

__all__ = ["AudioBranch", "AudioBranchConfig", "SegmentAttentionPooling"]

FF_EXPANSION = 4
DROPOUT = 0.1


class AudioBranchConfig(Config):
    """The arguments of `AudioBranch`, with their defaults.

    pretrained_model: a .nemo file, a Parakeet folder or a hub id; None for new weights with the given sizes.
    feature_dim: size of the output; a linear layer projects to it if the encoder has another size.
    freeze_encoder: freeze the encoder's weights, with dropout off and batch norm fixed.
    num_layers, d_model, num_heads: for the encoder, and `num_heads` also for the pooling; a pretrained
        encoder has its own, and its own sample_rate, n_mels, n_fft, hop_length and win_length (Hz, bands,
        samples).
    num_segments, pooling_type, use_temporal_encoding: as in `SegmentAttentionPooling`.
    use_nemo: let NVIDIA NeMo run the encoder; otherwise transformers runs a pretrained one, and our own code
        a new one.
    """

    pretrained_model: str | None = None
    feature_dim: int = Field(512, ge=1)
    freeze_encoder: bool = False
    num_layers: int = Field(17, ge=1)
    d_model: int = Field(512, ge=2)
    num_heads: int = Field(8, ge=1)
    sample_rate: int = Field(16000, ge=1000)
    n_mels: int = Field(80, ge=1)
    n_fft: int = Field(512, ge=2)
    hop_length: int = Field(160, ge=1)
    win_length: int = Field(400, ge=2)
    num_segments: int = Field(8, ge=1)
    pooling_type: PoolingType = "attention"
    use_temporal_encoding: bool = True
    use_nemo: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Arguments for `AudioBranch(**...)`."""
        return self.model_dump()


class AudioBranch(nn.Module):
    """Waveforms to segment vectors; `AudioBranchConfig` describes the arguments.

    New weights are drawn from torch's global generator, as in any module. Gradients reach the encoder unless
    `freeze_encoder` is set.
    """

    def __init__(self, **arguments: Any) -> None:
        super().__init__()
        config = AudioBranchConfig(**arguments)
        self.config = config
        self.encoder = _encoder(config)
        self.projection = (
            nn.Identity()
            if self.encoder.dim == config.feature_dim
            else nn.Linear(self.encoder.dim, config.feature_dim)
        )
        self.pooling = SegmentAttentionPooling(
            dim=config.feature_dim,
            num_segments=config.num_segments,
            pooling_type=config.pooling_type,
            num_heads=config.num_heads,
            dropout=DROPOUT,
            use_temporal_encoding=config.use_temporal_encoding,
        )
        if config.freeze_encoder:
            self.encoder.eval().requires_grad_(False)

    def train(self, mode: bool = True) -> "AudioBranch":
        """As for any module, but a frozen encoder stays in eval mode."""
        super().train(mode)
        if self.config.freeze_encoder:
            self.encoder.eval()
        return self

    def forward(
        self, audio: Tensor, lengths: Tensor | None = None, return_all_segments: bool = True
    ) -> dict[str, Tensor]:
        """Encode and pool.

        audio: (batch, samples) float32 mono in [-1, 1], zero-padded. lengths: (batch,) valid samples, each at
        least two hops; None means all. Returns `features` (batch, feature_dim), the mean over segments, and,
        with return_all_segments, `segment_features` (batch, num_segments, feature_dim).
        """
        if audio.ndim != 2:
            raise ValueError(f"audio has shape {tuple(audio.shape)}; it must be (batch, samples)")
        if lengths is None:
            lengths = torch.full((len(audio),), audio.shape[1], device=audio.device)
        frames, num_frames = self.encoder(audio, lengths)
        segments = self.pooling(self.projection(frames), num_frames)
        output = {"features": segments.mean(1)}
        return output | {"segment_features": segments} if return_all_segments else output


def _encoder(config: AudioBranchConfig) -> FastConformer:
    implementation: Implementation = "nemo" if config.use_nemo else "custom"
    if config.pretrained_model is not None and not config.use_nemo:
        implementation = "transformers"
    backbone = FastConformerConfig(
        kind="fastconformer", implementation=implementation, weights=config.pretrained_model or "random"
    )
    if config.pretrained_model is not None:
        return FastConformer(backbone)
    architecture = Architecture(
        d_model=config.d_model,
        num_layers=config.num_layers,
        num_heads=config.num_heads,
        ff_dim=FF_EXPANSION * config.d_model,
        num_mels=config.n_mels,
    )
    mel = MelSettings(
        sample_rate=config.sample_rate,
        num_mels=config.n_mels,
        n_fft=config.n_fft,
        win_length=config.win_length,
        hop_length=config.hop_length,
    )
    encoder = Conformer(architecture, DROPOUT)
    parts = Parts(LogMel(mel), encoder, architecture, mel)
    if config.use_nemo:
        parts = assemble("nemo", architecture, mel, encoder.state_dict())
    return FastConformer(backbone, parts)
