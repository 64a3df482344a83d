"""FastConformer, with three implementations: `backbone.py` is the backbone, `conformer.py` our encoder."""

from stillwave.pipeline.backbones.fastconformer.backbone import FastConformer, FastConformerConfig

__all__ = ["FastConformer", "FastConformerConfig"]
