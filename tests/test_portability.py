"""What charlstm needs from the system: nothing that only Linux has, and no encoding but its own."""

from __future__ import annotations

import ast
import errno
import io
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

import charlstm as package
from charlstm.cli.app import main
from charlstm.console import Console
from charlstm.storage import cache, files, lock
from charlstm.storage.tensors import read_tensors
from tests.support.command_line import Result, assert_fails, charlstm, run_process
from tests.support.texts import ENGLISH, ROOT, SMALL
from tests.support.without_posix import POSIX_MODULES

PACKAGE = Path(package.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))
TEXT = ENGLISH[:3000] + "Съешь же ещё этих мягких французских булок\n" * 40
OPTIONS = (*SMALL, "--set", "training.validate_every=20", "--epochs", "2", "--seed", "1")

each_module = pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))


def run_without_posix(*arguments: object, cwd: Path, stdin: bytes = b"", kill_at_save: int = 0) -> Result:
    """Run a command line in a process that has nothing that Windows lacks, with an old code page."""
    locale = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "cp1252"}
    ours = {"PYTHONPATH": str(ROOT), "CHARLSTM_CACHE": "cache", "KILL_AT_SAVE": str(kill_at_save)}
    command = [sys.executable, "-m", "tests.support.without_posix", *map(str, arguments)]
    environ = {**os.environ, **locale, **ours}
    done = subprocess.run(command, input=stdin, capture_output=True, cwd=cwd, env=environ, timeout=120)
    return Result(done.returncode, done.stdout, done.stderr.decode())


class Runs(NamedTuple):
    """Results of the commands that trained the run in `folder / "run"`."""

    folder: Path
    killed: Result
    resumed: Result


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """Return a run without POSIX that read its text from a pipe, was killed in a save, and resumed."""
    folder = tmp_path_factory.mktemp("portable")
    text = TEXT.encode()
    killed = run_without_posix("train", "-", *OPTIONS, "-o", "run", stdin=text, cwd=folder, kill_at_save=4)
    resumed = run_without_posix("train", "--resume", "-o", "run", cwd=folder)
    return Runs(folder, killed, resumed)


@pytest.mark.slow
def test_a_run_that_was_killed_resumes_exactly_without_posix(runs: Runs) -> None:
    assert runs.killed.code == -signal.SIGKILL, runs.killed.err
    assert runs.resumed.code == 0, runs.resumed.err
    whole = charlstm("train", "-", *OPTIONS, "-o", "whole", stdin=TEXT.encode())
    assert whole.code == 0, whole.err
    for name in ("last", "best", "state"):
        ours, theirs = (read_tensors(run / f"{name}.safetensors")[0] for run in (runs.folder / "run", Path("whole")))
        for tensor, value in theirs.items():
            np.testing.assert_array_equal(ours[tensor], value, err_msg=f"{name} {tensor}")
    left = {path.name for path in (runs.folder / "run").iterdir()}
    assert left == {path.name for path in Path("whole").iterdir()}


@pytest.mark.slow
def test_sample_writes_the_same_utf8_without_posix(runs: Runs) -> None:
    (runs.folder / "prompt.txt").write_text("Съешь", "utf-8", newline="\n")
    options = ("--seed", 3, "-l", 200, "--prompt-file")
    sampled = run_without_posix("sample", "-m", "run", *options, "prompt.txt", cwd=runs.folder)
    assert sampled.code == 0, sampled.err
    assert sampled.text.startswith("Съешь")
    here = charlstm("sample", "-m", runs.folder / "run", *options, runs.folder / "prompt.txt")
    assert sampled.out == here.out


@pytest.mark.slow
def test_eval_reads_a_pipe_of_any_size_without_posix(runs: Runs) -> None:
    evaluated = run_without_posix("eval", "-m", "run", "-", "--json", stdin=TEXT.encode(), cwd=runs.folder)
    assert evaluated.code == 0, evaluated.err
    here = json.loads(charlstm("eval", "-m", runs.folder / "run", "-", "--json", stdin=TEXT.encode()).text)
    assert json.loads(evaluated.text) == here | {"model": "run/best.safetensors"}
    assert not list((runs.folder / "cache").glob("stdin-*"))


@pytest.mark.slow
def test_tune_searches_without_posix(runs: Runs) -> None:
    (runs.folder / "text.txt").write_text(TEXT, "utf-8", newline="\n")
    fixed = (*SMALL, "--cell", "lstm", "--layers", 1, "--time", "0.2s")
    tuned = run_without_posix("tune", "text.txt", *fixed, "--trials", 2, "-o", "search", cwd=runs.folder)
    assert tuned.code == 0, tuned.err
    assert tuned.text == "search/best.toml\n"
    left = sorted(path.name for path in (runs.folder / "search").iterdir())
    assert left == ["best.safetensors", "best.toml", "config.toml", "journal.jsonl"]


@pytest.mark.slow
def test_a_run_is_replaced_by_one_that_begins_with_its_own_model_without_posix(runs: Runs) -> None:
    shutil.copytree(runs.folder / "run", runs.folder / "twice")
    again = ("-o", "twice", "--init-from", "twice", "--overwrite", "--epochs", 1)
    trained = run_without_posix("train", "-", *OPTIONS, *again, stdin=TEXT.encode(), cwd=runs.folder)
    assert trained.code == 0, trained.err
    assert trained.text == "twice\n"


