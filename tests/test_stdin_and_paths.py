"""Empty paths, unread input and terminals without a width: mistakes that a script does not notice."""

from __future__ import annotations

import fcntl
import os
import pty
import socket
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import charlstm as package
from charlstm.errors import UsageError
from tests.support.command_line import assert_fails, charlstm, run_process
from tests.support.texts import ENGLISH, SMALL
from tests.test_help import COMMANDS

NOT_PATHS = (
    "TEXT",
    "NAME",
    "N",
    "X",
    "K",
    "PATTERN",
    "TIME",
    "SHARE",
    "CHARACTER",
    "CELL",
    "A,B",
    "A..B",
    "A:B",
    "REGEX",
    "UNIT",
    "SECTION.KEY",
    "URL",
    "SPDX",
    "HOST",
)
"""How the metavars of parameters begin that are no paths. Those of all others are paths, also of options to come."""


def path_parameters() -> Iterator[tuple[str, list[str]]]:
    """Yield each command with each of its path parameters, and an empty value for it."""
    for name, command in COMMANDS.items():
        for param in command.params:
            metavar: Any = param.metavar or ""
            plain = metavar.lstrip("[")
            if not plain or getattr(param, "is_flag", False) or "|" in plain:
                continue
            if plain.startswith("NAME=]") or not plain.removesuffix("]").split(" ")[0].startswith(NOT_PATHS):
                is_argument = param.param_type_name == "argument"
                yield name, [""] if is_argument else [max(param.opts, key=len), ""]


PATHS = list(path_parameters())


def test_every_command_that_reads_or_writes_files_has_path_parameters() -> None:
    reading = {"train", "tune", "corpus", "eval", "score", "inspect", "export", "runs", "plot"}
    assert {name for name, _ in PATHS} == reading | {"sample", "fill", "write", "serve"}
    assert len(PATHS) >= 16


@pytest.mark.parametrize(("name", "value"), PATHS, ids=lambda part: part if isinstance(part, str) else "".join(part))
def test_an_empty_path_is_a_usage_error_for_every_parameter(name: str, value: list[str]) -> None:
    Path("a.txt").write_text(ENGLISH[:4000])
    required = ["a.txt"] if name == "corpus" and value != [""] else []
    assert_fails(charlstm(*name.split(), *required, *value), 2, "a path must not be empty", "unset")
    assert list(Path().iterdir()) == [Path("a.txt")]


def test_an_empty_path_in_a_list_a_setting_or_a_variable_is_a_usage_error(run: Path) -> None:
    Path("a.txt").write_text("A")
    Path("my.toml").write_text('[data]\ncorpus = ["a.txt", ""]\n')
    assert_fails(charlstm("corpus", "a.txt", ""), 2, "a path must not be empty")
    assert_fails(charlstm("score", "-m", "one=", "-m", f"two={run}", "a.txt"), 2, "one=", "must not be empty")
    assert_fails(charlstm("train", "--config", "my.toml"), 2, "my.toml: data.corpus", "not empty")
    assert_fails(charlstm("train", "--set", "data.corpus="), 2, "--set data.corpus", "not empty")
    assert_fails(charlstm("eval", environ={"CHARLSTM_MODEL": ""}), 2, "CHARLSTM_MODEL must not be empty")
    cache = run_process("show", "cache", environ={"CHARLSTM_CACHE": ""})
    assert_fails(cache, 2, "CHARLSTM_CACHE must not be empty")


def test_an_empty_path_is_an_error_in_the_python_interface(run: Path, corpus: Path) -> None:
    for call in (
        lambda: package.load(""),
        lambda: package.train(""),
        lambda: package.train([str(corpus), ""]),
        lambda: package.train(corpus, folder=""),
        lambda: package.train(corpus, init_from=""),
        lambda: package.evaluate("", "text"),
    ):
        with pytest.raises(UsageError, match="must not be empty"):
            call()


def test_a_corpus_can_be_named_by_a_setting(corpus: Path) -> None:
    for command in ("train", "tune"):
        named = charlstm(command, "--set", f"data.corpus={corpus.name},gone.txt")
        assert_fails(named, 2, "corpus not found", "gone.txt")


@pytest.mark.parametrize("command", ["train", "tune", "eval"])
@pytest.mark.parametrize("kind", ["pipe", "late pipe", "file", "socket"])
def test_input_that_would_not_be_read_is_a_usage_error(command: str, kind: str, run: Path) -> None:
    Path("mine.txt").write_text(ENGLISH[:4000])
    asked = f"{sys.executable} -m charlstm {command} -q {f'-m {run}' if command == 'eval' else ''}"
    source = {"pipe": "cat mine.txt |", "late pipe": "(sleep 0.4; cat mine.txt) |", "file": "< mine.txt", "socket": ""}
    near, far = socket.socketpair()
    with near, far:
        far.sendall(b"some text")
        typed = ["bash", "-c", f"{source[kind]} {asked}"]
        done = subprocess.run(typed, stdin=near.fileno(), capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("charlstm: something is piped in, and no file is named; - reads stdin")
    assert not Path("runs").exists()


def test_a_corpus_that_was_forgotten_gets_a_hint_about_the_dash() -> None:
    assert_fails(charlstm("corpus", stdin=b"text"), 2, "missing argument", "- reads stdin")


@pytest.mark.parametrize("source", ["< /dev/null", "<&-", "< empty", ": |", "sleep 1.5 |"])
def test_a_script_without_input_trains_on_the_bundled_text(source: str) -> None:
    Path("empty").touch()
    before, after = ("", source) if source[0] == "<" else (source, "")
    command = f"{before} {sys.executable} -m charlstm train --dry-run {after}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "english.txt" in done.stdout


def test_input_is_ignored_where_the_text_is_named(run: Path, corpus: Path) -> None:
    for command in (("eval", "-m", run, "--part", "val"), ("eval", "-m", run, corpus), ("train", corpus, "--dry-run")):
        assert charlstm(*command, stdin=b"other text").code == 0


@pytest.mark.parametrize("redirection", ["{} < list", "cat list | {}"])
def test_looking_for_input_does_not_read_it(redirection: str) -> None:
    Path("list").write_text("one\ntwo\n")
    code = "from charlstm.console import Console; print(Console.from_process().has_input())"
    command = ["bash", "-c", redirection.format(f"({sys.executable} -c '{code}'; cat)")]
    looked = subprocess.run(command, capture_output=True)
    assert looked.stdout == b"True\none\ntwo\n"


def show_on_terminal(columns: int, environ: dict[str, str], *arguments: object) -> str:
    """Return what a command prints on a terminal that reports this many columns."""
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 0, columns, 0, 0))
    command = [sys.executable, "-m", "charlstm", *map(str, arguments)]
    env = {name: value for name, value in os.environ.items() if name != "COLUMNS"} | environ
    child = subprocess.Popen(command, stdin=follower, stdout=follower, stderr=follower, env=env)
    os.close(follower)
    shown = b""
    while chunk := read_terminal(leader):
        shown += chunk
    assert child.wait() == 0
    os.close(leader)
    return shown.decode()


