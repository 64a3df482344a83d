"""EnCodec's encoder over items of unequal length, each padded and normalised as if it were alone.

Values are as long as the longest item; `lengths` are (batch,) int64 on their device, and never waited for.
Values beyond an item's length are unspecified, and have no influence on the item.
"""

from collections.abc import Iterable
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn

from stillwave.heads.devices import send
from stillwave.heads.masks import valid_mask


def cut(batch: Tensor, rows: Tensor, starts: Tensor, lengths: Tensor, longest: int) -> Tensor:
    """(batch, samples, channels) -> (segments, channels, longest), zero beyond each segment's length.

    rows, starts: (segments,) int64, the item of each segment and its first sample.
    """
    places = starts[:, None] + torch.arange(longest, device=batch.device)
    segments = batch[rows[:, None], places.clamp(max=batch.shape[1] - 1)]
    return torch.where(valid_mask(lengths, longest)[..., None], segments, 0).transpose(1, 2)


def item_volumes(segments: Tensor, lengths: Tensor | None) -> Tensor:
    """(segments, channels, samples), zero beyond `lengths` -> (segments, 1, 1), the RMS of the mono mix."""
    energy = segments.mean(1, keepdim=True).square()
    if lengths is None:  # all of it
        return energy.mean(2, keepdim=True).sqrt()
    return (energy.sum(2, keepdim=True) / lengths[:, None, None]).sqrt()


def joined(values: Tensor, segments: Tensor, items: Tensor) -> Tensor:
    """(segments, longest, dim) -> (items, longest, dim): each item's segments' frames, concatenated.

    segments, items: their valid frames, (segments,) and (items,), on the host. Values beyond them are zero.
    """
    before = segments.cumsum(0) - segments
    first = torch.arange(len(segments)) * values.shape[1]
    source = torch.arange(int(segments.sum())) + (first - before).repeat_interleave(segments)
    target = valid_mask(items, int(items.max())).flatten().nonzero()[:, 0]
    source, target = send(torch.stack([source, target]), values.device)
    frames = values.flatten(0, 1)[source]
    whole = frames.new_zeros(len(items) * int(items.max()), frames.shape[1]).index_copy(0, target, frames)
    together: Tensor = whole.unflatten(0, (len(items), -1))
    return together


def take_lengths(layers: Iterable[nn.Module]) -> None:
    """Let an encoder's layers be called with lengths, too: layer(values, lengths) -> values, lengths.

    Values are (batch, channels, time). Layers are still called as modules, because gradient checkpointing and
    hooks depend on it; without lengths they do what they did before.
    """
    for layer in layers:
        layer.forward = MethodType(_forward, layer)  # a method, so that a copy of the layer has its own


def _forward(layer: Any, values: Tensor, lengths: Tensor | None = None) -> Any:
    if lengths is None:
        return type(layer).forward(layer, values)
    if hasattr(layer, "conv"):
        return _convolve(layer, values, lengths)
    if hasattr(layer, "block"):
        around, _ = _forward(layer.shortcut, values, lengths)
        for part in layer.block:
            values, lengths = _forward(part, values, lengths)
        return around + values, lengths
    return type(layer).forward(layer, values), lengths  # an ELU, or an LSTM, which does not see what follows


def _convolve(layer: nn.Module, values: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """A convolution with its padding and its norm, for either implementation's wrapping."""
    conv = next(part for part in layer.modules() if isinstance(part, nn.Conv1d))
    (kernel_size,), (stride,), (dilation,) = conv.kernel_size, conv.stride, conv.dilation
    padding = (kernel_size - 1) * dilation + 1 - stride
    right = 0 if layer.causal else padding // 2
    if padding:
        values = _reflect(values, lengths, padding - right, right, stride)
    values, lengths = conv(values), -(-lengths // stride)
    for norm in (part for part in layer.modules() if isinstance(part, nn.GroupNorm)):  # one, or none
        values = _normalize(norm, values, lengths)
    return values, lengths


def _reflect(values: Tensor, lengths: Tensor, left: int, right: int, stride: int) -> Tensor:
    """Reflect `left` and `right` steps at each item's own ends; on the right, also fill up the last stride.

    As in the models, an item too short for that first gets zeros on its right, until it is one step longer
    than the longer side.
    """
    longest = values.shape[-1]
    width = left + -(-longest // stride) * stride + right
    last = torch.maximum(lengths - 1, right + -lengths % stride).clamp(min=left)[:, None]
    steps = torch.arange(-left, width - left, device=values.device)
    places = (last - (last - steps.abs()).abs()).abs()
    # Invalid steps read from different places, because a GPU adds gradients of the same place one by one.
    index = places.clamp(max=longest - 1)[:, None].expand(-1, values.shape[1], -1)
    return torch.where((places < lengths[:, None])[:, None], values.gather(-1, index), 0)


def _normalize(norm: nn.GroupNorm, values: Tensor, lengths: Tensor) -> Tensor:
    """Group norm of a single group, over each item's valid steps; computed in fp32."""
    valid = valid_mask(lengths, values.shape[-1])[:, None]
    count = values.shape[1] * lengths[:, None, None]
    exact = torch.where(valid, values, 0).float()
    mean = exact.sum((1, 2), keepdim=True) / count
    centred = torch.where(valid, exact - mean, 0)
    scale = (centred.square().sum((1, 2), keepdim=True) / count + norm.eps).rsqrt()
    return (centred * scale * norm.weight[:, None] + norm.bias[:, None]).to(values.dtype)
