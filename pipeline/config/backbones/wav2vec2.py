"""Config of wav2vec 2.0."""

from typing import Literal

from pydantic import Field

from stillwave.pipeline.config.backbones.common import PretrainedConfig


class Wav2Vec2Config(PretrainedConfig):
    """wav2vec 2.0, with group norm (base) or layer norm (XLS-R and its kin) in the convolutions."""

    kind: Literal["wav2vec2"]
    weights: str = Field("facebook/wav2vec2-base", min_length=1)
    size: Literal["tiny", "base", "large"] = "base"
