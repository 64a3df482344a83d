"""Config of the log-mel filter bank."""

from typing import Literal

from pydantic import Field, model_validator

from stillwave.pipeline.config.backbones.common import CommonConfig


class FbankConfig(CommonConfig):
    """Log-mel filter bank energies with deltas.

    precision: always fp32. sample_rate: Hz. num_mels: filters.
    window_s, hop_s: seconds that a frame covers, and from one frame to the next.
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
