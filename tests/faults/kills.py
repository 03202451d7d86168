"""kill -9 at random moments, over and over, in one run after the other."""

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
from tests.faults.halves import Halved
from tests.faults.scene import Scene, check_whole


@dataclass
class Kills:
    """What came of it."""

    kills: int = 0
    inside: int = 0  # of them while something was being saved
    runs: int = 0  # trained to their end in spite of it

    def __str__(self) -> str:
        return f"{self.kills} kills, {self.inside} of them inside a save; {self.runs} runs, all as if nothing had been"


def campaign(scene: Scene, kills: int, seed: int = 1) -> Kills:
    """Kills and resumes until so many kills were survived. Raises AssertionError for a torn file or another end."""
    chance, done = random.Random(seed), Kills()
    while done.kills < kills:
        name = f"killed-{done.runs}"
        survive(scene, name, chance, done, slow_saves if done.runs % 2 else saves_marked)
        scene.check_same(name)
        done.runs += 1
    return done


def survive(scene: Scene, name: str, chance: random.Random, done: Kills, fault: Any) -> None:
    """One run to its end, killed at random moments on the way."""
    saving = mmap(-1, 1)  # memory shared with the fork: whether it is saving
    for attempt in count():
        saving[0] = 0
        process = scene.train(name, lambda: fault(saving))
        within = scene.seconds * (1 + attempt / 10)  # the machine may be slower now than when it was measured
        if not process.ended(chance.uniform(0, within)):
            os.kill(process.pid, signal.SIGKILL)
        ended = process.result()
        if ended.code == 0:
            return
        assert ended.code == -signal.SIGKILL, ended.err
        done.kills += 1
        done.inside += saving[0]
        check_whole(scene.run(name))


def saves_marked(saving: mmap) -> None:
    """Tells by `saving` when something is being written."""
    write_atomically, link_atomically = files.write_atomically, files.link_atomically

    @contextmanager
    def marked() -> Iterator[None]:
        saving[0] = 1
        yield
        saving[0] = 0

    def marked_write(path: Path, *pieces: Any) -> None:
        with marked():
            write_atomically(path, *pieces)

    def marked_link(path: Path, other: Path) -> None:
        with marked():
            link_atomically(path, other)

    for module in (files, tensors, run):
        module.write_atomically = marked_write  # type: ignore[assignment,attr-defined]
    run.link_atomically = marked_link  # type: ignore[assignment,attr-defined]
    assert model.write_tensors.__globals__["write_atomically"] is marked_write  # type: ignore[attr-defined]


def slow_saves(saving: mmap) -> None:
    """The same, with the moments between the steps of a save drawn out: most of the time is now spent inside one."""
    saves_marked(saving)
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
        return Halved(file, wait)

    os.fsync, Path.replace, os.fdopen = slow_fsync, slow_replace, slow_fdopen  # type: ignore[assignment,method-assign]
