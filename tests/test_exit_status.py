"""The exit status of a command that ends with an error."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from charlstm.cli import app
from tests.support.command_line import assert_fails, charlstm


class Exiting:
    """A program that exits with a status, because of an error or without one."""

    def __init__(self, status: int | str | None, cause: Exception | None = None) -> None:
        self.status, self.cause = status, cause

    def main(self, **_: Any) -> int:
        if self.cause is None:
            raise SystemExit(self.status)
        try:
            raise self.cause
        except OSError:
            raise SystemExit(self.status)  # noqa: B904  # as typer does


def test_a_path_that_is_too_long_is_a_usage_error_with_and_without_debug() -> None:
    too_long = "a" * 300
    assert_fails(charlstm("eval", "-m", too_long), 2, too_long, "File name too long")
    debugged = charlstm("eval", "-m", too_long, "--debug")
    assert debugged.code == 2
    assert "Traceback" in debugged.err


@pytest.mark.parametrize(("status", "expected"), [(0, 0), (None, 0), (3, 3), ("message", 1)])
def test_a_command_that_exits_keeps_its_status(
    monkeypatch: pytest.MonkeyPatch, status: int | str | None, expected: int
) -> None:
    monkeypatch.setattr(app, "build_program", lambda: Exiting(status))
    assert charlstm("sample").code == expected


@pytest.mark.parametrize("command", ["show presets", "show cells", "corpus x.txt", "--version", "runs", "plot"])
def test_a_closed_stdout_is_a_failure(run: Path, command: str) -> None:
    Path("x.txt").write_text("some text\n")
    Path("runs").symlink_to(run.parent)
    line = f"{sys.executable} -m charlstm {command} >&-"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "charlstm: cannot write to stdout: Bad file descriptor" in done.stderr


def test_a_closed_pipe_is_a_success(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "build_program", lambda: Exiting(1, BrokenPipeError(32, "Broken pipe")))
    assert charlstm("sample").code == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("serve", "--port", "abc"), "invalid value for '--port': 'abc' is not a whole number"),
        (("serve", "--port", "99999"), "invalid value for '--port': 99999 is not from 0 to 65535"),
        (("fill", "a_", "--seed", "-1"), "invalid value for '--seed' (env var: 'CHARLSTM_SEED'): -1 is less than 0"),
        (("sample", "--temprature", "1"), "no such option: --temprature; did you mean --temperature?"),
        (("sampel",), "no such command 'sampel'; did you mean 'sample'?"),
        (("write", "a", "b"), "unexpected extra argument: b"),
        (("sample", "-m"), "option '-m' requires an argument"),
    ],
)
def test_an_error_on_the_command_line_is_worded_like_every_other(arguments: tuple[str, ...], message: str) -> None:
    result = charlstm(*arguments)
    assert (result.code, result.err) == (2, f"charlstm: {message}\n")
