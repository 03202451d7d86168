"""`charlstm train --processes` and torchrun: processes that train together, their signals and their failures."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from charlstm.storage.model import ModelFile
from charlstm.storage.run import RunFolder
from charlstm.storage.tensors import read_tensors
from tests.support.command_line import assert_fails, charlstm, run_process
from tests.support.texts import ROOT, SMALL

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")

OPTIONS = (*SMALL, "--batch-size", 8, "--no-samples")
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", 2)


def wait_until(condition: Any, seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it did not happen"
        time.sleep(0.02)


def running() -> list[int]:
    """Return the processes of `charlstm` that were started in this folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            folder, words = (path / "cwd").readlink(), (path / "cmdline").read_bytes().split(b"\0")
        except OSError:  # it has ended
            continue
        if folder == Path.cwd() and b"charlstm" in words:
            found.append(int(path.name))
    return found


class Terminal:
    """A command on a terminal of its own."""

    def __init__(self, *command: object, environ: dict[str, str] | None = None) -> None:
        self.output = b""
        self.pid, self.file = pty.fork()
        if self.pid == 0:
            os.environ.update({"TERM": "dumb", "OMP_NUM_THREADS": "2", **(environ or {})})
            os.execv(str(command[0]), [str(word) for word in command])
        os.set_blocking(self.file, False)

    def read(self) -> str:
        try:
            while chunk := os.read(self.file, 65536):
                self.output += chunk
        except (BlockingIOError, OSError):
            pass
        return self.output.decode()

    def wait_for(self, text: str) -> None:
        wait_until(lambda: text in self.read())

    def press_ctrl_c(self) -> None:
        os.write(self.file, b"\x03")

    def wait(self) -> int:
        status: list[int] = []

        def ended() -> bool:
            self.read()
            pid, code = os.waitpid(self.pid, os.WNOHANG)
            status.append(os.waitstatus_to_exitcode(code))
            return pid != 0

        wait_until(ended)
        self.read()
        os.close(self.file)
        return status[-1]


def command(corpus: Path, *arguments: object) -> list[object]:
    return [sys.executable, "-m", "charlstm", "train", corpus, *OPTIONS, *arguments]


def listening_addresses(pids: list[int]) -> set[str]:
    """Return the addresses at which these processes listen, in the hexadecimal of /proc/net/tcp."""
    inodes = set()
    for pid in pids:
        for link in Path(f"/proc/{pid}/fd").iterdir():
            try:
                inodes |= set(re.findall(r"socket:\[(\d+)\]", str(link.readlink())))
            except OSError:  # closed meanwhile
                continue
    found = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in inodes:
                found.add(fields[1].partition(":")[0])
    return found


LOOPBACK = {"0100007F", "00000000000000000000000001000000", "0000000000000000FFFF00000100007F"}


@pytest.mark.slow
def test_two_processes_train_the_model_of_one_and_listen_on_the_loopback_interface_only(corpus: Path) -> None:
    alone = charlstm("train", corpus, *OPTIONS, "--epochs", 3, "-o", "alone", "--threads", 1)
    assert alone.code == 0, alone.err
    with subprocess.Popen(
        [*map(str, command(corpus, "--epochs", 3, "--processes", 2, "-o", "two"))],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "2"},
    ) as process:
        wait_until(lambda: (Path("two") / "state.safetensors").exists())
        workers = running()
        addresses = listening_addresses(workers)
        out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert out == "two\n"
    assert err.count("model    ") == 1  # one process writes
    assert len(workers) == 3
    assert addresses <= LOOPBACK
    ours, theirs = (read_tensors(Path(name) / "last.safetensors")[0] for name in ("two", "alone"))
    for name, value in theirs.items():
        np.testing.assert_allclose(ours[name], value, rtol=0, atol=1e-4)


@pytest.mark.slow
def test_ctrl_c_saves_a_run_on_two_processes_without_a_traceback(corpus: Path) -> None:
    terminal = Terminal(*command(corpus, "--epochs", 100_000, "--processes", 2, "-o", "run"))
    terminal.wait_for("training on")
    time.sleep(0.3)
    terminal.press_ctrl_c()
    assert terminal.wait() == 130
    assert "stopped at step" in terminal.read()
    assert "Traceback" not in terminal.read()
    wait_until(lambda: not running())
    resumed = charlstm("train", "--resume", "-o", "run", "--epochs", 1)  # on one process
    assert resumed.code == 0, resumed.err


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("--processes", 0), 2, "--processes"),
        (("--processes", 1000), 2, "at most 4 processes for each core"),
        pytest.param(
            ("--processes", 3),
            2,
            "--batch-size 8 cannot be divided evenly among 3 processes; 6 can",
            marks=pytest.mark.long,
        ),
        (("--processes", 2, "--corpus", "x"), 2, "corpus"),
    ],
    ids=str,
)
def test_bad_input_is_one_sentence(corpus: Path, arguments: tuple[object, ...], code: int, message: str) -> None:
    done = run_process("train", corpus, *OPTIONS, *arguments, "-q", "-o", "run", environ={"OMP_NUM_THREADS": "2"})
    assert_fails(done, code, message)
    assert len(done.err.splitlines()) == 1
    assert not running()


