"""Mel filters: sums of a power spectrum over bands that are equally wide to the ear."""

import math

import torch
from torch import Tensor


def slaney_filters(num_mels: int, n_fft: int, sample_rate: int) -> Tensor:
    """(num_mels, n_fft // 2 + 1) float32: triangles in Hz between 0 and half the rate, each of area 1.

    On the mel scale of Slaney's Auditory Toolbox (1998): linear below 1 kHz, logarithmic above.
    """
    nyquist = sample_rate / 2
    step, knee = 200 / 3, 15.0  # Hz per mel below 1 kHz, which is mel 15
    octave = math.log(6.4) / 27
    top = knee + math.log(nyquist / 1000) / octave if nyquist > 1000 else nyquist / step
    mels = torch.linspace(0, top, num_mels + 2, dtype=torch.float64)
    corners = torch.where(mels < knee, mels * step, 1000 * torch.exp((mels - knee) * octave))
    left, centre, right = corners[:-2, None], corners[1:-1, None], corners[2:, None]
    hz = torch.linspace(0, nyquist, n_fft // 2 + 1, dtype=torch.float64)
    triangles = torch.minimum((hz - left) / (centre - left), (right - hz) / (right - centre)).clamp(min=0)
    return (2 * triangles / (right - left)).float()
