"""`charlstm write`: keys, saving, quitting, and what is reported instead of opening the editor."""

from __future__ import annotations

import errno
import fcntl
import io
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest
from prompt_toolkit.data_structures import Size
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.output import DummyOutput

from charlstm.cli.actions import write as actions
from charlstm.cli.commands import write
from charlstm.cli.editor import MIN_COLUMNS, Editor
from charlstm.cli.editor_keys import KEYS, prepare_key
from charlstm.cli.status_line import format_status
from charlstm.config import DataConfig
from charlstm.console import Console
from charlstm.errors import CharlstmError, OutputClosedError
from charlstm.vocabulary import ByteVocabulary, CharVocabulary
from charlstm.writing.buffer import Position
from charlstm.writing.continuation import take_word
from charlstm.writing.graphemes import count_cells
from charlstm.writing.session import Session
from charlstm.writing.textfile import TextFile
from tests.support.command_line import assert_fails, charlstm
from tests.support.models import make_untrained_model
from tests.support.modules import loaded_modules_after
from tests.support.writing import SHORT, make_session

MODEL = make_untrained_model(CharVocabulary("\n" + " abcdefgh"), bidirectional=False)

RIGHT, LEFT = "\x1b[C", "\x1b[D"
SAVE, QUIT, INTERRUPT, UNDO, REDO = "\x13", "\x11", "\x03", "\x1a", "\x19"


class Screen(DummyOutput):
    """An output of a size, whose text is not looked at."""

    def get_size(self) -> Size:
        return Size(rows=10, columns=60)


@pytest.fixture
def model() -> Path:
    path = Path("model.safetensors")
    MODEL.save(path)
    return path


def open_editor(keyboard: Any, text: str = "", name: str | None = "a.txt") -> Editor:
    file = TextFile(Path(name)) if name else None
    if file:
        file.read()
    return Editor(make_session(MODEL, text), file, keyboard, Screen())


def press(keys: str, text: str = "", name: str | None = "a.txt") -> tuple[int, Editor]:
    """Press keys in an editor, and return the exit status and the editor."""
    with create_pipe_input() as keyboard:
        editor = open_editor(keyboard, text, name)
        keyboard.send_text(keys)
        return editor.run(), editor


def test_typing_and_saving_writes_the_file() -> None:
    status, editor = press("abc\rdef" + SAVE + QUIT)
    assert status == 0
    assert Path("a.txt").read_text() == "abc\ndef\n"
    editor.save()
    assert editor.message == "saved a.txt"


def test_tab_and_right_accept_ghost_text_and_move_or_indent_where_there_is_none() -> None:
    ghost = make_session(MODEL, "abc ").ghost
    _, editor = press("\t" + SAVE + QUIT, "abc ")
    assert editor.session.buffer.text == "abc " + take_word(ghost)
    _, editor = press(RIGHT + SAVE + QUIT, "abc ")
    assert editor.session.buffer.text == "abc " + ghost[0]
    _, editor = press(LEFT + LEFT + RIGHT + "\t" + SAVE + QUIT, "abcd")
    assert editor.session.buffer.text == "abc\td"


def test_down_and_up_choose_candidates_where_there_is_ghost_text_and_move_elsewhere() -> None:
    session = make_session(MODEL, "abc\nabc ")
    first = session.ghost
    session.choose_next()
    session.work(10)
    second = session.ghost
    with create_pipe_input() as keyboard:
        editor = open_editor(keyboard, "abc\nabc ")
        for key, text, line in (("down", second, 1), ("up", first, 1), ("up", "", 0), ("down", first, 1)):
            press_key(editor, key)
            assert (editor.session.ghost, editor.session.buffer.cursor.line) == (text, line), key


def press_key(editor: Editor, name: str) -> None:
    """Do what a key does, and all the work that it causes."""
    editor.view.draw(60, 10)
    prepare_key(editor, name)
    KEYS[name](editor)
    while editor.session.work(10):
        pass


