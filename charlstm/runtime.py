"""How a process that trains uses the machine: how its threads wait for each other, and how it reuses its memory."""

from __future__ import annotations

import ctypes
import os
import sys

SPIN_COUNT = "20000"
"""Iterations of libgomp's waiting loop before a thread sleeps. libgomp's default is 300,000."""

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # malloc.h
INT_MAX = 2**31 - 1


def configure_process() -> None:
    """Configure threads and memory for training. Call it before the first import of torch.

    Commands that train or evaluate call it. The Python API does not: a library leaves the process as it is.
    """
    limit_spinning()
    retain_freed_memory()


def limit_spinning() -> None:
    """Make OpenMP (libgomp) threads that wait for each other sleep after SPIN_COUNT iterations of a busy loop.

    The threads of a recurrent layer synchronize hundreds of times per step. A thread that spins keeps its core busy,
    and other programs then take the core of the thread that is waited for. Does nothing if OMP_WAIT_POLICY or
    GOMP_SPINCOUNT is set.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", SPIN_COUNT)


def retain_freed_memory() -> None:
    """Make glibc keep freed memory for the next allocation.

    By default it returns a block of more than 128 kB to the kernel as soon as it is freed. Every tensor of the next
    step is then mapped and cleared again, page by page, which took a quarter of the time of a step. Does nothing if a
    MALLOC_* variable is set, or with another C library.
    """
    if sys.platform == "linux" and not any(name.startswith("MALLOC_") for name in os.environ):
        libc = ctypes.CDLL(None)
        if hasattr(libc, "mallopt"):
            libc.mallopt(M_MMAP_MAX, 0)
            libc.mallopt(M_TRIM_THRESHOLD, INT_MAX)
