"""`pipeline.emotion_model` under the name that its description uses."""

from pipeline.emotion_model import EmotionDetectionModel

__all__ = ["EmotionDetectionModel"]
