"""Training-time augmentation of stored frames, driven by an explicit torch.Generator."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from stillwave.heads.bounds import Amount, Fraction, Number
from stillwave.heads.devices import send
from stillwave.heads.masks import on_host, valid_mask, zero_padding


@dataclass(frozen=True, kw_only=True)
class FrameAugment:
    """Random speakers, channels and gaps made from stored frames, without going back to the waveform.

    Every item draws its own numbers; all draws come from the generator, whatever the device of the frames.
    An operation whose amount is 0 is off. Use before standardisation, and only in training.

    stretch: tempo, the time axis resampled by a rate of exp(+-stretch); lengths change accordingly.
    time_masks x time_mask_frames: SpecAugment's time masking (Park et al., Interspeech 2019), each at
        most a fifth of the item; masked values become the item's own mean.

    bands: number of ordered bands in a frame, such as log-mel energies, optionally followed by blocks of them
        for deltas; 0 for learned embeddings, whose dimensions have no order. The operations below need them.
    warp: vocal-tract length, the band axis resampled by a factor of exp(+-warp) (Jaitly & Hinton, 2013).
    gain, tilt: an offset of all bands, and one rising from -tilt to +tilt over them, in the first block.
    band_masks x band_mask_width: SpecAugment's frequency masking, the same bands in every block.
    """

    stretch: Fraction = 0.0
    time_masks: Number = 0
    time_mask_frames: Number = 0
    bands: Number = 0
    warp: Fraction = 0.0
    gain: Amount = 0.0
    tilt: Amount = 0.0
    band_masks: Number = 0
    band_mask_width: Number = 0

    def __post_init__(self) -> None:
        if not self.bands and (self.warp or self.gain or self.tilt or self.band_masks):
            raise ValueError(
                "warp, gain, tilt and band_masks need `bands`, the number of ordered bands in a frame"
            )

    @classmethod
    def check(cls, **options: Any) -> None:
        """ValueError if settings do not fit together."""
        cls(**options)

    def __call__(self, frames: Tensor, lengths: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """(batch, frames, ...), lengths (batch,) -> the same, augmented; the number of frames may change.

        An item of length 0 keeps its length: an absent modality stays absent.
        """
        present, lengths = lengths > 0, lengths.clamp(min=1)
        shape = frames.shape[2:]
        if self.bands and shape[-1] % self.bands:
            raise ValueError(f"frames have {shape[-1]} dimensions, no multiple of bands = {self.bands}")
        # (batch, blocks, frames, bands): without bands, a single block, never warped along its last axis.
        x = zero_padding(frames, lengths)
        x = x.reshape(*x.shape[:2], -1, self.bands or shape.numel()).transpose(1, 2)
        if self.stretch or self.warp:
            x, lengths = self._resample(x, lengths, generator)
        if self.gain or self.tilt:
            slope = torch.linspace(-1, 1, self.bands, device=x.device)
            offset = _uniform(-self.gain, self.gain, len(x), x, generator)
            offset = offset + slope * _uniform(-self.tilt, self.tilt, len(x), x, generator)
            # Constant over time, so deltas, the later blocks, do not see it.
            x = torch.cat([x[:, :1] + offset[:, None, None], x[:, 1:]], 1)
        if self.time_masks or self.band_masks:
            x = self._mask(x, lengths, generator)
        return x.transpose(1, 2).reshape(len(x), -1, *shape), torch.where(present, lengths, 0)

    def _resample(self, x: Tensor, lengths: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Stretch time and warp bands in one bilinear interpolation."""
        _, _, num_frames, num_bands = x.shape
        rate = _uniform(-self.stretch, self.stretch, len(x), x, generator).exp()[:, 0]
        factor = _uniform(-self.warp, self.warp, len(x), x, generator).exp()
        new_lengths = (lengths / rate).round().long().clamp(min=1)
        # An upper bound if asking for the longest item would wait for the GPU.
        most = math.ceil(num_frames * math.exp(self.stretch))
        longest = int(new_lengths.max()) if on_host(new_lengths) else most
        time = torch.arange(longest, device=x.device) + 0.5
        time = time * (lengths / new_lengths)[:, None] - 0.5
        time = torch.minimum(time.clamp(min=0), lengths[:, None] - 1.0)  # so that padding is not read
        band = (torch.arange(num_bands, device=x.device) + 0.5) * factor - 0.5
        # grid_sample's coordinates run from -1 to 1 between the outer edges of the first and last cell.
        grid_time = (2 * time + 1) / num_frames - 1
        grid_band = (2 * band.clamp(0, num_bands - 1) + 1) / num_bands - 1
        size = (len(x), time.shape[1], num_bands)
        grid = torch.stack([grid_band[:, None].expand(size), grid_time[:, :, None].expand(size)], -1)
        x = torch.nn.functional.grid_sample(x, grid.to(x.dtype), padding_mode="border", align_corners=False)
        return x, new_lengths

    def _mask(self, x: Tensor, lengths: Tensor, generator: torch.Generator) -> Tensor:
        """Mask stretches of time and of bands with each item's own mean."""
        num_frames, num_bands = x.shape[2:]
        masked = torch.zeros(len(x), 1, 1, 1, dtype=torch.bool, device=x.device)  # broadcasts
        for _ in range(self.time_masks):
            longest = (lengths[:, None] * 0.2).clamp(max=self.time_mask_frames)
            times = _stretches(longest, lengths[:, None], num_frames, x, generator)
            masked = masked | times[:, None, :, None]
        for _ in range(self.band_masks):
            bands = _stretches(self.band_mask_width, num_bands, num_bands, x, generator)
            masked = masked | bands[:, None, None]
        # A product needs one pass over memory; it is safe, as no frame of x is NaN, not even in the padding.
        valid = valid_mask(lengths, num_frames)[:, None, None].to(x.dtype)
        mean = (valid @ x) / lengths[:, None, None, None]
        return torch.where(masked, mean.to(x.dtype), x)


def _uniform(low: float, high: float, batch: int, like: Tensor, generator: torch.Generator) -> Tensor:
    """(batch, 1) draws, made on the generator's device: a seed gives the same numbers on every device."""
    draw = torch.rand(batch, 1, generator=generator, device=generator.device)
    return send(low + (high - low) * draw, like.device)


def _stretches(
    longest: Tensor | float, span: Tensor | int, size: int, like: Tensor, generator: torch.Generator
) -> Tensor:
    """(batch, size) bool: True on one random stretch per item, up to `longest` wide, inside `span`."""
    width = longest * _uniform(0, 1, len(like), like, generator)
    start = (span - width) * _uniform(0, 1, len(like), like, generator)
    position = torch.arange(size, device=like.device)
    return (position >= start) & (position < start + width)
