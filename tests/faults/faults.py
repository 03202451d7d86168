"""Everything but kill -9: disks that are full or fail, folders that are read-only, signals, clocks, memory."""

from __future__ import annotations

import errno
import os
import resource
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable
from mmap import mmap
from pathlib import Path
from typing import Any

from charlstm.training import run as training_run
from tests.faults.halves import Halved
from tests.faults.scene import Ended, Fault, Scene, check_refused, check_whole

KINDS = (errno.ENOSPC, errno.EIO, errno.EROFS)


def recover(scene: Scene, name: str, fault: Fault, *words: str) -> Ended:
    """Trains under a fault, and then without; asserts a sentence with these words, whole files and the right end."""
    ended = scene.train(name, fault).result()
    if ended.code:
        check_refused(ended, *words)
    check_whole(scene.run(name))
    assert not list(scene.run(name).glob(".*.part")), "what was begun is removed"
    scene.finish(name)
    return ended


def failing_disk(scene: Scene, calls: Iterable[int]) -> int:
    """The disk fails at the n-th call that writes to it, for each n. Gives the failures that ended a training."""
    failed = 0
    for n in calls:
        number = KINDS[n % len(KINDS)]
        ended = recover(scene, f"failing-{n}", lambda n=n, number=number: fail_at(n, number), "cannot write")
        failed += ended.code == 1
    return failed


def calls_that_write(scene: Scene) -> int:
    """How many there are in a run."""
    counted = mmap(-1, 8)
    assert scene.train("counted", lambda: fail_at(-1, 0, counted)).result().code == 0
    return int.from_bytes(counted[:8], "little")


def fail_at(n: int, number: int, counted: mmap | None = None) -> None:
    """Makes the n-th call that writes fail with this error. `counted` hears how many there have been."""
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
        """A file whose writes may fail, after half of what was to be written."""
        file = fdopen(handle, mode)
        return Halved(file, lambda: failing(lambda: None)())

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


def files_too_large(scene: Scene, sizes: Iterable[int]) -> int:
    """No file may be larger than so many bytes, as on a full disk but by the kernel. Gives the trainings this ended."""
    failed = 0
    for size in sizes:
        limit = (size, resource.RLIM_INFINITY)
        ended = recover(scene, f"limit-{size}", lambda limit=limit: resource.setrlimit(resource.RLIMIT_FSIZE, limit))
        failed += ended.code == 1
    return failed


def full_disks(scene: Scene, sizes: Iterable[int]) -> int | None:
    """Runs on disks of so many kB. Gives the trainings this ended; None where nothing may be mounted here."""
    failed = 0
    for size in sizes:
        name = f"disk-{size}"
        disk = scene.run(name)
        disk.mkdir()
        if subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={size}k", "none", disk], capture_output=True
        ).returncode:
            disk.rmdir()
            return None
        try:
            ended = scene.train(name).result()
            if ended.code:
                check_refused(ended, "cannot write", "free disk space")
                failed += 1
            check_whole(disk)
            subprocess.run(["mount", "-o", "remount,size=10m", disk], check=True)
            scene.finish(name)
        finally:
            subprocess.run(["umount", disk], check=True)
    return failed


def read_only_folder(scene: Scene) -> None:
    """Nothing can be written to the run's folder: the processes of a superuser are made an ordinary user's."""
    name = "read-only"
    first = scene.train(name, stop_in_validation)
    assert first.result().code == 143
    scene.run(name).chmod(0o555)
    check_refused(scene.train(name, ordinary_user).result(), "cannot write", "Permission denied")
    scene.run(name).chmod(0o755)
    scene.finish(name)


def ordinary_user() -> None:
    if os.geteuid() == 0:
        os.setegid(65534)
        os.seteuid(65534)


def signal_in_validation(scene: Scene) -> None:
    """SIGTERM while the validation part is being read."""
    ended = scene.train("signalled", stop_in_validation).result()
    assert ended.code == 143, ended.err
    assert "go on with: charlstm train --resume" in ended.err
    check_whole(scene.run("signalled"))
    scene.finish("signalled")


def stop_in_validation() -> None:
    evaluate = training_run.evaluate

    def interrupted(*arguments: Any) -> Any:
        os.kill(os.getpid(), signal.SIGTERM)
        return evaluate(*arguments)

    training_run.evaluate = interrupted


def clock_set_back(scene: Scene) -> None:
    """The wall clock goes back by an hour whenever somebody looks."""
    now = time.time()

    def back() -> float:
        nonlocal now
        now -= 3600
        return now

    def fault() -> None:
        time.time = back
        time.time_ns = lambda: int(back() * 1e9)

    ended = recover(scene, "clock", fault)
    assert ended.code == 0, ended.err


def too_little_memory(folder: Path, text: str) -> Ended:
    """A batch for which the process may not have the memory: it is named, and with more memory training goes on."""
    folder.mkdir()
    large = ("--hidden", "64", "--batch-size", "128", "--seq-len", "1024", "--epochs", "1", "--device", "cpu")
    scene = Scene(folder, (*large, "--no-samples"), text, warm=False)  # this process must not have had the memory

    def fault() -> None:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        room = pages * resource.getpagesize() + 100_000_000
        resource.setrlimit(resource.RLIMIT_AS, (room, room))

    ended = recover(scene, "little", fault, "not enough memory", "--batch-size (128", "--seq-len (1024")
    assert ended.code == 1, ended.err
    return ended
