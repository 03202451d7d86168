"""The processor cores and the memory of a process that trains or evaluates."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import cache
from math import ceil
from pathlib import Path

MAX_CORES = 1024
"""Most cores that a run uses."""

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # malloc.h
INT_MAX = 2**31 - 1

PR_SET_PDEATHSIG = 1  # prctl.h

START_FIELD = 19
"""Field of /proc/PID/stat, counted from 0 after the name: the start of the process in ticks since boot (proc(5))."""


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


def end_with_parent() -> None:
    """Ask the kernel for SIGTERM when the process that started this one ends, however it ends. Linux only."""
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        if hasattr(libc, "prctl"):
            libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def parent_started_at() -> float:
    """Return when the process that started this one was started, in seconds since 1970; 0 where that is unknown."""
    if sys.platform != "linux":
        return 0.0
    try:
        fields = Path(f"/proc/{os.getppid()}/stat").read_text("utf-8").rpartition(")")[2].split()
        boot = next(line for line in Path("/proc/stat").read_text("utf-8").splitlines() if line.startswith("btime"))
        ticks = os.sysconf("SC_CLK_TCK")
    except (OSError, StopIteration):
        return 0.0
    return float(boot.split()[1]) + int(fields[START_FIELD]) / ticks


def read_memory(pids: Iterable[int]) -> int:
    """Return the bytes of memory that these processes use; what they share counts once. 0 where that is unknown.

    The kernel walks all pages of a process for it, which takes a millisecond per gigabyte.
    """
    kilobytes = 0
    with suppress(OSError, ValueError):
        for pid in pids:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text("ascii").splitlines()
            kilobytes += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return 1024 * kilobytes


@cache
def list_cores() -> list[set[int]]:
    """Return the physical cores that this process may run on, each as the set of its logical processors."""
    if sys.platform != "linux":
        return [{cpu} for cpu in range(os.cpu_count() or 1)]
    cores: dict[str, set[int]] = {}
    for cpu in sorted(os.sched_getaffinity(0)):
        siblings = str(cpu)
        with suppress(OSError):
            siblings = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list").read_text("ascii")
        cores.setdefault(siblings, set()).add(cpu)
    return list(cores.values())


def bind_to_cores(part: int, parts: int) -> None:
    """Run this process on its part of the cores, if processes that use `count_cores()` cores each need all of them.

    Left alone, the scheduler may run two of them on one core while the others wait. Call it before threads start.
    Linux only.
    """
    cores, own = list_cores(), count_cores()
    if sys.platform == "linux" and part < parts and parts > 1 and own * parts == len(cores):
        os.sched_setaffinity(0, set().union(*cores[part * own : (part + 1) * own]))
        list_cores.cache_clear()


def count_cores() -> int:
    """Return how many cores this process may use: the number in OMP_NUM_THREADS, if set, else the physical cores.

    A limit on the processor time of a container counts; so does the affinity of the process. Two hardware
    threads of one core have one unit for matrix products between them.
    """
    wanted = os.environ.get("OMP_NUM_THREADS", "").split(",")[0]
    if wanted.isdecimal() and int(wanted) > 0:
        return int(wanted)
    limit = find_time_limit()
    return min(len(list_cores()), max(ceil(limit), 1) if limit else MAX_CORES)


def find_time_limit(root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> float | None:
    """Return how many cores the control groups of this process allow (as of a container), or None without a limit."""
    limits = []
    for line in own.read_text("utf-8").splitlines() if own.exists() else ():
        _, controllers, name = line.split(":", 2)
        base = root / controllers if controllers else root  # version 1 has a tree for each controller
        for folder in (base, *(base / part for part in ancestors(name.strip("/")))):
            limits += read_limit(folder)
    return min(limits, default=None)


def ancestors(name: str) -> Iterator[str]:
    """Yield "a", "a/b" and "a/b/c" for "a/b/c"."""
    parts = [part for part in name.split("/") if part]
    for count in range(1, len(parts) + 1):
        yield "/".join(parts[:count])


def read_limit(folder: Path) -> list[float]:
    """Return the limit that a control group sets, as a list of one number, or an empty list."""
    try:
        if (both := folder / "cpu.max").exists():
            quota, period = both.read_text("ascii").split()
        else:
            quota, period = ((folder / f"cpu.cfs_{name}_us").read_text("ascii").strip() for name in ("quota", "period"))
    except (OSError, ValueError):
        return []
    return [] if quota in ("max", "-1") else [int(quota) / int(period)]
