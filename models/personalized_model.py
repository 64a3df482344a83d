"""`pipeline.word_models.PersonalizedModel` under the name that its description uses."""

from pipeline.word_models import PersonalizedModel

__all__ = ["PersonalizedModel"]
