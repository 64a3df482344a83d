"""Drafted configs as YAML with comments, for people to change."""

import json
import re
from typing import Any

import yaml

RECIPE = """\
# Log-mel frames -> convolutions over time -> segment pooling -> classifier; a start that needs no weights.
# On trained frames, which do better on few rows, start from configs/recipes/whisper_statistics.yaml.
backbones: [fbank_static]  # or wav2vec2, ast, encodec_24khz, ...: see docs/backbones.md
label: {label}
# classes: [...]           # null, the default, trains all classes of the corpus
head:
  kind: segment
  channels: 128
  strides: [4, 2, 1]
  encoder_dropout: 0.1
  num_segments: 8
  pooling_type: avg
  dropout: 0.4
augment:                   # random changes to the frames while training; leave out for other backbones
  bands: 80
  stretch: 0.1
  warp: 0.08
  gain: 0.5
  tilt: 0.5
train:
  epochs: {epochs}
  batch_size: 16
  learning_rate: 1.5e-3
  group: {group}
  # valid_fraction: 0.1    # of the training rows, for early stopping, calibration and thresholds
"""


def recipe_yaml(label: str, rows: int, group: str | None) -> str:
    """A recipe for so many rows: fewer epochs for more rows. group: the column that splits keep together."""
    epochs = max(10, min(60, 120_000 // rows))
    return RECIPE.format(label=_flow(label), epochs=epochs, group=_flow(group))


def corpus_yaml(fields: dict[str, Any], comments: dict[str, str]) -> str:
    """`fields` in their order, one per line; `classes: null` is left out."""
    lines = [
        f"{name}: {_flow(value)}" + (f"  # {comments[name]}" if name in comments else "")
        for name, value in fields.items()
        if (name, value) != ("classes", None)
    ]
    first = "# Drafted by `stillwave init`: check what is guessed. Every field: docs/reference/configs.md."
    return "\n".join([first, *lines, ""])


def _flow(value: Any) -> str:
    """A YAML value on one line."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_flow(key)}: {_flow(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_flow, value)) + "]"
    if isinstance(value, str) and re.fullmatch(r"[\w./-]+", value) and yaml.safe_load(value) == value:
        return value
    return json.dumps(value, ensure_ascii=False)
