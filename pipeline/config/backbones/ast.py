"""Config of the Audio Spectrogram Transformer."""

from typing import Literal

from pydantic import Field

from stillwave.pipeline.config.backbones.common import PretrainedConfig


class AstConfig(PretrainedConfig):
    """Audio Spectrogram Transformer; longer audio in windows of the model's own length.

    frequency: a frame is one step in time of 12 patches, one above the other: their `mean` (768 numbers in
        the base size), or `concat`, low frequencies first (9216 numbers).
    """

    kind: Literal["ast"]
    weights: str = Field("MIT/ast-finetuned-audioset-10-10-0.4593", min_length=1)
    size: Literal["tiny", "base"] = "base"
    frequency: Literal["mean", "concat"] = "mean"
