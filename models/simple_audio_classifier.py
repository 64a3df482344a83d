"""`pipeline.word_models.SimpleAudioClassifier` under the name that its description uses."""

from pipeline.word_models import SimpleAudioClassifier

__all__ = ["SimpleAudioClassifier"]
