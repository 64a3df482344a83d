"""How many frames fit into a batch, and how to recognise that memory has run out."""

from typing import Literal

import torch

from stillwave.pipeline.backbones import Backbone

# Per thread on a CPU; larger batches are no faster (benchmarks/extract.py --batch-frames).
CPU_BATCH_FRAMES = 500
SMALLEST, LARGEST = 1000, 16_384  # no unit of a store has more
_TRIAL_ROWS, _TRIAL_FRAMES = 4, 128
_SHARE = 0.7  # of the free memory is used: allocators fragment, and attention takes more for longer items

_OUT_OF_MEMORY = (
    "can't allocate memory", "not enough memory", "out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED", "CUFFT_ALLOC_FAILED",
)  # fmt: skip


def batch_frames(
    backbone: Backbone, wanted: int | Literal["auto"], device: torch.device, batches_at_once: int
) -> int:
    """The frame budget of a batch: as configured, or what suits the device.

    On a GPU, two trial batches measure what a frame needs, and the free memory how many fit; the result is a
    power of two times SMALLEST, at most LARGEST, so that slightly more or less free memory does not matter.
    """
    if wanted != "auto":
        return wanted
    if device.type != "cuda":
        return CPU_BATCH_FRAMES
    length = backbone.shortest(_TRIAL_FRAMES)
    _peak_bytes(backbone, 1, length, device)  # libraries allocate at their first call, which no batch needs
    small, large = (_peak_bytes(backbone, rows, length, device) for rows in (_TRIAL_ROWS, 3 * _TRIAL_ROWS))
    per_frame = max(1.0, (large - small) / (2 * _TRIAL_ROWS * backbone.num_frames(length)))
    free, _ = torch.cuda.mem_get_info(device)
    return fitting(free * _SHARE / batches_at_once, per_frame)


def fitting(free_bytes: float, bytes_per_frame: float) -> int:
    """The largest SMALLEST * 2**n frames that fit, within [SMALLEST, LARGEST]."""
    budget = SMALLEST
    while 2 * budget <= LARGEST and 2 * budget * bytes_per_frame <= free_bytes:
        budget *= 2
    return budget


def is_out_of_memory(error: BaseException) -> bool:
    """Whether torch or Python reports that memory has run out; not every part of torch has a type for it."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _OUT_OF_MEMORY)


def _peak_bytes(backbone: Backbone, rows: int, length: int, device: torch.device) -> int:
    """Bytes that a batch of `rows` items of `length` samples or tokens takes at its peak."""
    shape = (rows, length, 2) if backbone.channels == 2 else (rows, length)
    dtype = torch.int64 if backbone.modality == "text" else torch.float32
    torch.cuda.synchronize(device)
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    with torch.inference_mode():
        backbone(torch.zeros(shape, dtype=dtype, device=device), torch.full((rows,), length))
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device) - before
