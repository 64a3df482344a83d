"""SANet with its head as one module: raw waveforms to logits."""

import torch
from torch import Tensor, nn

from stillwave.heads.pooled import PooledClassifier
from stillwave.heads.statistics import AttentiveStatsPooling as AttentivePool
from stillwave.pipeline.backbones.sanet.backbone import SIZES, Architecture, AttentionEncoder
from stillwave.pipeline.backbones.sanet.blocks import SE1D, DownsampledAttentionBlockDecoupled, ResBlock1D

__all__ = [
    "SE1D",
    "AttentionEncoder",
    "AttentivePool",
    "DownsampledAttentionBlockDecoupled",
    "ResBlock1D",
    "SqueezeAttendNet",
]


class SqueezeAttendNet(nn.Module):
    """`AttentionEncoder` -> attentive mean and deviation -> layer norm -> logits.

    num_classes: for the logits. hidden: widths of hidden layers before them; none by default.
    architecture: its defaults give 1,024 numbers per clip.

    Made for 4 s at 16 kHz, 64,000 samples; any other length works as well. What `stillwave finetune` trains
    with a `sanet` backbone and a `pooled` head is this module in two parts.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        architecture: Architecture = SIZES["base"],
        hidden: tuple[int, ...] = (),
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.encoder = AttentionEncoder(architecture, dropout)
        self.head = PooledClassifier(
            architecture.channels[-1],
            num_classes,
            standardise=False,
            pooling="attentive",
            norm=True,
            hidden=hidden,
            dropout=dropout,
        )

    def forward(self, waveforms: Tensor, lengths: Tensor | None = None) -> Tensor:
        """(batch, [1,] samples) in [-1, 1], lengths (batch,) valid samples -> logits (batch, num_classes).

        Without lengths all samples are valid. An item's logits do not depend on its batch in eval mode.
        """
        return self.head(*self._frames(waveforms, lengths))  # type: ignore[no-any-return]

    def embedding(self, waveforms: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Like `forward`, but returns the attentive mean and deviation, (batch, 1024) at the default size."""
        pooled: Tensor = self.head.pooling(*self._frames(waveforms, lengths))
        return pooled

    def _frames(self, waveforms: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor]:
        x = waveforms[:, None] if waveforms.ndim == 2 else waveforms
        if x.ndim != 3 or x.shape[1] != 1 or not x.shape[2]:
            raise ValueError(
                f"waveforms have shape {tuple(waveforms.shape)}; they must be (batch, samples) or "
                "(batch, 1, samples), with at least one sample: mix channels down to one"
            )
        x, lengths = self.encoder(x, lengths)
        if lengths is None:
            lengths = torch.full((len(x),), x.shape[2], device=x.device)
        return x.transpose(1, 2), lengths
