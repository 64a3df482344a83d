"""Backbones: items in, frames out. Each kind is one module here, with its config.

`load_backbone` reads a config, `build_backbone` builds the backbone from it.
"""

from collections.abc import Mapping, Sequence
from inspect import isclass
from pathlib import Path
from typing import Any

from stillwave.pipeline.backbones.base import Backbone, Frames
from stillwave.pipeline.backbones.config import BackboneConfig, CustomConfig, PretrainedConfig
from stillwave.pipeline.backbones.weights import at_hand
from stillwave.pipeline.config.base import ConfigError, parse_config, read_config
from stillwave.pipeline.config.classes import UNTRUSTED, imported

__all__ = [
    "BACKBONES", "Backbone", "BackboneConfig", "Frames", "build_backbone", "load_backbone", "parse_backbone",
]  # fmt: skip

# By kind; a module is imported when a config asks for it.
BACKBONES = {
    "fbank": "stillwave.pipeline.backbones.fbank:Fbank",
    "wav2vec2": "stillwave.pipeline.backbones.wav2vec2:Wav2Vec2",
    "whisper": "stillwave.pipeline.backbones.whisper.backbone:Whisper",
    "onnx": "stillwave.pipeline.backbones.onnx:Onnx",
    "ast": "stillwave.pipeline.backbones.ast:Ast",
    "hear": "stillwave.pipeline.backbones.hear:Hear",
    "resemblyzer": "stillwave.pipeline.backbones.resemblyzer:Resemblyzer",
    "encodec": "stillwave.pipeline.backbones.encodec:Encodec",
    "fastconformer": "stillwave.pipeline.backbones.fastconformer:FastConformer",
    "mbert": "stillwave.pipeline.backbones.mbert:Mbert",
    "cnn1d": "stillwave.pipeline.backbones.cnn1d:Cnn1d",
    "sanet": "stillwave.pipeline.backbones.sanet:Sanet",
}


def load_backbone(path: str | Path, overrides: Sequence[str] = ()) -> BackboneConfig:
    """The config in a user's YAML file, with `-S` overrides; see `config.base.load_config`."""
    return parse_backbone(read_config(path, overrides), str(path), trusted=True)


def parse_backbone(data: Mapping[str, Any], where: str, *, trusted: bool) -> BackboneConfig:
    """Parse a config with the class of its `kind`, or of its `class` with `kind: custom`.

    where: its name in errors. trusted: whether the user wrote it, or trusts it. Other configs, such as one
    that came with a run, may neither run code from outside Stillwave nor download anything.
    Raises ConfigError.
    """
    kind = data.get("kind")
    if kind == "custom" and not trusted:  # importing the class would already run it
        raise _refused(where, f"kind custom imports {data.get('class')}, {UNTRUSTED}")
    config: BackboneConfig = parse_config(data, _class_of(data, where).config_type, where)
    if not trusted:
        if imports := config.imports():
            raise _refused(where, f"{imports}, {UNTRUSTED}")
        if isinstance(config, PretrainedConfig):
            if not at_hand(config):
                asks = "would be downloaded. If you trust where the run comes from, give --trust-run"
                raise _refused(where, f"`weights` {config.weights} {asks}")
            config = config.model_copy(update={"download": False})
    return config


def build_backbone(config: BackboneConfig) -> Backbone:
    """The backbone of `config`: frozen, in eval mode, on the CPU. ValueError if there are no weights."""
    path = config.class_path if isinstance(config, CustomConfig) else BACKBONES[config.kind]
    backbone: Backbone = imported(path, "class")(config)
    return backbone.eval().requires_grad_(False)


def _class_of(data: Mapping[str, Any], where: str) -> type[Backbone]:
    kind = data.get("kind")
    path = BACKBONES.get(str(kind))
    if kind == "custom":
        known_fields = {name: data[name] for name in ("kind", "class") if name in data}
        path = parse_config(known_fields, CustomConfig, where).class_path
    if path is None:
        known = ", ".join(repr(name) for name in (*BACKBONES, "custom"))
        raise ConfigError(f"{where}: `kind`: must be one of {known} (got {kind!r})")
    try:
        found = imported(path, "class")
    except ValueError as error:
        raise ConfigError(f"{where}: {error}") from error
    if not (isclass(found) and issubclass(found, Backbone)):
        raise ConfigError(f"{where}: `class` {path}: not a subclass of Backbone; see docs/howto/backbone.md")
    if kind == "custom" and not issubclass(getattr(found, "config_type", object), CustomConfig):
        raise ConfigError(f"{where}: `class` {path}: its `config_type` must be a subclass of CustomConfig")
    return found


def _refused(where: str, reason: str) -> ConfigError:
    return ConfigError(f"{where}: {reason}. Otherwise give a folder with your own configs, with --backbones")
