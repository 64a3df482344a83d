"""SANet: `backbone.py` is the backbone, `blocks.py` its layers."""

from stillwave.pipeline.backbones.sanet.backbone import Sanet, SanetConfig

__all__ = ["Sanet", "SanetConfig"]
