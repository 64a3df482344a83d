"""`pipeline.rapid.RapidTrainer` under the name that its description uses."""

from pipeline.rapid import RapidTrainer

__all__ = ["RapidTrainer"]
