"""Keeping the peak memory of long runs flat."""

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h
_LARGE, _GLIBC_MAXIMUM = 2**20, 2**25  # bytes


@contextmanager
def large_blocks_given_back() -> Iterator[None]:
    """Make glibc return every freed block of 1 MiB or more to the operating system; elsewhere do nothing.

    By default glibc raises that bound to 32 MiB as a program runs, and keeps smaller blocks in its heap.
    Batches of ever-changing shapes then fragment it: the peak of ten times the rows was twice as high.
    Afterwards the bound is 32 MiB: for the small batches of training, asking the system costs too much.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None  # not in musl
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _LARGE)
    try:
        yield
    finally:
        if mallopt is not None:
            mallopt(_M_MMAP_THRESHOLD, _GLIBC_MAXIMUM)
            mallopt(_M_TRIM_THRESHOLD, 2 * _GLIBC_MAXIMUM)
