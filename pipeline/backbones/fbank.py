"""Log-mel filter bank energies, and their deltas: a backbone without weights."""

from typing import Any, ClassVar, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from stillwave.heads.devices import send
from stillwave.pipeline.backbones.base import Backbone, Frames
from stillwave.pipeline.backbones.config import BackboneConfig

LOG_FLOOR = 1e-10  # below the quantisation noise of 16-bit audio, so only digital silence reaches it
KALDI_LOG_FLOOR = torch.finfo(torch.float32).eps
PREEMPHASIS = 0.97
DELTA_REACH = 2  # frames on either side of the regression


class FbankConfig(BackboneConfig):
    """Log-mel filter bank energies with deltas.

    precision: always fp32. sample_rate: Hz. num_mels: number of filters.
    window_s: seconds per frame. hop_s: seconds from one frame to the next.
    kaldi: like Kaldi's compute-fbank-feats without dither: 16-bit scale, DC removal, pre-emphasis 0.97,
        Povey window, triangles drawn on the mel scale. Otherwise a plain Hann window on [-1, 1].
    low_hz, high_hz: band limits; null high_hz means half the sample rate.
    deltas: how many orders of time derivatives to append, each `num_mels` wide.
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
        nyquist = self.sample_rate / 2
        if not self.low_hz < self.top_hz <= nyquist:
            raise ValueError(
                f"low_hz {self.low_hz} and high_hz {self.top_hz} must satisfy low_hz < high_hz <= {nyquist} "
                "(half of sample_rate)"
            )
        if round(self.hop_s * self.sample_rate) < 1 or round(self.window_s * self.sample_rate) < 2:
            raise ValueError(
                f"window_s {self.window_s} and hop_s {self.hop_s} must span at least 2 and 1 samples "
                f"at sample_rate {self.sample_rate}"
            )
        return self

    @property
    def top_hz(self) -> float:
        """high_hz, or half the sample rate if it is null."""
        return self.high_hz or self.sample_rate / 2


class Fbank(Backbone):
    """Log-mel energies with delta and delta-delta, (num_mels * (1 + deltas)) per frame.

    Frame t covers samples [t * hop_length, t * hop_length + window_length): only whole windows count
    (Kaldi's snip_edges), so frames never see padding. The Kaldi option follows Kaldi's feature-fbank.cc
    and mel-computations.cc; the plain one is the HTK mel scale on the power spectrum with a Hann window.
    """

    config_type = FbankConfig
    config: FbankConfig
    modality = "audio"
    version = 1
    # For the Kaldi option; a model trained on a variant of it overrides these in a subclass.
    scale: ClassVar[float] = 32768.0  # Kaldi reads 16-bit samples as integers
    hann_power: ClassVar[float] = 0.85  # the Povey window
    empty_filters: ClassVar[bool] = False  # whether a filter may fall between two bins of the FFT
    hop_length: int
    window: Tensor
    filters: Tensor

    def __init__(self, config: FbankConfig) -> None:
        super().__init__()
        self.config = config
        self.sample_rate = config.sample_rate
        self.hop_length = round(config.hop_s * config.sample_rate)
        self.window_length = round(config.window_s * config.sample_rate)
        self.first_centre = self.window_length / 2
        self.fft_length = 1 << (self.window_length - 1).bit_length()
        self.dim = config.num_mels * (1 + config.deltas)
        self.register_buffer(
            "window", _window(self.window_length, config.kaldi, self.hann_power), persistent=False
        )
        self.register_buffer("filters", _mel_filters(config, self.fft_length), persistent=False)
        empty = int((self.filters.amax(0) == 0).sum())
        if empty and not self.empty_filters:
            raise ValueError(
                f"`num_mels` {config.num_mels}: {empty} filters fall between bins of a "
                f"{self.fft_length}-point FFT at {config.sample_rate} Hz; use fewer filters or a longer "
                f"`window_s` (now {config.window_s})"
            )

    def num_frames(self, length: int) -> int:
        return max(0, 1 + (length - self.window_length) // self.hop_length)

    def forward(self, batch: Tensor, lengths: Tensor) -> Frames:
        lengths = send(lengths, batch.device)
        num_frames = (lengths - self.window_length).div(self.hop_length, rounding_mode="floor") + 1
        num_frames = num_frames.clamp(min=0)
        frames = self._log_mel(batch)
        parts = [frames]
        for _ in range(self.config.deltas):
            parts.append(deltas(parts[-1], num_frames))
        return Frames(torch.cat(parts, dim=-1), num_frames)

    def _log_mel(self, batch: Tensor) -> Tensor:
        """(batch, samples) -> (batch, frames, num_mels)."""
        if batch.shape[1] < self.window_length:  # every item is too short
            return batch.new_zeros(len(batch), 0, self.config.num_mels)
        frames = batch.float().unfold(1, self.window_length, self.hop_length)
        if self.config.kaldi:
            frames = frames * self.scale
            frames = frames - frames.mean(-1, keepdim=True)
            previous = torch.cat([frames[..., :1], frames[..., :-1]], dim=-1)
            frames = frames - PREEMPHASIS * previous
        power = torch.fft.rfft(frames * self.window, n=self.fft_length).abs().square()
        energies: Tensor = power @ self.filters
        return energies.clamp(min=KALDI_LOG_FLOOR if self.config.kaldi else LOG_FLOOR).log()

    def fingerprint(self) -> dict[str, Any]:
        sizes = {name: getattr(self, name) for name in ("window_length", "hop_length", "fft_length")}
        return super().fingerprint() | {"preprocessing": sizes}


def deltas(frames: Tensor, lengths: Tensor) -> Tensor:
    """Time derivative by linear regression over five frames, edges held (HTK Book, eq. 5.16).

    frames: (batch, frames, dim); lengths: (batch,) valid frames. Returns the same shape, per frame.
    """
    steps = torch.arange(frames.shape[1], device=frames.device)
    last = (lengths[:, None] - 1).clamp(min=0)

    def shifted(offset: int) -> Tensor:
        index = (steps + offset).clamp(min=0).minimum(last)  # the item's own edge, not the batch's
        return frames.gather(1, index[..., None].expand_as(frames))

    reach = range(1, DELTA_REACH + 1)
    slope = sum((n * (shifted(n) - shifted(-n)) for n in reach), torch.zeros_like(frames))
    return slope / (2 * sum(n * n for n in reach))


def _window(length: int, kaldi: bool, hann_power: float) -> Tensor:
    """(length,) float32: symmetric Hann window to a power (0.85: Kaldi's Povey window), or periodic."""
    window = torch.hann_window(length, periodic=not kaldi, dtype=torch.float64)
    return (window**hann_power if kaldi else window).float()


def _mel_filters(config: FbankConfig, fft_length: int) -> Tensor:
    """(fft_length // 2 + 1, num_mels) float32 triangles of unit height."""
    hz = torch.linspace(0, config.sample_rate / 2, fft_length // 2 + 1, dtype=torch.float64)
    low, high = (_mel(torch.tensor(f, dtype=torch.float64)) for f in (config.low_hz, config.top_hz))
    corners = torch.linspace(float(low), float(high), config.num_mels + 2, dtype=torch.float64)
    # Kaldi draws the triangles on the mel axis and leaves out the Nyquist bin; others draw them in Hz.
    axis, corners = (_mel(hz), corners) if config.kaldi else (hz, 700 * torch.expm1(corners / 1127))
    left, centre, right = corners[:-2], corners[1:-1], corners[2:]
    rising = (axis[:, None] - left) / (centre - left)
    falling = (right - axis[:, None]) / (right - centre)
    filters = torch.minimum(rising, falling).clamp(min=0)
    if config.kaldi:
        filters[-1] = 0
    return filters.float()


def _mel(hz: Tensor) -> Tensor:
    return 1127 * torch.log1p(hz / 700)
