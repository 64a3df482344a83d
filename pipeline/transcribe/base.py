"""The contract of every model that transcribes: one waveform in, its words out."""

from collections.abc import Set
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import nn

from stillwave.pipeline.audio.decode import Waveform
from stillwave.pipeline.backbones.weights import weights_sha256
from stillwave.pipeline.transcribe.config import BaseTranscriberConfig
from stillwave.pipeline.transcribe.languages import language_code


class Transcriber:
    """A trained model on its device, in fp32. It takes one item at a time, so that no text depends on others.

    languages: codes of those it can be given; None if it takes a waveform of any.
    default: the language of rows that say none; None if the model detects it, or does not need it.
    """

    modality: ClassVar[Literal["audio", "text"]] = "audio"
    libraries: tuple[str, ...] = ("torch", "transformers")
    version: ClassVar[int]  # increase it if a code change alters the texts: it is in the fingerprint
    config: BaseTranscriberConfig
    device: torch.device
    model: Any
    sample_rate: int  # Hz
    languages: Set[str] | None
    default: str | None

    def transcribe(self, waveform: Waveform, language: str | None) -> str:
        """The text of (samples,) at `sample_rate`, stripped; empty where nothing is said.

        language: a code in `languages`, or None.
        """
        raise NotImplementedError

    def decoding(self) -> dict[str, Any]:
        """What the texts depend on besides the weights, for the fingerprint."""
        raise NotImplementedError

    def fingerprint(self) -> dict[str, Any]:
        """What the texts depend on, JSON-ready. Hashes the weights at each call."""
        model: nn.Module = self.model
        return {
            "kind": type(self).__name__.lower(),
            "version": self.version,
            "weights": weights_sha256(model),
            "decoding": self.decoding(),
        }


def only_language(config: BaseTranscriberConfig) -> str | None:
    """The code of the config's `language`. ValueError for one that is not known."""
    code = language_code(config.language)
    if config.language is not None and code is None:
        raise ValueError(
            f"`language` {config.language}: not one that Whisper knows; write an ISO 639-1 code, such as de"
        )
    return code


def windows(waveform: Waveform, length: int) -> list[Waveform]:
    """A waveform in the fewest windows of at most `length` samples, about equal: none is a short rest.

    They share nothing, so a word at a border is cut in two.
    """
    return np.array_split(waveform, max(1, -(-len(waveform) // length)))