def read_terminal(leader: int) -> bytes:
    try:
        return os.read(leader, 1 << 16)
    except OSError:  # Linux reports the end of a terminal as an error
        return b""


@pytest.mark.parametrize(
    ("columns", "environ"),
    [(0, {}), (80, {"COLUMNS": "0"}), (80, {"COLUMNS": "1"}), (80, {"COLUMNS": "-5"}), (80, {"COLUMNS": "9" * 5000})],
)
def test_a_terminal_without_a_usable_width_gets_the_whole_output(columns: int, environ: dict[str, str]) -> None:
    Path("a.txt").write_text(ENGLISH[:4000])
    assert "distinct" in show_on_terminal(columns, environ, "corpus", "a.txt")
    assert "Train a model on text." in show_on_terminal(columns, environ, "-h")


@pytest.mark.slow
def test_metrics_are_printed_on_a_terminal_of_width_0(run: Path) -> None:
    assert "perplexity" in show_on_terminal(0, {"COLUMNS": "0"}, "eval", "-m", run)


@pytest.mark.parametrize("name", ["state.safetensors", "good.safetensors"])
def test_the_training_state_in_place_of_a_model_is_named_with_the_model(name: str, corpus: Path) -> None:
    assert charlstm("train", corpus, *SMALL, "--epochs", 1, "-o", "r").code == 0
    Path("r/good.safetensors").write_bytes(Path("r/state.safetensors").read_bytes())
    for command in (("sample", "-m"), ("eval", "-m"), ("score", corpus, "-m"), ("train", corpus, "--init-from")):
        failed = charlstm(*command, f"r/{name}")
        assert_fails(failed, 1, f"r/{name} is a training state", "the model is r/best.safetensors")
        assert "newer" not in failed.err
    Path("alone").mkdir()
    Path("alone", name).write_bytes(Path("r", name).read_bytes())
    assert_fails(charlstm("sample", "-m", f"alone/{name}"), 1, "the model of a run is its best.safetensors")


@pytest.mark.parametrize("command", [("eval", "--json"), ("eval", "--by", "reset"), ("score",), ("inspect",)])
def test_a_text_that_does_not_exist_is_the_only_thing_printed(run: Path, command: tuple[str, ...]) -> None:
    failed = charlstm(*command, "nofile", environ={"CHARLSTM_MODEL": str(run)})
    assert_fails(failed, 2, "corpus not found: nofile")
    assert len(failed.err.splitlines()) == 1


def test_a_text_in_another_encoding_has_the_same_status_in_every_command(run: Path, bidirectional_run: Path) -> None:
    Path("latin.txt").write_bytes("Grüße _".encode("latin-1"))
    for command in (("train",), ("eval", "-m", run), ("score", "-m", run)):
        assert_fails(charlstm(*command, "latin.txt"), 1, "byte 0xfc at offset 2 is not utf-8")
    for command in (("sample", "-m", run), ("fill", "-m", bidirectional_run)):
        assert_fails(charlstm(*command, stdin=b"Gr\xfc\xdfe _"), 1, "byte 0xfc at offset 2 is not utf-8")


def test_a_file_where_a_folder_is_named_is_rejected_before_the_text_is_read(run: Path) -> None:
    Path("x.txt").write_text(ENGLISH[:4000], "utf-8")
    for command in ("train", "tune"):
        failed = charlstm(command, "x.txt", "-o", "x.txt")
        assert_fails(failed, 2, "x.txt is a file; -o names a folder")
        assert len(failed.err.splitlines()) == 1
    assert_fails(charlstm("train", "x.txt", "-o", "x.txt", "--overwrite"), 2, "-o names a folder")
    assert_fails(charlstm("plot", run, "--tensorboard", "x.txt"), 2, "x.txt is a file; --tensorboard names a folder")


def test_a_folder_that_cannot_be_written_to_is_rejected_before_the_text_is_read() -> None:
    Path("x.txt").write_text(ENGLISH[:4000], "utf-8")
    failed = charlstm("train", "x.txt", "-o", "/proc/nothing/here", "--max-time", "1m")
    assert_fails(failed, 1, "cannot write /proc/nothing/here")
    assert len(failed.err.splitlines()) == 1
    assert charlstm("train", "missing.txt", "-o", "a/b/c").code == 2
    assert not Path("a").exists()