@pytest.mark.parametrize(
    ("keys", "text"),
    [
        ("x" + UNDO, "abc def"),
        ("x" + UNDO + REDO, "abc defx"),
        ("\x17", "abc "),
        ("\x7f\x7f", "abc d"),
        ("\x1b[1;5D" + "\x1b[3~", "abc ef"),
        ("\x1b[H" + "x", "xabc def"),
        ("\x1b[H\x1b[F" + "x", "abc defx"),
        ("\x1b[200~one\r\ntwo\rthree\x1b[201~", "abc defone\ntwo\nthree"),
        ("\x1b[5~" + "x\x1b[6~" + "y", "xabc defy"),
        ("é漢👩‍💻", "abc defé漢👩‍💻"),
        ("\x00", "abc def"),
        ("\x07\x0f\x1b[15~", "abc def"),
    ],
)
def test_keys_edit_as_in_other_editors(keys: str, text: str) -> None:
    _, editor = press(keys + SAVE + QUIT, "abc def")
    assert editor.session.buffer.text == text
    assert Path("a.txt").read_text() == text + "\n"


def test_quitting_with_unsaved_text_needs_the_key_twice() -> None:
    with create_pipe_input() as keyboard:
        editor = open_editor(keyboard)
        editor.session.type_text("abc")
        editor.quit(0)
        assert "not saved" in editor.message
    assert press("abc" + QUIT + QUIT)[0] == 0
    assert press("abc" + INTERRUPT + INTERRUPT)[0] == 130
    status, editor = press("abc" + QUIT + "d" + SAVE + QUIT)
    assert status == 0 and Path("a.txt").read_text() == "abcd\n"
    assert press(QUIT, "abc")[0] == 0


def test_messages_begin_with_their_keys_which_the_narrowest_terminal_shows() -> None:
    with create_pipe_input() as keyboard:
        editor = open_editor(keyboard)
        editor.session.type_text("abc")
        editor.quit(0)
        shown = format_status(editor.session, editor.file, editor.message, MIN_COLUMNS)
        assert "^S save" in shown and "^Q discard" in shown
        editor.file = None
        editor.save()
        assert "^Q" in format_status(editor.session, None, editor.message, MIN_COLUMNS)


def test_a_file_that_another_program_changed_is_overwritten_at_the_second_request_only() -> None:
    with create_pipe_input() as keyboard:
        editor = open_editor(keyboard)
        editor.session.type_text("mine")
        Path("a.txt").write_text("theirs")
        editor.save()
        assert "another program wrote to a.txt" in editor.message and Path("a.txt").read_text() == "theirs"
        editor.save()
        assert Path("a.txt").read_text() == "mine\n"


def test_text_that_cannot_be_saved_stays_and_the_reason_is_shown() -> None:
    Path("folder").mkdir()
    with create_pipe_input() as keyboard:
        editor = open_editor(keyboard, name="folder/a.txt")
        editor.session.type_text("abc")
        Path("folder").rmdir()
        editor.save()
        assert editor.message.startswith("cannot write folder/a.txt")
        assert editor.session.buffer.is_modified


def test_an_error_in_a_key_ends_the_editor_and_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(Session, "remove_word", fail)
    with pytest.raises(ZeroDivisionError):
        press("abc\x17")


def test_the_end_of_the_terminal_ends_the_editor() -> None:
    with create_pipe_input() as keyboard:
        editor = open_editor(keyboard)
        keyboard.send_text("abc")
        keyboard.close()
        assert editor.run() == 128 + signal.SIGHUP
        assert editor.was_ended and editor.session.buffer.text == "abc"


class BrokenStream(io.BytesIO):
    """A stdout that takes nothing once it is flushed."""

    def __init__(self, code: int) -> None:
        super().__init__()
        self.code = code

    def flush(self) -> None:
        raise OSError(self.code, os.strerror(self.code))


