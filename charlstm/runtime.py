"""How a process that trains uses the machine: how its threads wait for each other, and how it keeps its memory."""

from __future__ import annotations

import ctypes
import os
import sys

SPIN_COUNT = "20000"
"""Turns of libgomp's waiting loop, less than a millisecond or so: longer than the gap between two operations of one
step, shorter than another program's turn on the core."""

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # malloc.h
INT_MAX = 2**31 - 1


def configure_process() -> None:
    """To be called before torch is first imported, by programs that train or evaluate; a library leaves that alone."""
    limit_spinning()
    retain_freed_memory()


def limit_spinning() -> None:
    """Makes a thread that waits give up its core soon.

    A recurrent layer lets its threads meet hundreds of times a step. By default OpenMP (libgomp) has them spin, for
    300,000 turns, and as soon as any other program wants a core, the thread that is waited for is the one not
    running: on 2 cores, training beside one busy program fell from 33,000 characters/s to 700. Who sets
    OMP_WAIT_POLICY or GOMP_SPINCOUNT is left alone.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", SPIN_COUNT)


def retain_freed_memory() -> None:
    """Makes the next step reuse the memory of the last one.

    glibc hands a block of more than 128 kB back to the kernel as soon as it is freed, and every tensor of the next
    step is then cleared and mapped anew, page by page: a quarter of the time of a step. Who sets MALLOC_* is
    left alone.
    """
    if sys.platform == "linux" and not any(name.startswith("MALLOC_") for name in os.environ):
        libc = ctypes.CDLL(None)
        if hasattr(libc, "mallopt"):  # not in every C library
            libc.mallopt(M_MMAP_MAX, 0)
            libc.mallopt(M_TRIM_THRESHOLD, INT_MAX)
