"""Configs of the backbones: what turns an utterance into frames, one class per kind."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from pipeline.config.base import Config

Precision = Literal["fp32", "bf16", "fp16"]
Layers = Literal["last", "all"] | Annotated[tuple[int, ...], Field(min_length=1)]


class CommonConfig(Config):
    """Fields of every backbone.

    max_batch_frames: frames per batch, padding included; bounds memory. Numbers change only as far as the
        same item differs between batches: 1e-5 in fp32, more in half precision.
    max_bad_fraction: extraction fails when more than this part of the rows cannot be encoded.
    """

    storage_dtype: Literal["float16", "float32"] = "float16"
    max_batch_frames: int = Field(4000, ge=1)
    max_bad_fraction: float = Field(0.05, ge=0, le=1)

    # Fields that leave the frames as they are, or that the sha256 of the weights stands for.
    not_in_fingerprint: ClassVar[frozenset[str]] = frozenset({"max_batch_frames", "max_bad_fraction"})

    def fingerprint_fields(self) -> dict[str, Any]:
        """The fields that the stored numbers depend on, JSON-ready."""
        return self.model_dump(mode="json", exclude=set(self.not_in_fingerprint))


class FbankConfig(CommonConfig):
    """Log-mel filter bank energies with deltas.

    kaldi: as Kaldi's compute-fbank-feats with no dither: 16-bit scale, dc removal, pre-emphasis 0.97,
        povey window, triangles drawn on the mel scale. Otherwise a plain hann window on [-1, 1].
    low_hz, high_hz: band limits; no high_hz means half the sample rate.
    deltas: orders of time derivative appended, each `num_mels` wide.
    """

    kind: Literal["fbank"]
    precision: Literal["fp32"] = "fp32"  # no matrix product worth speeding up; energies span 10 decades
    sample_rate: int = Field(16000, ge=1000)
    num_mels: int = Field(80, ge=1)
    window_s: float = Field(0.025, gt=0)
    hop_s: float = Field(0.010, gt=0)
    low_hz: float = Field(20.0, ge=0)
    high_hz: float | None = Field(None, gt=0)
    deltas: Literal[0, 1, 2] = 2
    kaldi: bool = False

    @model_validator(mode="after")
    def _band_inside_nyquist(self) -> "FbankConfig":
        high_hz, nyquist = self.high_hz or self.sample_rate / 2, self.sample_rate / 2
        if not self.low_hz < high_hz <= nyquist:
            raise ValueError(
                f"low_hz {self.low_hz} and high_hz {high_hz} must satisfy low_hz < high_hz <= {nyquist} "
                "(half of sample_rate)"
            )
        if round(self.hop_s * self.sample_rate) < 1 or round(self.window_s * self.sample_rate) < 2:
            raise ValueError(
                f"window_s {self.window_s} and hop_s {self.hop_s} must span at least 2 and 1 samples "
                f"at sample_rate {self.sample_rate}"
            )
        return self


class PretrainedConfig(CommonConfig):
    """Fields of a backbone that has weights.

    weights: a hub id, a local folder written by `save_pretrained`, or `random` (seeded, for offline use).
    revision: branch, tag or commit of the hub id.
    download: whether the network may be used when the hub id is not in the local cache.
    layers: `last`, `all`, or indexes; 0 is the input of the first transformer layer, negatives count
        from the end. Several give (frames, layers, dim).
    seed, size: of `random` weights only.
    """

    precision: Precision = "fp32"
    weights: str = Field(min_length=1)
    revision: str | None = None
    download: bool = True
    layers: Layers = "last"
    seed: int = 0

    not_in_fingerprint: ClassVar[frozenset[str]] = CommonConfig.not_in_fingerprint | {
        "weights", "revision", "download", "seed", "size",
    }  # fmt: skip


class Wav2Vec2Config(PretrainedConfig):
    """wav2vec 2.0, with group norm (base) or layer norm (XLS-R and its kin) in the convolutions."""

    kind: Literal["wav2vec2"]
    weights: str = Field("facebook/wav2vec2-base", min_length=1)
    size: Literal["tiny", "base", "large"] = "base"


class MbertConfig(PretrainedConfig):
    """BERT of any language.

    long_text: what becomes of a text of more tokens than the model has positions (512): `truncate` keeps
        [CLS], the first tokens and [SEP], and logs it; `quarantine` makes the row an error with a reason.
    """

    kind: Literal["mbert"]
    weights: str = Field("bert-base-multilingual-cased", min_length=1)
    size: Literal["tiny", "base"] = "base"
    long_text: Literal["truncate", "quarantine"] = "truncate"


BackboneConfig = Annotated[FbankConfig | Wav2Vec2Config | MbertConfig, Field(discriminator="kind")]
