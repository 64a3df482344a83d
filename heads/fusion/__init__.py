"""Speech and text to logits: `head.py` is the head, each other module is one of its parts."""

from stillwave.heads.fusion.attention import CrossModalAttention
from stillwave.heads.fusion.gate import FusionLayer
from stillwave.heads.fusion.head import FusionClassifier
from stillwave.heads.fusion.openmax_classifier import OpenMaxClassifier

__all__ = ["CrossModalAttention", "FusionClassifier", "FusionLayer", "OpenMaxClassifier"]
