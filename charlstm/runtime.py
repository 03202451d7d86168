"""How a process that trains reuses its memory. `workers.py` has how it uses the cores of the processor."""

from __future__ import annotations

import ctypes
import os
import sys

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # malloc.h
INT_MAX = 2**31 - 1


def retain_freed_memory() -> None:
    """Make glibc keep freed memory for the next allocation. Call it before the first import of torch.

    Commands that train or evaluate call it. The Python API does not: a library leaves the process as it is.

    By default it returns a block of more than 128 kB to the kernel as soon as it is freed. Every tensor of the next
    step is then mapped and cleared again, page by page, which took a quarter of the time of a step. Does nothing if a
    MALLOC_* variable is set, or with another C library.
    """
    if sys.platform == "linux" and not any(name.startswith("MALLOC_") for name in os.environ):
        libc = ctypes.CDLL(None)
        if hasattr(libc, "mallopt"):
            libc.mallopt(M_MMAP_MAX, 0)
            libc.mallopt(M_TRIM_THRESHOLD, INT_MAX)