def edit_new_text(monkeypatch: pytest.MonkeyPatch, model: Path, stdout: io.BytesIO, keys: str) -> str:
    """Press keys in an editor without a file, write the text to `stdout`, and return what stderr reports."""
    monkeypatch.setattr(actions, "check_size", lambda: None)
    monkeypatch.setattr(actions, "create_output", lambda _: Screen())
    stderr = io.StringIO()
    with create_pipe_input() as keyboard:
        monkeypatch.setattr(actions, "create_input", lambda: keyboard)
        keyboard.send_text(keys)
        request = write.WriteRequest(None, SHORT, 1, [], "replace")
        try:
            actions.edit_text(Console(None, stdout, stderr, {}), model, request, show_model=False)
        except (CharlstmError, OutputClosedError):
            stderr.write("raised")
    return stderr.getvalue()


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EPIPE])
def test_a_text_that_stdout_does_not_take_is_kept_in_a_file(
    monkeypatch: pytest.MonkeyPatch, model: Path, code: int
) -> None:
    reported = edit_new_text(monkeypatch, model, BrokenStream(code), "abc" + QUIT)
    assert "it is in text.txt.unsaved\n" in reported and reported.endswith("raised")
    assert Path("text.txt.unsaved").read_text() == "abc\n"


def test_a_text_that_stdout_takes_is_flushed_and_not_kept_in_a_file(
    monkeypatch: pytest.MonkeyPatch, model: Path
) -> None:
    stdout = io.BytesIO()
    assert not edit_new_text(monkeypatch, model, stdout, "abc" + QUIT)
    assert stdout.getvalue() == b"abc\n" and not Path("text.txt.unsaved").exists()


@pytest.mark.parametrize("name", ["a.txt", None])
def test_unsaved_text_of_an_earlier_time_is_mentioned_at_the_start(
    monkeypatch: pytest.MonkeyPatch, model: Path, name: str | None
) -> None:
    file = TextFile(Path(name or "text.txt"))
    assert actions.describe_unsaved([file.keep_unsaved("abc")]) == f"{file.path}.unsaved has unsaved text"
    messages: list[str] = []

    def run(editor: Editor) -> int:
        messages.append(editor.message)
        return 0

    monkeypatch.setattr(Editor, "run", run)
    monkeypatch.setattr(actions, "check_size", lambda: None)
    monkeypatch.setattr(actions, "create_output", lambda _: Screen())
    for _ in range(2):
        with create_pipe_input() as keyboard:
            monkeypatch.setattr(actions, "create_input", lambda keyboard=keyboard: keyboard)
            request = write.WriteRequest(Path(name) if name else None, SHORT, 1, [], "replace")
            actions.edit_text(Console(None, io.BytesIO(), io.StringIO(), {}), model, request, show_model=False)
        os.utime(file.path.with_name(f"{file.path}.unsaved"), (0, 0))
        file.keep_unsaved("def")
    assert messages == [
        f"{file.path}.unsaved has unsaved text",
        f"{file.path}.unsaved.1 and 1 other file have unsaved text",
    ]


def test_down_looks_for_a_candidate_where_the_first_one_is_not_found_yet() -> None:
    with create_pipe_input() as keyboard:
        editor = open_editor(keyboard, "abc\n\n")
        editor.session.move_to(Position(1, 0))
        editor.session.summon()
        while editor.session.suggestions is None:
            editor.session.work(0)
        editor.session.suggestions.candidates[0].text = ""
        KEYS["down"](editor)
        assert editor.session.buffer.cursor == Position(1, 0)


def test_summoning_before_other_text_says_which_models_suggest_some_there() -> None:
    with create_pipe_input() as keyboard:
        editor = open_editor(keyboard, "abc\nabc ")
        messages = []
        for key in ("c-@", "up", "c-@"):
            press_key(editor, key)
            messages.append(editor.message)
        assert messages == ["", "", "only a bidirectional model suggests text here"]


@pytest.mark.parametrize("width", [20, 40, 80, 200])
def test_the_status_line_fills_the_width_and_names_what_the_model_does_not_know(width: int) -> None:
    session = make_session(MODEL, "ab\u00e9")
    line = format_status(session, TextFile(Path("漢字.txt")), "", width)
    assert count_cells(line) == width
    assert "the model does not" in line
    assert count_cells(format_status(session, None, "message", width)) == width


