"""Keeping the peak memory of long runs flat."""

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h
_LARGE, _GLIBC_MAXIMUM = 2**20, 2**25  # bytes


@contextmanager
def flat_memory() -> Iterator[None]:
    """Keep many batches of changing shapes from accumulating memory on the CPU.

    glibc returns every freed block of 1 MiB or more to the operating system. By default it raises that bound
    to 32 MiB as a program runs and keeps smaller blocks in its heap, which such batches fragment: with ten
    times the rows, the peak was twice as high. Afterwards the bound is 32 MiB, because for training's small
    batches asking the system costs too much. On systems without glibc nothing is changed.

    oneDNN keeps 128 compiled kernels, and each computing thread keeps 32, not 1,024. The settings are read
    once, at their first use.
    """
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "128")
    os.environ.setdefault("LRU_CACHE_CAPACITY", "32")
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None  # not in musl
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _LARGE)
    try:
        yield
    finally:
        if mallopt is not None:
            mallopt(_M_MMAP_THRESHOLD, _GLIBC_MAXIMUM)
            mallopt(_M_TRIM_THRESHOLD, 2 * _GLIBC_MAXIMUM)
