"""The log-mel front end of Whisper: its feature extractor's numbers, for windows of any length."""

import torch
from torch import Tensor, nn

from stillwave.pipeline.backbones.mel_filters import slaney_filters

SAMPLE_RATE, N_FFT, HOP_LENGTH = 16000, 400, 160  # of every Whisper
FLOOR = 1e-10  # of a band's power
DYNAMIC_RANGE = 8.0  # in powers of ten: what is fainter than a window's loudest band by more is cut off


class WhisperMel(nn.Module):
    """Power spectrum of a periodic Hann window, Slaney mel bands, log10, cut 8 below the window's loudest.

    Frame t is centred on sample 160 * t; the window is mirrored at its two ends. As transformers'
    WhisperFeatureExtractor, to 1e-5.
    """

    hann: Tensor
    filters: Tensor

    def __init__(self, num_mels: int) -> None:
        super().__init__()
        self.register_buffer("hann", torch.hann_window(N_FFT), persistent=False)
        self.register_buffer("filters", slaney_filters(num_mels, N_FFT, SAMPLE_RATE), persistent=False)

    def forward(self, windows: Tensor) -> Tensor:
        """(windows, samples), 0 behind what is heard -> (windows, num_mels, samples / 160) fp32."""
        mirrored = nn.functional.pad(windows.float(), (N_FFT // 2, N_FFT // 2), mode="reflect")
        spectrum = torch.stft(
            mirrored, N_FFT, HOP_LENGTH, window=self.hann, center=False, return_complex=True
        )[..., :-1]
        power = spectrum.real.square() + spectrum.imag.square()
        bands = (self.filters @ power).clamp(min=FLOOR).log10()
        loudest = bands.amax((1, 2), keepdim=True)
        return torch.maximum(bands, loudest - DYNAMIC_RANGE) / 4 + 1