def test_the_status_line_names_the_keys_of_the_ghost_text_that_it_has_room_for() -> None:
    session = make_session(MODEL, "abc ")
    lines = {width: format_status(session, None, "", width) for width in (80, 60, 40)}
    assert [("Tab word" in line, "→ character" in line, "^Q quit" in line) for line in lines.values()] == [
        (True, True, True),
        (True, False, True),
        (False, False, True),
    ]


def test_what_is_not_a_terminal_is_a_usage_error(model: Path) -> None:
    assert_fails(charlstm("write", "-m", model, stdin=b"text"), 2, "reads keys from a terminal", "charlstm sample")
    assert_fails(charlstm("write", "-m", model), 2, "draws on a terminal")
    assert_fails(charlstm("write", "--stop", ""), 2, "--stop must not be empty")
    assert_fails(charlstm("write", "-"), 2, "- is not one")


def test_a_missing_library_is_reported_with_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "prompt_toolkit", None)
    with pytest.raises(Exception, match=r"prompt_toolkit is not installed; pip install 'charlstm\[write\]'"):
        write.check_library()


def test_the_editor_imports_no_torch(model: Path) -> None:
    code = f"from charlstm.cli.app import main; assert main(['write', '-m', {str(model)!r}]) == 2"
    assert not {"torch", "prompt_toolkit"} & loaded_modules_after(f"import os; os.dup2(2, 1); {code}")
    without_terminal = "import sys, charlstm.writing.view; assert 'prompt_toolkit' not in sys.modules"
    assert "torch" not in loaded_modules_after(f"{without_terminal}; import charlstm.cli.actions.write")


@contextmanager
def running(
    *arguments: object, columns: int = 60, rows: int = 10, stdout: Any = None
) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """Run `charlstm write` on a terminal of its own, and yield the process and the other side of the terminal."""
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    command = [sys.executable, "-m", "charlstm", "write", "-m", "model.safetensors", *map(str, arguments)]
    env = {**os.environ, "TERM": "xterm-256color"}
    process = subprocess.Popen(
        command, stdin=follower, stdout=stdout or follower, stderr=follower, env=env, start_new_session=True
    )
    os.close(follower)
    try:
        yield process, leader
    finally:
        process.kill()
        process.wait()
        with suppress(OSError):  # some tests close it
            os.close(leader)


def read_until(terminal: int, wanted: bytes, seconds: float = 60.0) -> bytes:
    """Return what is shown on a terminal up to some bytes; all of it at its end."""
    shown, end = b"", time.monotonic() + seconds
    while wanted not in shown and time.monotonic() < end:
        if select.select([terminal], [], [], 0.1)[0]:
            try:
                shown += os.read(terminal, 1 << 16)
            except OSError:  # Linux reports the end of a terminal as an error
                break
    return shown


READY = b"quit"
"""The last word of the status line."""


@pytest.mark.slow
def test_on_a_terminal_text_is_typed_accepted_and_saved(model: Path) -> None:
    ghost = make_session(MODEL, "abc", config=replace(SHORT, length=60)).ghost
    with running("a.txt", "--seed", 5, "--weights", "fp32") as (process, terminal):
        assert b"\x1b[?1049h" in read_until(terminal, READY), "the alternate screen"
        os.write(terminal, b"abc")
        assert b"\x1b[0;2m" in read_until(terminal, b"\x1b[0;2m"), "dimmed text"
        os.write(terminal, b"\x1b[C\x13")
        read_until(terminal, b"saved a.txt")
        os.write(terminal, b"\x11")
        shown = read_until(terminal, b"nothing")
        assert process.wait(60) == 0
        assert b"\x1b[?1049l" in shown
    assert Path("a.txt").read_text() == "abc" + ghost[0] + "\n"


