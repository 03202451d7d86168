"""A tiny run and the processes that train it: forks of this one, so that torch is imported only once."""

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
from tests.support.texts import ENGLISH

OPTIONS = (
    *("--hidden", "8", "--set", "model.embedding=4", "--batch-size", "4", "--seq-len", "16", "--dropout", "0.2"),
    *("--set", "training.validate_every=10", "--device", "cpu", "--no-samples", "--keep", "2"),
    *("--set", "training.segment_len=64"),  # several segments, in a drawn order
)
MAX_SECONDS = 120
"""A process that takes longer hangs."""

Fault = Callable[[], None]


def no_fault() -> None:
    """No fault."""


@dataclass
class Outcome:
    """Exit status and stderr of a process."""

    code: int  # minus the signal's number, if one killed it
    err: str


class Process:
    """A fork of this process that calls `fault` and then runs a command line."""

    def __init__(self, arguments: list[str], fault: Fault = no_fault) -> None:
        reading, writing = os.pipe()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # about threads, which are idle
            self.pid = os.fork()
        if self.pid == 0:
            os.close(reading)
            self.run(arguments, fault, writing)
        os.close(writing)
        self.reading = reading

    def run(self, arguments: list[str], fault: Fault, writing: int) -> None:
        """Run the command line in the fork and end the process."""
        code = 99
        with os.fdopen(writing, "w", encoding="utf-8", closefd=False) as err:
            try:
                resource.setrlimit(resource.RLIMIT_CPU, (MAX_SECONDS, MAX_SECONDS))
                fault()
                code = main(arguments, Console(None, io.BytesIO(), err, {}))
            except BaseException:
                traceback.print_exc(file=err)
            finally:
                err.flush()
                os._exit(code)

    def has_ended(self, within: float = MAX_SECONDS) -> bool:
        """Return whether the process ends within this time in seconds."""
        deadline = time.monotonic() + within
        while not (done := os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)):
            if time.monotonic() > deadline:
                return False
            time.sleep(0.001)
        return done is not None

    def result(self) -> Outcome:
        """Wait for the process to end."""
        if not self.has_ended():
            os.kill(self.pid, signal.SIGKILL)
            raise AssertionError("the process hangs")
        with os.fdopen(self.reading, encoding="utf-8", errors="replace") as pipe:
            err = pipe.read()
        return Outcome(os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1]), err)


@dataclass
class Reference:
    """A corpus, the settings of a run, and that run without faults, which every run with faults must equal."""

    folder: Path
    settings: tuple[str, ...] = (*OPTIONS, "--epochs", "2", "--save-every", "0.03s")
    text: str = ENGLISH[:2500]
    warm: bool = True  # train in this process first, so that forks import nothing
    seconds: float = field(init=False, default=0.0)

    def __post_init__(self) -> None:
        self.folder.chmod(0o755)
        self.corpus.write_text(self.text, "utf-8")
        if self.warm:
            warm_up = ["train", str(self.corpus), "-o", str(self.run("warm")), *self.settings]
            assert main(warm_up, Console(None, io.BytesIO(), io.StringIO(), {})) == 0
        self.seconds = min(map(self.measure, ("again", "whole")))
        self.check_same("again")

    def measure(self, name: str) -> float:
        """Train a run without faults and return the seconds it takes."""
        started = time.monotonic()
        outcome = self.train(name).result()
        assert outcome.code == 0, outcome.err
        return time.monotonic() - started

    @property
    def corpus(self) -> Path:
        return self.folder / "corpus.txt"

    def run(self, name: str) -> Path:
        return self.folder / name

    def train(self, name: str, fault: Fault = no_fault) -> Process:
        """Start the run, or resume it if it was saved."""
        run = self.run(name)
        how = ["--resume"] if (run / STATE).exists() else [str(self.corpus), "--overwrite", *self.settings]
        return Process(["train", "-o", str(run), *how], fault)

    def finish(self, name: str) -> None:
        """Train to the end without faults and assert the result of a run without faults."""
        outcome = self.train(name).result()
        assert outcome.code == 0, outcome.err
        self.check_same(name)

    def check_same(self, name: str) -> None:
        """Assert that models, state and metrics equal those of the run without faults, bit for bit."""
        run, whole = self.run(name), self.run("whole")
        names = sorted(path.name for path in whole.iterdir())
        assert sorted(path.name for path in run.iterdir()) == names
        for file in (BEST, LAST, STATE, GOOD, *(path.name for path in whole.glob(KEPT_PATTERN))):
            ours, theirs = (read_tensors(folder / file)[0] for folder in (run, whole))
            assert ours.keys() == theirs.keys()
            for tensor, value in theirs.items():
                np.testing.assert_array_equal(ours[tensor], value, err_msg=f"{file} {tensor}")
        assert metrics_without_time(run) == metrics_without_time(whole)


def metrics_without_time(run: Path) -> list[dict[str, float]]:
    """Return the lines of the metrics without the keys that depend on the machine.

    The line of the best model is left out: a run that was killed after its last save does not evaluate it again.
    """
    timed = ("seconds", "training_seconds", "chars_per_second", "memory_bytes")
    return [
        {key: value for key, value in line.items() if key not in timed}
        for line in RunFolder(run).read_metrics()
        if "best_step" not in line
    ]


def check_files(run: Path) -> None:
    """Assert that every file of a run is intact. The last line of the metrics may be cut short."""
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


def check_rejected(outcome: Outcome, *words: str) -> None:
    """Assert exit status 1 and an error of one line with these words, without a traceback."""
    lines = [line for line in outcome.err.splitlines() if line.startswith("charlstm: ")]
    assert outcome.code == 1, outcome
    assert len(lines) == 1, outcome.err
    assert "Traceback" not in outcome.err
    assert "internal error" not in outcome.err, outcome.err
    assert all(word in lines[0] for word in words), outcome.err
