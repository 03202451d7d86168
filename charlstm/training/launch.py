"""Start a command in several processes on this machine, which train together, and wait for them."""

from __future__ import annotations

import logging
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException, start_processes

from charlstm.errors import UsageError
from charlstm.rendezvous import FILE_VARIABLE, START_VARIABLE
from charlstm.runtime import count_cores

MAX_PROCESSES_PER_CORE = 4

WAIT_POLL_SECONDS = 0.1
"""Seconds between two looks at whether the processes have ended."""

SAVING_SECONDS = 600
"""Seconds that the processes have to save after the first signal."""

LOOPBACK = "lo" if sys.platform == "linux" else "lo0"
"""The network interface that only this machine reaches."""


def launch(arguments: Sequence[str], processes: int, threads: int, started_at: float) -> int:
    """Run `charlstm` with these arguments in each of the processes, and return the exit status of the first to fail.

    They meet in a file and communicate over the loopback interface. The first signal is passed on to them, so that the
    run is saved; the second ends them at once. None outlives this process.

    threads: cores for each process; 0 divides those of the machine.
    started_at: the time of `time.monotonic()` at which the command was started.

    Raises UsageError for too many processes.
    """
    cores = count_cores()
    if processes > MAX_PROCESSES_PER_CORE * cores:
        raise UsageError(
            f"--processes {processes} on {cores} cores: at most {MAX_PROCESSES_PER_CORE} processes for each core"
        )
    logging.disable(logging.CRITICAL)  # torch would describe how it ends processes
    with tempfile.TemporaryDirectory(prefix="charlstm-") as folder:
        shared = {
            FILE_VARIABLE: str(Path(folder) / "rendezvous"),
            START_VARIABLE: str(started_at),
            "WORLD_SIZE": str(processes),
            "LOCAL_WORLD_SIZE": str(processes),
            "GLOO_SOCKET_IFNAME": os.environ.get("GLOO_SOCKET_IFNAME", LOOPBACK),
            "OMP_NUM_THREADS": str(threads or max(cores // processes, 1)),
        }
        context = start_processes(
            "charlstm",
            sys.executable,
            args=dict.fromkeys(range(processes), ("-m", "charlstm", *arguments)),
            envs={rank: {**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(processes)},
            logs_specs=DefaultLogsSpecs(log_dir=os.devnull),
        )
        try:
            result = context.wait(period=WAIT_POLL_SECONDS)
        except SignalException as first:
            try:
                context.close(first.sigval, SAVING_SECONDS)
            except SignalException:
                context.close(timeout=0)
            return 128 + first.sigval
    if result is None or not result.is_failed():
        return 0
    status = min(result.failures.values(), key=lambda failure: failure.timestamp).exitcode
    return status if status > 0 else 1
