"""Configs of the backbones: what turns an utterance into frames, one class per kind."""

from typing import Annotated

from pydantic import Field

from stillwave.pipeline.config.backbones.ast import AstConfig
from stillwave.pipeline.config.backbones.cnn1d import Cnn1dConfig
from stillwave.pipeline.config.backbones.common import CommonConfig, Layers, Precision, PretrainedConfig
from stillwave.pipeline.config.backbones.encodec import EncodecConfig
from stillwave.pipeline.config.backbones.fastconformer import FastConformerConfig
from stillwave.pipeline.config.backbones.fbank import FbankConfig
from stillwave.pipeline.config.backbones.hear import HearConfig
from stillwave.pipeline.config.backbones.mbert import MbertConfig
from stillwave.pipeline.config.backbones.sanet import SanetConfig
from stillwave.pipeline.config.backbones.wav2vec2 import Wav2Vec2Config

__all__ = [
    "AstConfig",
    "BackboneConfig",
    "Cnn1dConfig",
    "CommonConfig",
    "EncodecConfig",
    "FastConformerConfig",
    "FbankConfig",
    "HearConfig",
    "Layers",
    "MbertConfig",
    "Precision",
    "PretrainedConfig",
    "SanetConfig",
    "Wav2Vec2Config",
]

TEXT_KINDS = ("mbert",)  # the others read audio

BackboneConfig = Annotated[
    AstConfig
    | Cnn1dConfig
    | EncodecConfig
    | FastConformerConfig
    | FbankConfig
    | HearConfig
    | MbertConfig
    | SanetConfig
    | Wav2Vec2Config,
    Field(discriminator="kind"),
]
