"""Band-pass filters: where the first convolution over samples may start, instead of at noise."""

import math

import torch
from torch import Tensor

LOWEST_HZ = 60.0
HIGHEST = 0.95  # of the half of the sample rate, where the highest band ends


def band_filters(count: int, kernel_size: int, sample_rate: int) -> Tensor:
    """(count, kernel_size): windowed cosines, one per band, of random phase and unit energy.

    Centres are equally far apart on the mel scale (2595 log10(1 + f / 700)); a band is as wide as its
    neighbours are far, but no narrower than the kernel allows. The windows are Gaussian, the filters those of
    Gabor, as learnable front ends start (Zeghidour et al., "LEAF", ICLR 2021). Phases are torch's draws.
    """
    low, high = (2595 * math.log10(1 + hz / 700) for hz in (LOWEST_HZ, HIGHEST * sample_rate / 2))
    edges = 700 * (10 ** (torch.linspace(low, high, count + 2, dtype=torch.float64) / 2595) - 1)
    width = ((edges[2:] - edges[:-2]) / 2).clamp(min=sample_rate / kernel_size)
    time = (torch.arange(kernel_size, dtype=torch.float64) - (kernel_size - 1) / 2) / sample_rate
    deviation = 1.6 / (2 * math.pi * width)  # in seconds; so that neighbours overlap
    phase = 2 * math.pi * torch.rand(count, dtype=torch.float64)
    window = torch.exp(-0.5 * (time / deviation[:, None]) ** 2)
    filters: Tensor = window * torch.cos(2 * math.pi * edges[1:-1, None] * time + phase[:, None])
    filters = filters / filters.norm(dim=1, keepdim=True)
    return filters.float()
