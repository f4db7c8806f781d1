"""Settings of the C library's memory allocator."""

import ctypes
import sys

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Parameters of glibc's mallopt (malloc.h)."""


def keep_freed_memory() -> None:
    """Make glibc keep freed memory for the next step instead of returning it to the system.

    By default it returns blocks above 128 KiB, such as a layer's output, and every step faults in new pages
    (measured in bench/choices.py). Does nothing with another C library.
    """
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        if hasattr(libc, "mallopt"):
            libc.mallopt(M_MMAP_THRESHOLD, 32 * 2**20)  # the largest value it accepts
            libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