def is_guarded(node: ast.AST) -> bool:
    """Return whether a block continues where an import in it fails."""
    if isinstance(node, ast.With):
        return any("ImportError" in ast.unparse(item) for item in node.items)
    return isinstance(node, ast.Try) and any("ImportError" in ast.unparse(handler) for handler in node.handlers)


@each_module
def test_no_module_needs_a_module_that_only_posix_systems_have(path: Path) -> None:
    tree = ast.parse(path.read_text("utf-8"))
    optional = {inner for node in ast.walk(tree) if is_guarded(node) for inner in ast.walk(node)}
    for node in ast.walk(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)) and node not in optional:
            from_module = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not POSIX_MODULES & {*from_module, *(alias.name for alias in node.names)}, f"line {node.lineno}"


def find_text_files(path: Path) -> Iterator[tuple[ast.Call, str]]:
    """Yield each call that opens, reads or writes a file as text, and its mode."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if not isinstance(node, ast.Call) or not isinstance(node.func, (ast.Attribute, ast.Name)):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else node.func.id
        owner = ast.unparse(node.func.value) if isinstance(node.func, ast.Attribute) else ""
        if name in ("read_text", "write_text") and owner:
            yield node, name[0]
        elif name in ("open", "fdopen") and owner != "os" and not owner.endswith("spool"):
            values = [*node.args, *(keyword.value for keyword in node.keywords)]
            literals = [value.value for value in values if isinstance(value, ast.Constant)]
            mode = next((text for text in literals if isinstance(text, str) and set(text) <= set("rwaxbt+")), "r")
            if "b" not in mode:
                yield node, mode


@each_module
def test_text_files_are_utf8_with_unix_newlines_on_every_system(path: Path) -> None:
    for call, mode in find_text_files(path):
        keywords = {keyword.arg for keyword in call.keywords}
        named = "encoding" in keywords or any(ast.unparse(value) in ("'utf-8'", "'ascii'") for value in call.args)
        assert named, f"line {call.lineno}: no encoding"
        assert mode == "r" or "newline" in keywords, f"line {call.lineno}: no newline"


def test_messages_are_utf8_whatever_the_code_page() -> None:
    failed = run_process("sample", "-m", "модель", environ={"PYTHONIOENCODING": "cp1252"})
    assert_fails(failed, 2, "there is no model at модель")


def test_a_file_that_a_virus_scanner_has_open_for_too_long_is_an_error(
    corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempts, real = 0, Path.replace

    def refuse(source: Path, path: Path) -> Path:
        nonlocal attempts
        attempts += path.name == "config.toml"
        if path.name == "config.toml":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return real(source, path)

    monkeypatch.setattr(files, "LOCKS_OPEN_FILES", True)
    monkeypatch.setattr(files, "RETRY_SECONDS", 0.0)
    monkeypatch.setattr(Path, "replace", refuse)
    failed = charlstm("train", corpus, *OPTIONS, "-o", "run")
    assert_fails(failed, 1, "cannot write run/config.toml: Permission denied")
    assert attempts == files.MAX_RETRIES + 1


def test_a_file_system_that_cannot_flush_folders_is_no_error(corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some network file systems cannot."""

    def flush(handle: int) -> None:
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(os, "fsync", flush)
    trained = charlstm("train", corpus, *OPTIONS, "-o", "run")
    assert trained.code == 0, trained.err


def test_a_file_system_without_locks_is_no_error(corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> bool:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(lock, "lock_descriptor", fail)
    trained = charlstm("train", corpus, *OPTIONS, "-o", "run")
    assert trained.code == 0, trained.err
    assert not Path("run/lock").exists()


def test_a_pipe_that_windows_reports_as_an_invalid_argument_ends_the_program_quietly(run: Path) -> None:
    class ClosedPipe(io.BytesIO):
        def write(self, data: Any) -> int:
            raise OSError(errno.EINVAL, "Invalid argument")

        def fileno(self) -> int:
            return write_end

    read_end, write_end = os.pipe()
    errors = io.StringIO()
    try:
        assert main(["sample", "-m", str(run), "-q"], Console(None, ClosedPipe(), errors, {})) == 0
    finally:
        os.close(read_end)
        os.close(write_end)
    assert errors.getvalue() == ""


def test_ids_that_another_process_stored_meanwhile_are_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHARLSTM_CACHE", str(tmp_path))
    ids = np.arange(9, dtype=np.uint8)

    def store_first(source: Path, path: Path) -> None:
        path.write_bytes(source.read_bytes())
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(files, "replace_file", store_first)
    np.testing.assert_array_equal(cache.save_ids("text", [ids], 9, ids.dtype), ids)
    assert [path.name for path in tmp_path.iterdir()] == ["text.npy"]


def test_a_file_of_the_cache_that_is_in_use_does_not_keep_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CHARLSTM_CACHE", str(tmp_path))
    for name in ("a.npy", "b.npy", "c.npy"):
        (tmp_path / name).write_bytes(b"ids")

    def refuse(path: Path, missing_ok: bool = False) -> None:
        if path.name == "a.npy":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        os.unlink(path)  # noqa: PTH108  # Path.unlink is this function

    monkeypatch.setattr(Path, "unlink", refuse)
    assert_fails(charlstm("show", "cache", "--clear"), 1, "cannot remove", "a.npy", "a charlstm that still runs")
    assert [path.name for path in tmp_path.iterdir()] == ["a.npy"]
