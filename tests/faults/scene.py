"""A tiny run, and processes that train it: forks of this one, so that torch is imported once for all of them."""

from __future__ import annotations

import io
import json
import os
import resource
import signal
import time
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from charlstm.cli.app import main
from charlstm.console import Console
from charlstm.storage.locate import BEST, CONFIG, GOOD, KEPT_PATTERN, LAST, METRICS, STATE
from charlstm.storage.model import ModelFile
from charlstm.storage.run import RunFolder
from charlstm.storage.state import read_state
from charlstm.storage.tensors import read_tensors
from tests.conftest import ENGLISH

SETTINGS = (
    *("--hidden", "8", "--set", "model.embedding=4", "--batch-size", "4", "--seq-len", "16", "--dropout", "0.2"),
    *("--set", "training.validate_every=10", "--device", "cpu", "--no-samples", "--keep", "2"),
)
LONGEST = 120
"""Seconds after which a process hangs."""

Fault = Callable[[], None]


def nothing() -> None:
    """No fault."""


@dataclass
class Ended:
    """How a process ended."""

    code: int  # minus the signal's number, if one killed it
    err: str


class Process:
    """A fork of this process that runs a command line, after whatever `fault` prepares in it."""

    def __init__(self, arguments: list[str], fault: Fault = nothing) -> None:
        reading, writing = os.pipe()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of threads: they wait for work
            self.pid = os.fork()
        if self.pid == 0:
            os.close(reading)
            self.run(arguments, fault, writing)
        os.close(writing)
        self.reading = reading

    def run(self, arguments: list[str], fault: Fault, writing: int) -> None:
        """In the fork: never comes back."""
        code = 99
        with os.fdopen(writing, "w", encoding="utf-8", closefd=False) as err:
            try:
                resource.setrlimit(resource.RLIMIT_CPU, (LONGEST, LONGEST))
                fault()
                code = main(arguments, Console(None, io.BytesIO(), err, {}))
            except BaseException:
                traceback.print_exc(file=err)
            finally:
                err.flush()
                os._exit(code)

    def ended(self, within: float = LONGEST) -> bool:
        """Whether it ends by itself in so many seconds."""
        deadline = time.monotonic() + within
        while not (done := os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)):
            if time.monotonic() > deadline:
                return False
            time.sleep(0.001)
        return done is not None

    def result(self) -> Ended:
        """Waits for its end."""
        if not self.ended():
            os.kill(self.pid, signal.SIGKILL)
            raise AssertionError("it hangs")
        with os.fdopen(self.reading, encoding="utf-8", errors="replace") as said:
            err = said.read()
        return Ended(os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1]), err)


@dataclass
class Scene:
    """A corpus, the settings of a run on it, and how that run ends if nothing goes wrong."""

    folder: Path
    settings: tuple[str, ...] = (*SETTINGS, "--epochs", "2", "--save-every", "0.03s")
    text: str = ENGLISH[:2500]
    warm: bool = True  # train in this process first: what is imported then, forks need not import
    seconds: float = field(init=False, default=0.0)

    def __post_init__(self) -> None:
        self.folder.chmod(0o755)
        self.corpus.write_text(self.text, "utf-8")
        if self.warm:
            warm_up = ["train", str(self.corpus), "-o", str(self.run("warm")), *self.settings]
            assert main(warm_up, Console(None, io.BytesIO(), io.StringIO(), {})) == 0
        self.seconds = min(map(self.duration, ("again", "whole")))
        self.check_same("again")

    def duration(self, name: str) -> float:
        """Seconds that a run takes to which nothing happens."""
        began = time.monotonic()
        ended = self.train(name).result()
        assert ended.code == 0, ended.err
        return time.monotonic() - began

    @property
    def corpus(self) -> Path:
        return self.folder / "corpus.txt"

    def run(self, name: str) -> Path:
        return self.folder / name

    def train(self, name: str, fault: Fault = nothing) -> Process:
        """Begins the run, or goes on with it if anything was saved."""
        run = self.run(name)
        how = ["--resume"] if (run / STATE).exists() else [str(self.corpus), "--overwrite", *self.settings]
        return Process(["train", "-o", str(run), *how], fault)

    def finish(self, name: str) -> None:
        """Goes on to the end, with nothing going wrong; asserts that it is the end of a run in which nothing did."""
        ended = self.train(name).result()
        assert ended.code == 0, ended.err
        self.check_same(name)

    def check_same(self, name: str) -> None:
        """Asserts that a run ended as the one that nothing happened to: models, state and figures, bit for bit."""
        run, whole = self.run(name), self.run("whole")
        names = sorted(path.name for path in whole.iterdir())
        assert sorted(path.name for path in run.iterdir()) == names
        for file in (BEST, LAST, STATE, GOOD, *(path.name for path in whole.glob(KEPT_PATTERN))):
            ours, theirs = (read_tensors(folder / file)[0] for folder in (run, whole))
            assert ours.keys() == theirs.keys()
            for tensor, value in theirs.items():
                np.testing.assert_array_equal(ours[tensor], value, err_msg=f"{file} {tensor}")
        assert timeless(run) == timeless(whole)


def timeless(run: Path) -> list[dict[str, float]]:
    """The lines of the metrics without what depends on the time."""
    return [
        {key: value for key, value in line.items() if key not in ("seconds", "chars_per_second")}
        for line in RunFolder(run).read_metrics()
    ]


def check_whole(run: Path) -> None:
    """Asserts that no file of a run is torn. Half a last line of metrics is none."""
    if not run.exists():
        return
    for path in (*run.glob(BEST), *run.glob(LAST), *run.glob(KEPT_PATTERN)):
        ModelFile.load(path)
    for path in (*run.glob(STATE), *run.glob(GOOD)):
        read_state(path)
    if (run / CONFIG).exists():
        RunFolder(run).load_config()
    if (run / METRICS).exists():
        lines = (run / METRICS).read_text("utf-8").splitlines(keepends=True)
        assert all(json.loads(line) for line in lines if line.endswith("\n"))


def check_refused(ended: Ended, *words: str) -> None:
    """Asserts an end as a user wants to see it: status 1, one sentence with these words, no traceback."""
    lines = [line for line in ended.err.splitlines() if line.startswith("charlstm: ")]
    assert ended.code == 1, ended
    assert len(lines) == 1, ended.err
    assert "Traceback" not in ended.err
    assert "should not have happened" not in ended.err, ended.err
    assert all(word in lines[0] for word in words), ended.err
