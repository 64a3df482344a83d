"""Statistics over valid samples and arithmetic precision, shared by the backbones."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from stillwave.heads.masks import on_host, valid_mask

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def item_moments(values: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and population variance over each item's own length, in fp32, ignoring padding.

    values: (batch, [channels,] time). Returns two tensors of the same shape with time 1. Computed item by
    item, because that is one pass over the memory, with exactly the sums that a single item would get. On a
    GPU and in an exported graph it is one expression, which needs no lengths on the host.
    """
    if not on_host(values):
        return _masked_moments(values.float(), lengths)
    rows = zip(values, lengths.tolist(), strict=True)
    moments = [torch.var_mean(row[..., :n].float(), dim=-1, correction=0, keepdim=True) for row, n in rows]
    variance, mean = (torch.stack(parts) for parts in zip(*moments, strict=True))
    return mean, variance


def _masked_moments(values: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """`item_moments` without a loop."""
    mask, count = valid_mask(lengths, values.shape[-1]), lengths[:, None]
    if values.ndim == 3:
        mask, count = mask[:, None], count[:, None]
    mean = torch.where(mask, values, 0).sum(-1, keepdim=True) / count
    centred = torch.where(mask, values - mean, 0)
    return mean, centred.square().sum(-1, keepdim=True) / count


@contextmanager
def compute_in(precision: str, device: torch.device) -> Iterator[None]:
    """Run the block in `precision`: fp32 | bf16 | fp16, whatever an outer autocast says.

    Half precisions use autocast, so weights stay fp32. On CUDA, fp32 turns off TF32 convolutions (torch has
    them on): with its 10-bit mantissa and algorithms chosen by batch shape, results would depend on the
    batch.
    """
    dtype = _DTYPES[precision]
    with ExitStack() as stack:
        if precision == "fp32" and device.type == "cuda":
            stack.enter_context(torch.backends.cudnn.flags(enabled=True, allow_tf32=False))
        if torch.amp.is_autocast_available(device.type):  # torch's meta device has none
            stack.enter_context(torch.autocast(device.type, dtype=dtype, enabled=precision != "fp32"))
        yield


@contextmanager
def one_thread() -> Iterator[None]:
    """Sums in the block have a fixed order: their last bits do not depend on the number of threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def hold_weights(module: nn.Module, precision: str, keep: Sequence[nn.Module] = ()) -> None:
    """Keep the weights of a frozen module's matrix products and convolutions in `precision`, permanently.

    Autocast gives the same frames, but casts every weight again for every batch: a tenth of the time of
    wav2vec2-base on a CPU. Weight norms are folded for the same reason. Norms and embeddings stay fp32. Take
    the fingerprint first: it covers the weights as loaded. keep: parts to leave unchanged.
    """
    for part in module.modules():
        if isinstance(part, nn.Linear | nn.Conv1d | nn.Conv2d) and part not in keep:
            if parametrize.is_parametrized(part, "weight"):
                with one_thread():
                    parametrize.remove_parametrizations(part, "weight")
            part.to(_DTYPES[precision])
