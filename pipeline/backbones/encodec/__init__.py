"""EnCodec, by two implementations: `backbone.py` is the backbone, the rest what it is made of."""

from stillwave.pipeline.backbones.encodec.backbone import Encodec, EncodecConfig

__all__ = ["Encodec", "EncodecConfig"]
