"""How many parameters every model has, and the figure in its description.

    python benchmarks/parameters.py

Models are built on torch's meta device, which has shapes but no numbers, so no weights are needed. Buffers,
such as codebooks, standardisation and the running statistics of batch norm, are not parameters. Prints a
Markdown table, and one line of JSON.
"""

import json
import logging
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import nn

from stillwave.heads.fusion import FusionClassifier, OpenMaxClassifier
from stillwave.models.audio_branch import AudioBranch
from stillwave.models.emotion_detection import EmotionDetectionModel
from stillwave.models.personalized_model import PersonalizedModel
from stillwave.models.simple_audio_classifier import SimpleAudioClassifier
from stillwave.models.squeeze_attend_net import SqueezeAttendNet
from stillwave.pipeline.backbones import build_backbone
from stillwave.pipeline.backbones.ast import AstConfig
from stillwave.pipeline.backbones.encodec import EncodecConfig
from stillwave.pipeline.backbones.mbert import MbertConfig
from stillwave.pipeline.backbones.wav2vec2 import Wav2Vec2Config

NOT_STATED = "not stated"
DIMS = {"audio": 768, "text": 768}


class Row(NamedTuple):
    """A model, its parameters as described, how to build it, and why the two figures differ."""

    name: str
    described: str
    build: Callable[[], nn.Module]
    word: str


def branch(num_layers: int, part: str = "") -> Callable[[], nn.Module]:
    """An AudioBranch of 256 dimensions inside, as the described totals assume, or a part of it."""

    def build() -> nn.Module:
        whole = AudioBranch(num_layers=num_layers, d_model=256)
        parts = {"": whole, "encoder": nn.ModuleList([whole.encoder, whole.projection])}
        return parts.get(part, whole.pooling)

    return build


def other_components() -> nn.Module:
    """The fusion head without its deep classifier."""
    head = FusionClassifier(DIMS, 4)
    head.classifier.deep_classifier = nn.Identity()  # type: ignore[assignment]
    return head


def codec() -> EmotionDetectionModel:
    return EmotionDetectionModel(8, EncodecConfig(kind="encodec", weights="random"))


def ast() -> nn.Module:
    with torch.device("cpu"):  # its filter bank reads numbers
        return build_backbone(AstConfig(kind="ast", weights="random", size="base"))


def rows() -> list[Row]:
    """Every described model, and its described parts."""
    wav2vec2 = Wav2Vec2Config(kind="wav2vec2", weights="random", size="base")
    mbert = MbertConfig(kind="mbert", weights="random", size="base")
    inside = "256 dimensions inside, projected to 512; the projection counts as encoder"
    return [
        Row("AudioBranch, 4 layers", "~8M", branch(4), inside),
        Row("- its encoder", "~7.5M", branch(4, "encoder"), "included in ~8M, as described"),
        Row("- its pooling", "~0.5M", branch(4, "pooling"), "as described"),
        Row("AudioBranch, 17 layers", "~30M", branch(17), inside),
        Row("- its encoder", "~28M", branch(17, "encoder"), "as described"),
        Row("- its pooling", "~0.5M", branch(17, "pooling"), "as described"),
        Row(
            "AudioBranch, its defaults",
            NOT_STATED,
            AudioBranch,
            "17 layers with the described default of d_model 512: the ~30M are for 256",
        ),
        Row("wav2vec2-base", "~95M", lambda: build_backbone(wav2vec2), "without its masking vector"),
        Row(
            "mBERT",
            "~110M",
            lambda: build_backbone(mbert),
            "~110M is BERT-base in English; the multilingual vocabulary of 119,547 adds 68M; no pooler",
        ),
        Row(
            "35-layer classifier",
            "~2M",
            lambda: OpenMaxClassifier(512, num_classes=4).deep_classifier,
            "a bottleneck of 44 in each block; without one they would be 19M",
        ),
        Row(
            "other components",
            "~1M",
            other_components,
            "attention both ways in a shared space of 256, two poolings, and gates from 2 x 1,536 to 512",
        ),
        Row(
            "whole multimodal system",
            "~150M",
            lambda: nn.ModuleList(
                [build_backbone(wav2vec2), build_backbone(mbert), FusionClassifier(DIMS, 4)]
            ),
            "the whole multilingual vocabulary; the described parts alone add up to 208M",
        ),
        Row("SqueezeAttendNet, 7 classes", NOT_STATED, lambda: SqueezeAttendNet(7), "512 channels, 8 heads"),
        Row("AST", NOT_STATED, ast, "the published architecture, without its classifier"),
        Row("EmotionDetectionModel", NOT_STATED, codec, "with the encoder, without the decoder"),
        Row("- its EnCodec encoder", NOT_STATED, lambda: codec().encodec, "24 kHz; weight norm folded"),
        Row("- its classifier", NOT_STATED, lambda: codec().classifier, "128, 256, 128, 8, as described"),
        Row(
            "SimpleAudioClassifier, 10 words",
            NOT_STATED,
            lambda: SimpleAudioClassifier(num_classes=10),
            "three convolutions, and a hidden layer on 8 parts of the clip",
        ),
        Row(
            "PersonalizedModel, 10 speakers",
            NOT_STATED,
            lambda: PersonalizedModel(SimpleAudioClassifier(num_classes=10), num_speakers=10),
            "the basic model, 11 vectors of 32, and the layers that fuse them",
        ),
    ]


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def main() -> None:
    logging.disable()  # random weights are logged, and do not matter here
    figures: dict[str, Any] = {}
    print("| model | parameters | described | why they differ |")
    print("|---|---|---|---|")
    model = ""
    for row in rows():
        with torch.device("meta"):
            number = count(row.build())
        model = model if row.name.startswith("- ") else row.name
        figures[row.name if row.name == model else f"{model}, {row.name[2:]}"] = number
        print(f"| {row.name} | {number:,} | {row.described} | {row.word} |")
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
