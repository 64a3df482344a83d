"""Keeping the peak memory of long runs flat."""

import ctypes
import sys

_M_MMAP_THRESHOLD = -3  # malloc.h
_LARGE = 2**20  # bytes


def give_back_large_blocks() -> None:
    """Make glibc return every freed block of 1 MiB or more to the operating system; elsewhere do nothing.

    By default glibc raises that bound to 32 MiB as a program runs, and keeps smaller blocks in its heap.
    Batches of ever-changing shapes then fragment it: the peak of ten times the rows was twice as high.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # not in musl
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _LARGE)