@pytest.mark.slow
def test_text_that_is_not_saved_survives_a_signal_and_the_end_of_the_terminal(model: Path) -> None:
    with running("a.txt") as (process, terminal), running("b.txt") as (other, other_terminal):
        for each in (terminal, other_terminal):
            read_until(each, READY)
            os.write(each, b"abc")
            read_until(each, b"*")
        process.send_signal(signal.SIGTERM)
        shown = read_until(terminal, b"unsaved\r\n")
        assert process.wait(60) == 128 + signal.SIGTERM
        os.close(other_terminal)
        assert other.wait(60) == 128 + signal.SIGHUP
    assert b"the text was not saved; it is in a.txt.unsaved" in shown
    for name in ("a.txt", "b.txt"):
        assert Path(f"{name}.unsaved").read_text() == "abc\n"
        assert not Path(name).exists()


@pytest.mark.slow
def test_a_text_without_a_file_is_written_to_stdout_at_the_end(model: Path) -> None:
    with Path("out.txt").open("wb") as out, running(stdout=out) as (process, terminal):
        read_until(terminal, READY)
        os.write(terminal, b"abc\x13")
        assert b"named" in read_until(terminal, b"named")  # the screen is drawn in pieces
        os.write(terminal, b"\x11")
        read_until(terminal, b"nothing")
        assert process.wait(60) == 0
    assert Path("out.txt").read_text() == "abc\n"


@pytest.mark.slow
def test_a_terminal_that_is_too_small_is_a_usage_error_and_one_that_becomes_so_is_no_reason_to_end(model: Path) -> None:
    with running("a.txt", columns=8, rows=2) as (process, terminal):
        assert b"the terminal has 8 columns and 2 rows" in read_until(terminal, b"nothing")
        assert process.wait(60) == 2
    with running("a.txt") as (process, terminal):
        read_until(terminal, READY)
        for columns, rows in ((5, 2), (1, 1), (60, 10)):
            fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
            process.send_signal(signal.SIGWINCH)
            time.sleep(0.2)
        os.write(terminal, b"abc\x13\x11")
        read_until(terminal, b"nothing")
        assert process.wait(60) == 0
    assert Path("a.txt").read_text() == "abc\n"


PIECES = ["a", "b", " ", "\n", "漢", "e\u0301", "\u0301", "👩\u200d💻", "🇩🇪", "\t", "word ", "x" * 70, "İ", "\u2028"]
MODELS = [
    MODEL,
    make_untrained_model(CharVocabulary("\n abcdefgh")),
    make_untrained_model(ByteVocabulary(), DataConfig(level="byte"), bidirectional=False),
    make_untrained_model(
        CharVocabulary("abcdefgh é", documents=True), DataConfig(document="line", normalize="nfc", lower=True)
    ),
]


@pytest.mark.long
@pytest.mark.parametrize("seed", range(20))
def test_any_keys_on_any_terminal_leave_the_cursor_visible_and_the_rows_in_place(seed: int) -> None:
    random = Random(seed)
    text = "".join(random.choices(PIECES, k=30))
    session = make_session(MODELS[seed % len(MODELS)], text, unknown=random.choice(["skip", "replace"]))
    with create_pipe_input() as keyboard:
        editor = Editor(session, None, keyboard, Screen())
        for _ in range(60):
            key = random.choice([*KEYS, *["text"] * 20])
            if key == "text":
                session.type_text(random.choice(PIECES), typed=random.random() < 0.5)
            elif key not in ("c-q", "c-c", "c-l"):
                prepare_key(editor, key)
                KEYS[key](editor)
            session.work(random.choice([0, 0.001, 0.1]))
            width, height = random.choice([(60, 10), (12, 3), (9, 1), (200, 50), (19, 7)])
            screen = editor.view.draw(width, height)
            rows = ["".join(piece for _, piece in row) for row in screen.rows]
            assert len(rows) <= height and all(count_cells(row) <= width + 1 for row in rows)
            assert screen.cursor_index <= len(rows[screen.cursor_row])
            assert count_cells(format_status(session, None, editor.message, width)) == width
