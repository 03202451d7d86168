"""Runs a compiled function on the threads of torch's OpenMP, each with a share of the units and of the sequences.

Threads of our own would be a second team: those of OpenMP wait actively for some time after each tensor operation, and
would have to be displaced from their cores first. No Python runs in the team, so an exception cannot leave its threads
waiting for each other.
"""

from __future__ import annotations

import ctypes
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from charlstm.model.kernels.native import call

IN_TEAM = "_in_team"
"""Comes after the name of a function that is called on the threads of a team."""


class SharedWork(NamedTuple):
    """What the threads of a team share out."""

    batch: int
    hidden: int
    group: int  # units that are computed together
    matrix_bytes: int


class Team(NamedTuple):
    """The work of a team as its compiled functions read it, and the addresses of functions of an OpenMP runtime."""

    batch: int
    hidden: int
    group: int
    matrix_bytes: int
    threads: int
    run: int
    get_thread: int
    get_threads: int
    barrier: int


class Part(NamedTuple):
    """The share of a thread: its sequences and its units, from the first to the one after the last."""

    first: int
    last: int
    start: int
    end: int
    barrier: int  # address of a function that waits for all threads, or 0


@cache
def find_openmp() -> tuple[int, ...]:
    """Return the addresses for `Team` in the OpenMP runtime of torch; zeros where it has other names.

    The names are those of GCC. LLVM's runtime has them on Linux, too; those of macOS and Windows do not.
    """
    try:
        library = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"))
        names = "GOMP_parallel", "omp_get_thread_num", "omp_get_num_threads", "GOMP_barrier"
        return tuple(ctypes.cast(getattr(library, name), ctypes.c_void_p).value or 0 for name in names)
    except (OSError, AttributeError):
        return (0,) * 4


def run_team(function: str, work: SharedWork, *arrays: Tensor) -> None:
    """Run a function on as many threads as torch uses, with the arrays as its arguments."""
    threads, openmp = torch.get_num_threads(), find_openmp()
    if threads == 1:
        call(function, Part(0, work.batch, 0, work.hidden, 0), arrays)
    elif openmp[0]:
        call(function + IN_TEAM, Team(*work, threads, *openmp), arrays)
    else:
        count = min(threads, work.batch)
        edges = [work.batch * k // count for k in range(count + 1)]
        parts = [Part(first, last, 0, work.hidden, 0) for first, last in pairwise(edges)]
        for task in [thread_pool(threads).submit(call, function, part, arrays) for part in parts]:
            task.result()


@cache
def thread_pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, "charlstm-kernel")
