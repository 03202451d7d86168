"""`charlstm write` in tmux: what a user sees."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from charlstm.vocabulary import CharVocabulary
from tests.support.models import make_chain_model, make_untrained_model
from tests.support.writing import SHORT, make_session

pytestmark = pytest.mark.programs

MODEL = make_untrained_model(CharVocabulary(" abcdefgh"), bidirectional=False)
CHAIN = "".join(map(chr, range(0x4E00, 0x4E00 + 12)))
DIM = re.compile("\x1b\\[[0-9;]*2m")


class Terminal:
    """A tmux server with one window."""

    def __init__(self, socket: Path, columns: int, rows: int) -> None:
        self.socket = socket
        environ = {**os.environ, "PS1": "$ ", "LC_ALL": "C.UTF-8"}
        size = ["-x", str(columns), "-y", str(rows)]
        command = ["tmux", "-S", str(socket), "-f", "/dev/null", "new-session", "-d", *size, "sh"]
        subprocess.run(command, check=True, env=environ)

    def tmux(self, *arguments: str) -> str:
        command = ["tmux", "-S", str(self.socket), *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    def press(self, *keys: str) -> None:
        self.tmux("send-keys", *keys)

    def capture(self, *, styles: bool = False) -> str:
        return self.tmux("capture-pane", "-p", *(["-e"] if styles else []))

    def wait_for(self, wanted: str, *, styles: bool = False) -> str:
        """Return the screen once it matches a regular expression."""
        end = time.monotonic() + 60
        while not re.search(wanted, shown := self.capture(styles=styles)):
            assert time.monotonic() < end, shown
            time.sleep(0.1)
        return shown

    def write(self, *arguments: object) -> None:
        """Start `charlstm write` and wait until it shows its status line."""
        words = [sys.executable, "-m", "charlstm", "write", "-m", "model.safetensors", *map(str, arguments)]
        self.press("clear; " + shlex.join(words), "Enter")
        self.wait_for(r"a\.txt  \d+:\d+|\^Q quit|unknown char")

    def quit(self) -> None:
        """Quit, wait until the screen is the shell's again, and have it print the status."""
        self.press("C-q")
        end = time.monotonic() + 60
        while self.tmux("display", "-p", "#{alternate_on}").strip() == "1":
            assert time.monotonic() < end, self.capture()
            time.sleep(0.1)
        self.press("echo status $?", "Enter")


@pytest.fixture(params=[(80, 12)])
def terminal(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Terminal]:
    MODEL.save(Path("model.safetensors"))
    opened = Terminal(tmp_path / "tmux", *request.param)
    yield opened
    opened.tmux("kill-server")


def test_ghost_text_is_dim_and_accepted_text_is_not(terminal: Terminal) -> None:
    ghost = make_session(MODEL, "abc", config=replace(SHORT, length=10)).ghost
    terminal.write("a.txt", "--seed", 5, "-l", 10, "--weights", "fp32")
    terminal.press("abc")
    terminal.wait_for(re.escape(("abc" + ghost).rstrip()))
    assert DIM.search(terminal.capture(styles=True).splitlines()[0])
    terminal.press("Escape")
    terminal.wait_for(r"^abc *\n")
    terminal.press("C-Space")
    terminal.wait_for(re.escape(("abc" + ghost).rstrip()))
    for _ in range(10):
        terminal.press("Right")
    terminal.press("Escape", "C-s")
    terminal.wait_for("saved a.txt")
    assert terminal.capture().splitlines()[0] == ("abc" + ghost).rstrip()
    assert not DIM.search(terminal.capture(styles=True).splitlines()[0])
    terminal.quit()
    terminal.wait_for("status 0\n")
    assert Path("a.txt").read_text() == "abc" + ghost + "\n"


def test_what_was_on_the_terminal_comes_back_and_unsaved_text_is_not_lost_silently(terminal: Terminal) -> None:
    terminal.press("echo before", "Enter")
    terminal.wait_for("before\n")
    terminal.write("a.txt")
    terminal.press("abc", "C-q")
    terminal.wait_for(r"\^S save  \^Q discard")
    terminal.quit()
    assert "--seed" in terminal.wait_for("status 0\n")
    assert not Path("a.txt").exists()


def test_the_middle_is_filled_from_both_sides(terminal: Terminal) -> None:
    make_chain_model(12).save(Path("model.safetensors"))
    Path("a.txt").write_text(CHAIN[:3] + CHAIN[5:8] + "\n")
    terminal.write("a.txt", "-l", 1)
    terminal.press("Left", "Left", "Left", "C-Space")
    terminal.wait_for(CHAIN[:8])
    terminal.press("Tab", "C-s")
    terminal.wait_for("saved")
    assert Path("a.txt").read_text() == CHAIN[:8] + "\n"


@pytest.mark.parametrize("terminal", [(30, 8), (20, 4), (200, 40)], indirect=True)
def test_wide_characters_marks_and_emoji_leave_the_cursor_where_the_text_is_typed(terminal: Terminal) -> None:
    line = "漢字 e\u0301 👩\u200d💻 🇩🇪 \u0301 a\tb " * 6
    Path("a.txt").write_text(line + "\n" + line)
    terminal.write("a.txt", "--stop", " ", "-l", 1, "-t", 0)
    for keys in (["x"], ["Home", "Right", "y"], ["Up", "z"], ["End", "w"], ["C-Home", "v"]):
        terminal.press(*keys)
        time.sleep(0.5)
        screen = terminal.capture().splitlines()
        column, row = map(int, terminal.tmux("display", "-p", "#{cursor_x} #{cursor_y}").split())
        before = (
            cut_cells(screen[row], column) or screen[row - 1]
        )  # the cursor goes to the next row with the ghost text
        assert before.endswith(keys[-1]), (keys, screen[row], column)


def cut_cells(row: str, cells: int) -> str:
    """Return the characters of a row before a cell."""
    from wcwidth import wcwidth

    x, taken = 0, ""
    for character in row:
        if x >= cells:
            break
        x += max(wcwidth(character), 0)
        taken += character
    return taken


def test_a_terminal_that_becomes_too_small_shows_so_and_recovers(terminal: Terminal) -> None:
    terminal.write("a.txt", "--stop", " ", "-t", 0)
    terminal.press("abc")
    terminal.wait_for("abc")
    terminal.tmux("resize-window", "-x", "6", "-y", "3")
    terminal.wait_for("too")
    terminal.tmux("resize-window", "-x", "60", "-y", "10")
    terminal.wait_for("abc")
