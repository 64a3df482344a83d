"""Configs of the backbones: what turns an utterance into frames, one class per kind."""

from typing import Annotated

from pydantic import Field

from pipeline.config.backbones.ast import AstConfig
from pipeline.config.backbones.cnn1d import Cnn1dConfig
from pipeline.config.backbones.common import CommonConfig, Layers, Precision, PretrainedConfig
from pipeline.config.backbones.encodec import EncodecConfig
from pipeline.config.backbones.fastconformer import FastConformerConfig
from pipeline.config.backbones.fbank import FbankConfig
from pipeline.config.backbones.hear import HearConfig
from pipeline.config.backbones.mbert import MbertConfig
from pipeline.config.backbones.sanet import SanetConfig
from pipeline.config.backbones.wav2vec2 import Wav2Vec2Config

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