@pytest.mark.slow
def test_a_named_pipe_is_read_once(corpus: Path) -> None:
    """As of <(zcat corpus.gz): the processes inherit no other file than stdin."""
    os.mkfifo("pipe")
    with subprocess.Popen(["cp", str(corpus), "pipe"]):
        options = ("--epochs", 1, "--processes", 2, "-o", "run")
        done = run_process("train", "pipe", *OPTIONS, *options, environ={"OMP_NUM_THREADS": "2"})
    assert done.code == 0, done.err
    alone = charlstm("train", corpus, *OPTIONS, "--epochs", 1, "--threads", 1, "-o", "alone")
    assert alone.code == 0, alone.err
    ours, theirs = (ModelFile.load(Path(name) / "last.safetensors").corpus for name in ("run", "alone"))
    assert ours == theirs


@pytest.mark.long
def test_the_text_of_a_pipe_reaches_all_processes(corpus: Path) -> None:
    text = corpus.read_bytes()
    done = run_process("train", "-", *OPTIONS, "--epochs", 1, "--processes", 2, "-o", "run", stdin=text)
    assert done.code == 0, done.err
    alone = charlstm("train", corpus, *OPTIONS, "--epochs", 1, "-o", "alone")
    assert alone.code == 0
    losses = [RunFolder(Path(name)).read_metrics()[-1]["best_validation_loss_nats"] for name in ("run", "alone")]
    assert losses[0] == pytest.approx(losses[1], abs=1e-4)


@pytest.fixture
def environ(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    yield


@pytest.mark.long
@pytest.mark.usefixtures("environ")
def test_a_run_whose_workers_are_killed_ends_with_the_weights_of_an_undisturbed_one(corpus: Path) -> None:
    """Fifty kills: ten at each moment of `MOMENTS`."""
    settings = ("--epochs", 150, "--save-every", "0.1s", "--set", "training.validate_every=40", "-q", "-o")
    arguments = ("train", corpus, *OPTIONS, *settings)
    subprocess.run([*map(str, (*TORCHRUN, "-m", "charlstm", *arguments, "whole"))], check=True, timeout=300)
    killer = ("--max-restarts", 60, "-m", "tests.support.killed_rank", 1, 50, "kills.txt")
    command_line = [*map(str, (*TORCHRUN, *killer, *arguments, "killed"))]
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command_line, env=environ, timeout=1200, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 0, done.stderr
    kills = Counter(Path("kills.txt").read_text().split())
    assert min(kills[moment] for moment in ("start", "rendezvous", "step", "save", "validation")) >= 5, kills
    ours, theirs = (read_tensors(Path(name) / "last.safetensors")[0] for name in ("killed", "whole"))
    for name, value in theirs.items():
        np.testing.assert_array_equal(ours[name], value)


@pytest.mark.long
@pytest.mark.usefixtures("environ")
def test_a_restarted_command_does_not_resume_a_run_that_it_had_not_started(corpus: Path) -> None:
    assert charlstm("train", corpus, *OPTIONS, "--epochs", 1, "-o", "run").code == 0
    before = (Path("run") / "state.safetensors").read_bytes()
    time.sleep(1.1)  # the start of a process is known to a hundredth of a second, that of the system to a second
    arguments = (
        *TORCHRUN,
        "--max-restarts",
        1,
        "-m",
        "charlstm",
        "train",
        corpus,
        *OPTIONS,
        "--epochs",
        9,
        "-o",
        "run",
    )
    done = subprocess.run([*map(str, arguments)], capture_output=True, text=True, timeout=120)
    assert done.returncode != 0
    assert done.stderr.count("charlstm: run already holds a run") == 2
    assert (Path("run") / "state.safetensors").read_bytes() == before


@pytest.mark.long
def test_ctrl_c_saves_a_run_of_torchrun(corpus: Path) -> None:
    arguments = ("-m", "charlstm", "train", corpus, *OPTIONS, "--epochs", 100_000, "-o", "run")
    terminal = Terminal(*TORCHRUN, *arguments, environ={"OMP_NUM_THREADS": "1"})
    terminal.wait_for("training on")
    time.sleep(0.3)
    terminal.press_ctrl_c()
    terminal.wait()  # torchrun writes a traceback of its own
    assert "stopped at step" in terminal.read()
    wait_until(lambda: not running())
    assert RunFolder(Path("run")).load_state()["progress"]["step"] > 0


@pytest.mark.long
def test_no_worker_outlives_its_launcher(corpus: Path) -> None:
    launcher = subprocess.Popen([*map(str, command(corpus, "--epochs", 100_000, "--processes", 2, "-q", "-o", "run"))])
    wait_until(lambda: (Path("run") / "state.safetensors").exists())
    launcher.kill()
    launcher.wait()
    wait_until(lambda: not running())
    assert RunFolder(Path("run")).load_state()["progress"]["step"] >= 0
