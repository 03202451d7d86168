"""What the tests share: the command line in this process, and one small trained run."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

os.environ["OMP_NUM_THREADS"] = "1"  # small models gain nothing from threads, which wait for each other by spinning

from charlstm.cli.app import main
from charlstm.console import Console

ROOT = Path(__file__).parent.parent
ENGLISH = (ROOT / "corpora" / "english.txt").read_text("utf-8")
SMALL = ("--hidden", "24", "--set", "model.embedding=12", "--batch-size", "4", "--seq-len", "16", "--device", "cpu")
"""Settings that train in a moment."""


@dataclass
class Result:
    code: int
    out: bytes
    err: str

    @property
    def text(self) -> str:
        return self.out.decode()


class Pipe(io.BytesIO):
    """A stand-in for a pipe: something to read, and no terminal."""


class Terminal(io.BytesIO):
    """A stand-in for a terminal at which nobody types."""

    def isatty(self) -> bool:
        return True


def charlstm(*arguments: object, stdin: bytes | None = None, environ: dict[str, str] | None = None) -> Result:
    """Runs a command line in this process. With `stdin` it is piped in; without, stdin is a terminal."""
    source = Terminal() if stdin is None else Pipe(stdin)
    out, err = io.BytesIO(), io.StringIO()
    console = Console(source, out, err, environ or {})
    code = main([str(a) for a in arguments], console)
    return Result(code, out.getvalue(), err.getvalue())


def process(
    *arguments: object,
    stdin: bytes = b"",
    cwd: Path | None = None,
    environ: dict[str, str] | None = None,
    prepare: Callable[[], None] | None = None,
) -> Result:
    """Runs a command line in a process of its own; `prepare` runs in it first."""
    command = [sys.executable, "-m", "charlstm", *map(str, arguments)]
    env = {**os.environ, **(environ or {})}
    done = subprocess.run(command, input=stdin, capture_output=True, cwd=cwd, env=env, preexec_fn=prepare, timeout=120)
    return Result(done.returncode, done.stdout, done.stderr.decode())


def one_sentence(result: Result, code: int, *parts: str) -> None:
    """Asserts a failure as a user wants to see it: the status, one line, these words in it, no traceback."""
    lines = [line for line in result.err.splitlines() if line.startswith("charlstm: ")]
    assert result.code == code, result.err
    assert "Traceback" not in result.err
    assert len(lines) == 1, result.err
    for part in parts:
        assert part in lines[0], result.err


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on some English, trained for a few seconds: `best.safetensors` writes letters and spaces."""
    folder = tmp_path_factory.mktemp("session")
    corpus = folder / "letters.txt"
    corpus.write_text(ENGLISH[:40_000], "utf-8")
    target = folder / "runs" / "letters"
    trained = charlstm(
        "train", corpus, "-o", target, *SMALL, "--hidden", 48, "--epochs", 2, "--set", "training.validate_every=250"
    )
    assert trained.code == 0, trained.err
    return target


WORDS = "the fox and the dog sat on the mat\n"


@pytest.fixture(scope="session")
def both_ways_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bidirectional run that knows one line by heart, forwards and backwards."""
    folder = tmp_path_factory.mktemp("both_ways")
    corpus = folder / "line.txt"
    corpus.write_text(WORDS * 120, "utf-8")
    target = folder / "runs" / "line"
    trained = charlstm(
        "train", corpus, "-o", target, *SMALL, "--bidirectional", "--epochs", 8, "--set", "training.look_ahead=8"
    )
    assert trained.code == 0, trained.err
    return target


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """A text of 4,000 characters."""
    path = tmp_path / "little.txt"
    path.write_text(ENGLISH[:4000], "utf-8")
    return path


@pytest.fixture(autouse=True)
def no_power_cuts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waiting for the disk at every save of every little run would be most of the tests' time."""
    monkeypatch.setattr(os, "fsync", lambda _: None)


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test starts in a folder of its own, with no settings in the environment."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("CHARLSTM_")]:
        monkeypatch.delenv(name)
