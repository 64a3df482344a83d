"""Configs of the backbones: what turns an utterance into frames, one class per kind."""

from typing import Annotated

from pydantic import Field

from pipeline.config.backbones.ast import AstConfig
from pipeline.config.backbones.common import CommonConfig, Layers, Precision, PretrainedConfig
from pipeline.config.backbones.encodec import EncodecConfig
from pipeline.config.backbones.fastconformer import FastConformerConfig
from pipeline.config.backbones.fbank import FbankConfig
from pipeline.config.backbones.hear import HearConfig
from pipeline.config.backbones.mbert import MbertConfig
from pipeline.config.backbones.wav2vec2 import Wav2Vec2Config

__all__ = [
    "AstConfig",
    "BackboneConfig",
    "CommonConfig",
    "EncodecConfig",
    "FastConformerConfig",
    "FbankConfig",
    "HearConfig",
    "Layers",
    "MbertConfig",
    "Precision",
    "PretrainedConfig",
    "Wav2Vec2Config",
]

TEXT_KINDS = ("mbert",)  # the others read audio

BackboneConfig = Annotated[
    AstConfig | EncodecConfig | FastConformerConfig | FbankConfig | HearConfig | MbertConfig | Wav2Vec2Config,
    Field(discriminator="kind"),
]
