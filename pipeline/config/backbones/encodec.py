"""Config of EnCodec."""

from typing import Any, Literal

from pydantic import Field, model_validator

from stillwave.pipeline.config.backbones.common import PretrainedConfig

BANDWIDTHS = {"24khz": (1.5, 3.0, 6.0, 12.0, 24.0), "48khz": (3.0, 6.0, 12.0, 24.0)}  # kbps


class EncodecConfig(PretrainedConfig):
    """EnCodec's encoder: the 24 kHz mono or the 48 kHz stereo model.

    model: which of the two. implementation: whose code runs; the frames of the same weights are the same.
    weights: `published` (facebook/encodec_24khz or _48khz of the hub, or the file that the package
        downloads), a local folder of the implementation's own format, a hub id (transformers only), `random`.
    embedding: `encoder`, the frames before the quantizer, or `quantized`, the sum of their codebook entries.
    bandwidth: kbps, so how many codebooks; of `quantized` only.
    """

    kind: Literal["encodec"]
    model: Literal["24khz", "48khz"] = "24khz"
    implementation: Literal["transformers", "encodec"] = "transformers"
    weights: str = Field("published", min_length=1)
    size: Literal["tiny", "base"] = "base"
    layers: Literal["last"] = "last"
    compile: Literal[False] = False  # breaks off at every convolution: minutes, for nothing
    embedding: Literal["encoder", "quantized"] = "encoder"
    bandwidth: float = 6.0

    @model_validator(mode="after")
    def _bandwidth_of_the_model(self) -> "EncodecConfig":
        allowed = BANDWIDTHS[self.model]
        if self.bandwidth not in allowed:
            names = ", ".join(f"{kbps:g}" for kbps in allowed)
            raise ValueError(f"bandwidth {self.bandwidth:g} kbps: model {self.model} has {names}")
        if self.embedding == "quantized" and self.precision != "fp32":
            raise ValueError(
                f"precision {self.precision} with embedding `quantized`: rounding would change which "
                "codebook entry is nearest; use precision fp32, or embedding `encoder`"
            )
        return self

    def fingerprint_fields(self) -> dict[str, Any]:
        unused = {"bandwidth": None} if self.embedding == "encoder" else {}
        return super().fingerprint_fields() | unused
