"""How the C library gives memory to this process."""

import ctypes
import sys

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Parameters of glibc's mallopt (malloc.h)."""


def keep_freed_memory() -> None:
    """Let this process keep memory that it frees, for the next step, where the C library is glibc.

    Blocks above 128 KiB, such as a layer's output, otherwise go back to the system when they are freed and come again
    as new pages, at each step (bench/choices.py).
    """
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        if hasattr(libc, "mallopt"):
            libc.mallopt(M_MMAP_THRESHOLD, 32 * 2**20)  # the largest that it takes
            libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
