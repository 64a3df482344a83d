"""EnCodec, with two implementations: `backbone.py` is the backbone, the other modules are its parts."""

from stillwave.pipeline.backbones.encodec.backbone import Encodec, EncodecConfig

__all__ = ["Encodec", "EncodecConfig"]
