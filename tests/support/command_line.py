"""The command line, in this process or in one of its own."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from charlstm.cli.app import main
from charlstm.console import Console


@dataclass
class Result:
    """Exit code and output of a command."""

    code: int
    out: bytes
    err: str

    @property
    def text(self) -> str:
        return self.out.decode()


class Pipe(io.BytesIO):
    """A stand-in for a pipe."""


class Terminal(io.BytesIO):
    """A stand-in for a terminal without input."""

    def isatty(self) -> bool:
        return True


def charlstm(*arguments: object, stdin: bytes | None = None, environ: dict[str, str] | None = None) -> Result:
    """Run a command line in this process. `stdin` is piped in; if it is None, stdin is a terminal."""
    source = Terminal() if stdin is None else Pipe(stdin)
    out, err = io.BytesIO(), io.StringIO()
    console = Console(source, out, err, environ or {})
    code = main([str(a) for a in arguments], console)
    return Result(code, out.getvalue(), err.getvalue())


def run_process(
    *arguments: object,
    stdin: bytes = b"",
    cwd: Path | None = None,
    environ: dict[str, str] | None = None,
    prepare: Callable[[], None] | None = None,
) -> Result:
    """Run a command line in a process of its own, after `prepare` in the same process."""
    command = [sys.executable, "-m", "charlstm", *map(str, arguments)]
    env = {**os.environ, **(environ or {})}
    done = subprocess.run(command, input=stdin, capture_output=True, cwd=cwd, env=env, preexec_fn=prepare, timeout=120)
    return Result(done.returncode, done.stdout, done.stderr.decode())


def assert_fails(result: Result, code: int, *parts: str) -> None:
    """Assert that a command failed with this exit code and one sentence that contains `parts`, without a traceback."""
    lines = [line for line in result.err.splitlines() if line.startswith("charlstm: ")]
    assert result.code == code, result.err
    assert "Traceback" not in result.err
    assert len(lines) == 1, result.err
    for part in parts:
        assert part in lines[0], result.err
