"""Configs of the backbones: what turns an utterance into frames, one class per kind."""

from typing import Annotated

from pydantic import Field

from pipeline.config.backbones.common import CommonConfig, Layers, Precision, PretrainedConfig
from pipeline.config.backbones.fbank import FbankConfig
from pipeline.config.backbones.mbert import MbertConfig
from pipeline.config.backbones.wav2vec2 import Wav2Vec2Config

__all__ = [
    "BackboneConfig",
    "CommonConfig",
    "FbankConfig",
    "Layers",
    "MbertConfig",
    "Precision",
    "PretrainedConfig",
    "Wav2Vec2Config",
]

BackboneConfig = Annotated[
    FbankConfig | MbertConfig | Wav2Vec2Config,
    Field(discriminator="kind"),
]
