"""Cached frame embeddings and light heads for speech emotion and audio classification.

The names below are imported when they are first used: `import stillwave` alone loads nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from stillwave.version import VERSION as __version__

if TYPE_CHECKING:
    from stillwave.cache import EmbeddingStore as EmbeddingStore
    from stillwave.pipeline.corpora.manifest import read_manifest as read_manifest
    from stillwave.pipeline.corpora.prepare import prepare as prepare
    from stillwave.pipeline.evaluate.stage import evaluate as evaluate
    from stillwave.pipeline.extract.stage import extract as extract
    from stillwave.pipeline.predict.predictor import Predictor as Predictor
    from stillwave.pipeline.runs.run import Run as Run
    from stillwave.pipeline.train.finetune import finetune as finetune
    from stillwave.pipeline.train.stage import train as train

_PLACES = {
    "EmbeddingStore": "cache",
    "Predictor": "pipeline.predict.predictor",
    "Run": "pipeline.runs.run",
    "evaluate": "pipeline.evaluate.stage",
    "extract": "pipeline.extract.stage",
    "finetune": "pipeline.train.finetune",
    "prepare": "pipeline.corpora.prepare",
    "read_manifest": "pipeline.corpora.manifest",
    "train": "pipeline.train.stage",
}
__all__ = ["__version__", *_PLACES]


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'stillwave' has no attribute {name!r}")
    return getattr(import_module(f"stillwave.{_PLACES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_PLACES})
