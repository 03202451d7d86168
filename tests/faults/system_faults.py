"""Faults of the system except kill -9: full and failing disks, read-only folders, signals, clocks, memory."""

from __future__ import annotations

import errno
import os
import resource
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable
from functools import partial
from mmap import mmap
from pathlib import Path
from typing import Any

from charlstm.training.trainer import Trainer
from tests.faults.half_writes import HalfWrites
from tests.faults.reference import Fault, Outcome, Reference, check_files, check_rejected

DISK_ERRORS = (errno.ENOSPC, errno.EIO, errno.EROFS)


def recover(reference: Reference, name: str, fault: Fault, *words: str) -> Outcome:
    """Train with a fault, then resume without. Assert an error with these words, intact files and the same result."""
    outcome = reference.train(name, fault).result()
    if outcome.code:
        check_rejected(outcome, *words)
    check_files(reference.run(name))
    assert not list(reference.run(name).glob(".*.part")), "temporary files are removed"
    reference.finish(name)
    return outcome


def fail_disk(reference: Reference, calls: Iterable[int]) -> int:
    """Make the n-th call that writes fail, for each n. Return how many of the failures ended training."""
    failed = 0
    for n in calls:
        number = DISK_ERRORS[n % len(DISK_ERRORS)]
        outcome = recover(reference, f"failing-{n}", partial(fail_at, n, number), "cannot write")
        failed += outcome.code == 1
    return failed


def count_writing_calls(reference: Reference) -> int:
    """Return the number of calls that write in a run."""
    counted = mmap(-1, 8)
    assert reference.train("counted", lambda: fail_at(-1, 0, counted)).result().code == 0
    return int.from_bytes(counted[:8], "little")


def fail_at(n: int, number: int, counted: mmap | None = None) -> None:
    """Make the n-th call that writes fail with this error number. `counted` receives the number of calls."""
    calls = 0

    def failing(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            nonlocal calls
            calls += 1
            if counted is not None:
                counted[:8] = calls.to_bytes(8, "little")
            if calls == n:
                raise OSError(number, os.strerror(number))
            return real(*arguments, **options)

        return call

    def opening(handle: int, mode: str) -> Any:
        """Return a file whose writes may fail after half of the bytes."""
        file = fdopen(handle, mode)
        return HalfWrites(file, lambda: failing(lambda: None)())

    fdopen = os.fdopen
    os.fdopen = opening  # type: ignore[assignment]
    for module, name in (
        (os, "fsync"),
        (Path, "replace"),
        (Path, "hardlink_to"),
        (Path, "chmod"),
        (tempfile, "mkstemp"),
    ):
        setattr(module, name, failing(getattr(module, name)))
    metrics = Path.open
    Path.open = lambda self, mode="r", *a, **k: (failing(metrics) if "a" in mode else metrics)(self, mode, *a, **k)  # type: ignore[method-assign,assignment]


def limit_file_size(reference: Reference, sizes: Iterable[int]) -> int:
    """Limit the size of files to each of these numbers of bytes. Return how many trainings ended with an error."""
    failed = 0
    for size in sizes:
        fault = partial(resource.setrlimit, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
        outcome = recover(reference, f"limit-{size}", fault)
        failed += outcome.code == 1
    return failed


def fill_disks(reference: Reference, sizes: Iterable[int]) -> int | None:
    """Train on disks of these sizes in kB. Return how many trainings ended with an error; None if mounting fails."""
    failed = 0
    for size in sizes:
        name = f"disk-{size}"
        disk = reference.run(name)
        disk.mkdir()
        if subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={size}k", "none", disk], capture_output=True
        ).returncode:
            disk.rmdir()
            return None
        try:
            outcome = reference.train(name).result()
            if outcome.code:
                check_rejected(outcome, "cannot write", "free disk space")
                failed += 1
            check_files(disk)
            subprocess.run(["mount", "-o", "remount,size=10m", disk], check=True)
            reference.finish(name)
        finally:
            subprocess.run(["umount", disk], check=True)
    return failed


def make_folder_read_only(reference: Reference) -> None:
    """Make the run folder read-only. A process of the superuser is made one of an ordinary user first."""
    name = "read-only"
    first = reference.train(name, stop_in_validation)
    assert first.result().code == 143
    reference.run(name).chmod(0o555)
    check_rejected(reference.train(name, drop_privileges).result(), "cannot write", "Permission denied")
    reference.run(name).chmod(0o755)
    reference.finish(name)


def drop_privileges() -> None:
    if os.geteuid() == 0:
        os.setegid(65534)
        os.seteuid(65534)


def signal_during_validation(reference: Reference) -> None:
    """Send SIGTERM during a validation."""
    outcome = reference.train("signalled", stop_in_validation).result()
    assert outcome.code == 143, outcome.err
    assert "resume with: charlstm train --resume" in outcome.err
    check_files(reference.run("signalled"))
    reference.finish("signalled")


def stop_in_validation() -> None:
    evaluate = Trainer.evaluate_part

    def interrupted(*arguments: Any) -> Any:
        os.kill(os.getpid(), signal.SIGTERM)
        return evaluate(*arguments)

    Trainer.evaluate_part = interrupted  # type: ignore[assignment,method-assign]


def set_clock_back(reference: Reference) -> None:
    """Let the wall clock go back by an hour at every query."""
    now = time.time()

    def back() -> float:
        nonlocal now
        now -= 3600
        return now

    def fault() -> None:
        time.time = back
        time.time_ns = lambda: int(back() * 1e9)

    outcome = recover(reference, "clock", fault)
    assert outcome.code == 0, outcome.err


def limit_memory(folder: Path, text: str) -> Outcome:
    """Train with a batch that does not fit in memory: the error names it, and with more memory training continues."""
    folder.mkdir()
    large = ("--hidden", "64", "--batch-size", "128", "--seq-len", "1024", "--epochs", "1", "--device", "cpu")
    # not warm: this process must not have allocated the memory before it is forked
    reference = Reference(folder, (*large, "--no-samples"), text, warm=False)

    def fault() -> None:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + 100_000_000
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))

    outcome = recover(reference, "little", fault, "not enough memory", "--batch-size (now 128", "--seq-len (now 1024")
    assert outcome.code == 1, outcome.err
    return outcome
