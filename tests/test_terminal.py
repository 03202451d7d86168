"""What a terminal shows of text that could control it, and what a pipe gets."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from io import BytesIO, StringIO
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import charlstm.console as console_module
from charlstm.cli.app import main
from charlstm.config import DataConfig
from charlstm.console import Console, escape_text
from charlstm.vocabulary import ByteVocabulary, CharVocabulary
from tests.support.command_line import Terminal, charlstm
from tests.support.models import make_untrained_model

CONTROLS = "\t\n\r\x07\x1b[]\x7f\x9b\u202e\u2066"
"""Tab and newline, and characters that ring, move, color, reverse or hide text."""

UNSAFE = {*CONTROLS} - {*"\t\n[]"}
PERSIAN = "م\u200cی\xa0👩\u200d💻\u3000"
"""Text with joiners and wide spaces, which are not printable in Python's sense and belong to the text."""

SAMPLE = ("sample", "-l", 400, "--seed", 1, "-n", 2)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Return a model file that writes all of these characters."""
    path = tmp_path / "wild.safetensors"
    make_untrained_model(CharVocabulary("".join(sorted({*CONTROLS, *"abc é2J"})))).save(path)
    return path


@pytest.fixture
def byte_model(tmp_path: Path) -> Path:
    path = tmp_path / "bytes.safetensors"
    make_untrained_model(ByteVocabulary(), DataConfig(level="byte"), bidirectional=False).save(path)
    return path


def on_terminal(*arguments: object) -> tuple[bytes, str]:
    """Run a command line in this process whose stdout is a terminal. Return what it shows, and stderr."""
    out, err = Terminal(), StringIO()
    console = Console(Terminal(), out, err, {"NO_COLOR": "1"})
    assert main([str(argument) for argument in arguments], console) == 0, err.getvalue()
    return out.getvalue(), err.getvalue()


def is_safe(shown: bytes) -> bool:
    """Return whether these bytes are a text without characters that control a terminal."""
    return not {*shown.decode()} & UNSAFE


def unescape(shown: bytes) -> str:
    """Return the text that was escaped; it has no backslashes of its own."""
    return shown.decode().encode("latin-1", "backslashreplace").decode("unicode_escape")


def test_a_sample_on_a_terminal_has_its_control_characters_escaped_and_a_pipe_gets_the_bytes(model: Path) -> None:
    command = [sys.executable, "-m", "charlstm", *map(str, SAMPLE), "-m", str(model)]
    reader, terminal = pty.openpty()
    with subprocess.Popen(command, stdout=terminal, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL) as process:
        os.close(terminal)
        shown = b""
        try:
            while piece := os.read(reader, 4096):
                shown += piece
        except OSError:  # Linux: the other side was closed
            pass
        assert process.wait() == 0
    os.close(reader)
    shown = shown.replace(b"\r\n", b"\n")  # what a terminal makes of a newline
    raw = subprocess.run(command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, check=True).stdout
    assert set(raw.decode()) >= UNSAFE
    assert is_safe(shown)
    assert b"\\x1b" in shown and b"\\u202e" in shown and b"\t" in shown
    assert unescape(shown) == raw.decode()


@pytest.mark.parametrize("options", [(), ("-p", "a\x1b[2Jb"), ("--direction", "backward"), ("--no-echo", "--raw")])
def test_whatever_sample_writes_is_escaped_on_a_terminal(model: Path, options: tuple[str, ...]) -> None:
    shown, _ = on_terminal(*SAMPLE, "-m", model, *options)
    assert is_safe(shown)
    assert unescape(shown) == charlstm(*SAMPLE, "-m", model, *options).text


def test_json_on_a_terminal_is_safe_and_has_the_same_value(model: Path) -> None:
    shown, _ = on_terminal(*SAMPLE, "-m", model, "--json")
    assert is_safe(shown)
    piped = charlstm(*SAMPLE, "-m", model, "--json").text
    assert [*map(json.loads, shown.decode().splitlines())] == [*map(json.loads, piped.splitlines())]


@pytest.mark.parametrize("color", ["always", "never"])
def test_a_filling_on_a_terminal_has_only_the_escape_sequences_of_its_colors(model: Path, color: str) -> None:
    options = ("fill", "-m", model, "--seed", 1, "-n", 5, "a\x1b[2J___b\x9b__\u202e_c", "--color")
    shown, _ = on_terminal(*options, color)
    plain = shown.replace(b"\x1b[1m", b"").replace(b"\x1b[0m", b"")
    assert (plain == shown) == (color == "never")
    assert is_safe(plain)
    assert unescape(plain) == charlstm(*options, "never").text


def test_a_model_of_bytes_shows_whole_characters_and_escapes_other_bytes(byte_model: Path) -> None:
    options = (*SAMPLE, "-m", byte_model, "-p", "naïve 漢 ")
    shown, _ = on_terminal(*options)
    assert is_safe(shown)
    assert shown.startswith("naïve 漢 ".encode())
    assert re.search(rb"\\x[89ab][0-9a-f]", shown)
    with pytest.raises(UnicodeDecodeError):
        charlstm(*options).text  # noqa: B018


def test_lines_of_progress_become_rarer_in_a_long_task(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(console_module, "monotonic", lambda: now)
    console = Console(None, BytesIO(), err := StringIO(), {})
    counts = []
    with console.progress() as bar:
        for now in map(float, range(24 * 3600)):
            bar.update(now / 86400, "loss 1.5")
            if now in (60, 3599, 86399):
                counts.append(err.getvalue().count("loss"))
    assert counts[0] == 12
    assert counts[1] < 320
    assert counts[2] < 650


def test_stderr_never_gets_control_characters_of_file_names(tmp_path: Path) -> None:
    folder = tmp_path / "a\x1b[2Jb\x9b"
    folder.mkdir()
    (folder / "text.txt").write_text("abc " * 600, "utf-8")
    options = ("train", folder / "text.txt", "-o", folder / "run", "--hidden", 4, "--epochs", 1, "--batch-size", 2)
    shown, err = on_terminal(*options)
    assert is_safe(shown) and is_safe(err.encode())
    assert b"a\\x1b[2Jb\\x9b" in shown
    shown, err = on_terminal("eval", "-m", folder / "run")
    assert not {*shown.decode()} & UNSAFE
    failed = charlstm("sample", "-m", folder / "nothing", "--debug")
    assert failed.code == 2 and "Traceback" in failed.err and is_safe(failed.err.encode())


def test_a_training_sample_on_stderr_is_escaped_but_keeps_joiners_and_wide_spaces(tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text((PERSIAN + "\x1b[2J\x07") * 300, "utf-8")
    options = ("train", text, "--hidden", 32, "--epochs", 3, "--batch-size", 4, "--seq-len", 16)
    err = charlstm(*options).err
    assert is_safe(err.encode())
    assert "\\x1b[" in err and "\u200c" in err and "\u3000" in err


@given(st.text())
def test_text_on_a_terminal_is_changed_only_where_it_is_unsafe(text: str) -> None:
    shown = escape_text(text)
    assert is_safe(shown.encode())
    kept = [c for c in text if c in "\n\t" or not ("\x7f" <= c <= "\x9f" or c < " " or "\u202a" <= c <= "\u202e")]
    if len(kept) == len(text) and not any("\u2066" <= c <= "\u2069" for c in text):
        assert shown == text


@given(st.binary(max_size=30), st.lists(st.integers(0, 30), max_size=4))
def test_where_a_text_is_cut_into_pieces_does_not_change_what_a_terminal_shows(data: bytes, cuts: list[int]) -> None:
    def show(*pieces: bytes) -> bytes:
        console = Console(None, out := Terminal(), StringIO(), {})
        for piece in pieces:
            console.write(piece)
        console.flush()
        return out.getvalue()

    edges = sorted({0, len(data), *(min(cut, len(data)) for cut in cuts)})
    pieces = [data[first:last] for first, last in pairwise(edges)]
    assert show(*pieces) == show(data)
    assert is_safe(show(data))
    console = Console(None, out := BytesIO(), StringIO(), {})
    console.write(data)
    assert out.getvalue() == data
