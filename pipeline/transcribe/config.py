"""What transcribes: the YAMLs in configs/transcribers."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, field_validator

from stillwave.pipeline.config.base import Config


class BaseTranscriberConfig(Config):
    """Fields of every model that transcribes.

    weights: a hub id, a local folder, or `package:name/folder` for a folder in an installed package.
    sha256: of the only weights file; any other file of that name is refused.
    revision: branch, tag or commit of the hub id.
    download: whether the network may be used if the hub id is not in the local cache.
    language: the only language to transcribe, as a code (`de`) or an English name. Rows of another one are
        refused; rows without one are taken to be in it.
    max_bad_fraction: the stage fails if more than this fraction of the rows cannot be transcribed.
    """

    weights: str = Field(min_length=1)
    sha256: str | None = None
    revision: str | None = None
    download: bool = True
    language: str | None = None
    max_bad_fraction: float = Field(0.05, ge=0, le=1)

    local_weights: ClassVar[str] = "a local folder with config.json, model.safetensors and tokenizer.json"

    @field_validator("weights")
    @classmethod
    def _trained(cls, weights: str) -> str:
        if weights == "random":
            raise ValueError("random weights transcribe nothing; name a trained model")
        return weights

    @property
    def source(self) -> str:
        """Where the weights are looked up: a path or a hub id."""
        return self.weights


class WhisperTranscriberConfig(BaseTranscriberConfig):
    """Whisper: a folder of transformers or of faster-whisper, or a hub id.

    An English-only model (tiny.en, base.en, ...) transcribes English alone. A multilingual one is told the
    language of each row; without `language` here or in the row, it detects it.

    lead_s: silence put before each window of audio: without it, Whisper often misses the word with which a
        tightly cut clip begins.
    """

    kind: Literal["whisper"]
    lead_s: float = Field(0.5, ge=0, le=5)


class CtcTranscriberConfig(BaseTranscriberConfig):
    """A model of transformers trained with CTC, such as Wav2Vec2ForCTC: a folder or a hub id.

    It does not say which languages it knows: without `language`, rows of any language are given to it.
    """

    kind: Literal["ctc"]


class NemoTranscriberConfig(BaseTranscriberConfig):
    """A FastConformer of NVIDIA's NeMo, CTC or hybrid: a .nemo file, or a folder or hub id that has one.

    NeMo need not be installed.

    It does not say which languages it knows: without `language`, rows of any language are given to it.
    """

    kind: Literal["nemo"]
    sha256: None = None


TranscriberConfig = Annotated[
    WhisperTranscriberConfig | CtcTranscriberConfig | NemoTranscriberConfig, Field(discriminator="kind")
]
