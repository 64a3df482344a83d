"""Backbones: items in, frames out. `build_backbone` is the way in; each kind is one module here."""

from collections.abc import Callable
from typing import Any

from stillwave.pipeline.backbones.base import Backbone, Frames
from stillwave.pipeline.config.backbone import BackboneConfig

__all__ = ["BACKBONES", "Backbone", "Frames", "build_backbone"]


def _fbank(config: Any) -> Backbone:
    from stillwave.pipeline.backbones.fbank import Fbank

    return Fbank(config)


def _wav2vec2(config: Any) -> Backbone:
    from stillwave.pipeline.backbones.wav2vec2 import Wav2Vec2

    return Wav2Vec2(config)


def _ast(config: Any) -> Backbone:
    from stillwave.pipeline.backbones.ast import Ast

    return Ast(config)


def _encodec(config: Any) -> Backbone:
    from stillwave.pipeline.backbones.encodec import Encodec

    return Encodec(config)


def _hear(config: Any) -> Backbone:
    from stillwave.pipeline.backbones.hear import Hear

    return Hear(config)


def _fastconformer(config: Any) -> Backbone:
    from stillwave.pipeline.backbones.fastconformer import FastConformer

    return FastConformer(config)


def _mbert(config: Any) -> Backbone:
    from stillwave.pipeline.backbones.mbert import Mbert

    return Mbert(config)


def _cnn1d(config: Any) -> Backbone:
    from stillwave.pipeline.backbones.cnn1d import Cnn1d

    return Cnn1d(config)


def _sanet(config: Any) -> Backbone:
    from stillwave.pipeline.backbones.sanet import Sanet

    return Sanet(config)


# Imports sit in the functions: transformers takes seconds, and fbank needs none of it.
BACKBONES: dict[str, Callable[[Any], Backbone]] = {
    "fbank": _fbank,
    "wav2vec2": _wav2vec2,
    "ast": _ast,
    "hear": _hear,
    "encodec": _encodec,
    "fastconformer": _fastconformer,
    "mbert": _mbert,
    "cnn1d": _cnn1d,
    "sanet": _sanet,
}


def build_backbone(config: BackboneConfig) -> Backbone:
    """The backbone of `config`: frozen, in eval mode, on the CPU. ValueError where it has no weights."""
    backbone = BACKBONES[config.kind](config)
    return backbone.eval().requires_grad_(False)
