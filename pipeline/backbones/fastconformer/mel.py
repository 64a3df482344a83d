"""The log-mel front end of FastConformer: NeMo's numbers, independent of the batch."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from stillwave.heads.masks import on_host, zero_padding
from stillwave.pipeline.backbones.mel_filters import slaney_filters
from stillwave.pipeline.backbones.numerics import item_moments

LOG_GUARD = 2.0**-24  # added before the logarithm
STD_GUARD = 1e-5  # added to the standard deviation


@dataclass(frozen=True)
class MelSettings:
    """Hz, number of bands, and samples. The defaults are those of every published FastConformer."""

    sample_rate: int = 16000
    num_mels: int = 80
    n_fft: int = 512
    win_length: int = 400
    hop_length: int = 160
    preemphasis: float = 0.97

    def __post_init__(self) -> None:
        if self.win_length > self.n_fft:
            raise ValueError(f"win_length {self.win_length} must be at most n_fft {self.n_fft} samples")


class LogMel(nn.Module):
    """Pre-emphasis, power spectrum of a symmetric Hann window, Slaney mel bands, log, mean 0 and deviation 1.

    Frame t is centred on sample t * hop_length, and the signal is 0 outside the clip. Each band is normalised
    over the item's own valid frames, by the deviation with n - 1, so at least two frames are needed.
    """

    window: Tensor
    filters: Tensor

    def __init__(self, settings: MelSettings) -> None:
        super().__init__()
        self.settings = settings
        window = torch.hann_window(settings.win_length, periodic=False)
        self.register_buffer("window", window, persistent=False)
        self.register_buffer(
            "filters",
            slaney_filters(settings.num_mels, settings.n_fft, settings.sample_rate),
            persistent=False,
        )

    def forward(self, batch: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """(batch, samples), lengths -> (batch, frames, num_mels), 0 past an item's end, and valid frames."""
        settings = self.settings
        num_frames = lengths // settings.hop_length
        # If asking for the longest item would wait for the GPU, use the batch's width.
        longest = int(lengths.max()) if on_host(lengths) else batch.shape[1]
        batch = batch.float()
        batch = torch.cat([batch[:, :1], batch[:, 1:] - settings.preemphasis * batch[:, :-1]], dim=1)
        spectrum = torch.stft(
            zero_padding(batch, lengths),  # or pre-emphasis would carry the last sample into the padding
            settings.n_fft,
            settings.hop_length,
            settings.win_length,
            self.window,
            pad_mode="constant",
            return_complex=True,
        )[..., : longest // settings.hop_length]
        power = spectrum.real.square() + spectrum.imag.square()
        bands = (self.filters @ power + LOG_GUARD).log()
        mean, variance = item_moments(bands, num_frames)
        count = num_frames[:, None, None]
        deviation = (variance * count / (count - 1)).sqrt()
        bands = (bands - mean) / (deviation + STD_GUARD)
        return zero_padding(bands.transpose(1, 2), num_frames), num_frames
