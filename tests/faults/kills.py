"""kill -9 at random moments of a training, followed by --resume, until the run is finished."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from mmap import mmap
from pathlib import Path
from typing import Any

from charlstm.storage import files, model, run, tensors
from tests.faults.half_writes import HalfWrites
from tests.faults.reference import Reference, check_files


@dataclass
class Kills:
    """The result of the campaign."""

    kills: int = 0
    during_save: int = 0  # of them
    runs: int = 0  # finished

    def __str__(self) -> str:
        kills = f"{self.kills} kills, {self.during_save} of them during a save"
        return f"{kills}; {self.runs} runs finished as if nothing had happened"


def campaign(reference: Reference, kills: int, seed: int = 1) -> Kills:
    """Kill and resume runs until `kills` processes were killed. Raises AssertionError for a damaged file or result."""
    rng, done = random.Random(seed), Kills()
    while done.kills < kills:
        name = f"killed-{done.runs}"
        finish_despite_kills(reference, name, rng, done, slow_saves if done.runs % 2 else mark_saves)
        reference.check_same(name)
        done.runs += 1
    return done


def finish_despite_kills(reference: Reference, name: str, rng: random.Random, done: Kills, fault: Any) -> None:
    """Train one run to its end, killing the process at random moments."""
    saving = mmap(-1, 1)  # shared with the fork: 1 while it saves
    for attempt in count():
        saving[0] = 0
        process = reference.train(name, lambda: fault(saving))
        within = reference.seconds * (1 + attempt / 10)  # the machine may be slower than during the measurement
        if not process.has_ended(rng.uniform(0, within)):
            os.kill(process.pid, signal.SIGKILL)
        outcome = process.result()
        if outcome.code == 0:
            return
        assert outcome.code == -signal.SIGKILL, outcome.err
        done.kills += 1
        done.during_save += saving[0]
        check_files(reference.run(name))


def mark_saves(saving: mmap) -> None:
    """Set `saving` to 1 while a file is written or linked."""
    write_atomically, link_atomically = files.write_atomically, files.link_atomically

    @contextmanager
    def marked() -> Iterator[None]:
        saving[0] = 1
        yield
        saving[0] = 0

    def marked_write(path: Path, *pieces: Any) -> None:
        with marked():
            write_atomically(path, *pieces)

    def marked_link(source: Path, path: Path) -> None:
        with marked():
            link_atomically(source, path)

    for module in (files, tensors, run):
        module.write_atomically = marked_write  # type: ignore[attr-defined]
    run.link_atomically = marked_link  # type: ignore[attr-defined]
    assert model.write_tensors.__globals__["write_atomically"] is marked_write  # type: ignore[attr-defined]


def slow_saves(saving: mmap) -> None:
    """Do the same, and wait between the steps of a save, so that most of the time is spent in one."""
    mark_saves(saving)
    fsync, replace, fdopen = os.fsync, Path.replace, os.fdopen

    def wait() -> None:
        time.sleep(0.001)

    def slow_fsync(handle: int) -> None:
        wait()
        fsync(handle)
        wait()

    def slow_replace(self: Path, target: Path) -> Path:
        wait()
        result = replace(self, target)
        wait()
        return result

    def slow_fdopen(handle: int, mode: str) -> Any:
        file = fdopen(handle, mode, buffering=0)
        return HalfWrites(file, wait)

    os.fsync, Path.replace, os.fdopen = slow_fsync, slow_replace, slow_fdopen  # type: ignore[assignment,method-assign]
