"""The editor's text as it is stored, wrapped and drawn: every character once, in rows that fit."""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from charlstm.errors import CharlstmError, UsageError
from charlstm.vocabulary import CharVocabulary
from charlstm.writing.buffer import Position, TextBuffer
from charlstm.writing.graphemes import count_cells, draw_clusters, iterate_clusters
from charlstm.writing.session import Session
from charlstm.writing.textfile import MAX_FILE_BYTES, TextFile
from charlstm.writing.view import MAX_BLOCK, Screen, View
from charlstm.writing.wrapping import find_row_starts
from tests.support.models import MODELS, make_untrained_model
from tests.support.writing import SHORT, make_session

PIECES = [
    "a",
    "word ",
    " ",
    "漢字",
    "e\u0301",
    "👩\u200d💻",
    "🇩🇪",
    "\t",
    "\x1b",
    "\u0301",
    "\u200b",
    "❤\ufe0f",
    "long" * 9,
]
TEXTS = st.lists(st.sampled_from([*PIECES, "\n"]), max_size=40).map("".join)
LINES = st.lists(st.sampled_from(PIECES), max_size=40).map("".join)


def rows_of(screen: Screen) -> list[str]:
    return ["".join(text for _, text in row) for row in screen.rows]


def place_at(number: int, text: str) -> Position:
    """Return some place of a text that no cluster contains."""
    buffer = TextBuffer(text)
    line = number % len(buffer.lines)
    edges = [0]
    for cluster in iterate_clusters(buffer.lines[line]):
        edges.append(edges[-1] + len(cluster))
    return Position(line, edges[number % len(edges)])


@given(LINES, st.integers(9, 50))
def test_the_rows_of_a_line_have_every_character_once_and_fit(line: str, width: int) -> None:
    starts = find_row_starts(line, width)
    rows = [line[a:b] for a, b in zip(starts, [*starts[1:], len(line)], strict=True)]
    assert "".join(rows) == line
    assert starts[0] == 0 and list(starts) == sorted(set(starts))
    for row in rows:
        drawn = draw_clusters(row)
        assert count_cells(drawn) <= width + drawn.endswith(" ")


@given(st.text(alphabet="ab ", max_size=60), st.integers(3, 20))
def test_both_ways_of_wrapping_agree(line: str, width: int) -> None:
    marked = line.replace("a", "\u00e4")
    assert find_row_starts(line, width) == find_row_starts(marked, width)


@pytest.mark.parametrize(
    ("text", "drawn", "cells"),
    [
        ("ab", "ab", 2),
        ("漢字", "漢字", 4),
        ("e\u0301", "e\u0301", 1),
        ("👩\u200d💻", "👩💻", 4),
        ("👍\U0001f3fd", "👍", 2),
        ("🇩🇪", "DE", 2),
        ("❤\ufe0f", "❤", 1),
        ("a\tb", "a       b", 9),
        ("\x1b[2J", "\\x1b[2J", 7),
        ("\u202e", "\\u202e", 6),
        ("\u0301", "◌\u0301", 1),
        ("\ufeff", "\\ufeff", 6),
    ],
)
def test_what_is_drawn_has_the_same_width_on_every_terminal_and_cannot_control_it(
    text: str, drawn: str, cells: int
) -> None:
    assert draw_clusters(text) == drawn
    assert count_cells(drawn) == cells


@settings(max_examples=60)
@given(TEXTS, st.integers(0, 999), st.integers(10, 60), st.integers(2, 12))
def test_the_cursor_is_always_visible_and_the_rows_are_those_of_the_text(
    text: str, number: int, width: int, height: int
) -> None:
    session = Session(TextBuffer(text), *DRAWING)
    view = View(session)
    for step in (number, 7 * number, 3 * number + 1):
        session.move_to(place_at(step, text))
        session.dismiss()
        screen = view.draw(width, height)
        assert 0 <= screen.cursor_row < len(screen.rows) <= height
        row = rows_of(screen)[screen.cursor_row]
        assert screen.cursor_index <= len(row)
        assert count_cells(row[: screen.cursor_index]) <= width
        session.suggestions = SimpleNamespace(text=GHOSTS[step % len(GHOSTS)])  # type: ignore[assignment]
        screen = view.draw(width, height)
        assert 0 <= screen.cursor_row < len(screen.rows) <= height
        cursor = session.buffer.cursor
        before = session.buffer.lines[cursor.line][: cursor.column]
        row = rows_of(screen)[screen.cursor_row]
        assert "\t" in before or draw_clusters(before).endswith(row[: screen.cursor_index])
        session.suggestions = None
    whole = View(session).draw(width, 1000)
    drawn = [draw_clusters(line[a:b]) for line in session.buffer.lines for a, b in pairs_of_starts(line, width)]
    assert rows_of(whole) == drawn


def pairs_of_starts(line: str, width: int) -> list[tuple[int, int]]:
    starts = find_row_starts(line, width)
    return list(zip(starts, [*starts[1:], len(line)], strict=True))


GHOSTS = ["a", "word word word", "\n", "long" * 12, "\n\nnew 漢字", "漢" * 20 + "\n"]
FIRST = make_session(MODELS[False])
DRAWING = (FIRST.drawing, FIRST.encoder, None)


def test_ghost_text_is_drawn_at_the_cursor_and_moves_nothing_before_it() -> None:
    session = make_session(MODELS[True], "abc abc abc abcfgh\nabc", (0, 15), config=replace(SHORT, length=30))
    view = View(session)
    hidden = view.draw(20, 10)
    session.summon()
    session.work(10)
    screen = view.draw(20, 10)
    assert (screen.cursor_row, screen.cursor_index) == (hidden.cursor_row, hidden.cursor_index) == (0, 15)
    assert rows_of(screen)[0].startswith("abc abc abc abc")
    assert "".join(text for row in screen.rows for style, text in row if style == "ghost") == session.ghost.replace(
        "\n", ""
    )
    assert rows_of(screen)[-1] == "abc"


def test_ghost_text_with_newlines_makes_rows_of_its_own() -> None:
    model = make_untrained_model(CharVocabulary("\nab"), bidirectional=False)
    session = make_session(model, "ab", config=replace(SHORT, length=40))
    assert "\n" in session.ghost
    rows = rows_of(View(session).draw(30, 50))
    assert rows == ("ab" + session.ghost).split("\n")


def test_up_and_down_keep_to_the_column_through_short_rows() -> None:
    session = make_session(MODELS[False], "abcdefgh\nab\nabcdefgh abcd\n漢漢漢漢", (0, 6))
    view = View(session)
    view.draw(10, 10)
    seen = []
    for _ in range(5):
        view.move_rows(1)
        seen.append(tuple(session.buffer.cursor))
    assert seen == [(1, 2), (2, 6), (2, 13), (3, 3), (3, 4)]
    for _ in range(4):
        view.move_rows(-1)
    assert session.buffer.cursor == (0, 6)


def test_home_and_end_are_those_of_the_row() -> None:
    session = make_session(MODELS[False], "abcdefgh abcd", (0, 4))
    view = View(session)
    view.draw(10, 10)
    assert view.find_row_edges() == ((0, 0), (0, 8))
    session.move_to(Position(0, 10))
    assert view.find_row_edges() == ((0, 9), (0, 13))


def test_a_line_of_megabytes_is_drawn_without_reading_all_of_it() -> None:
    session = Session(TextBuffer("abcdefg " * 500_000), *DRAWING)
    view = View(session)
    for column in (4_000_000, 0, 1_234_567):
        session.move_to(Position(0, column))
        screen = view.draw(79, 23)
        shown = "".join(rows_of(screen))
        assert len(shown) < 3 * MAX_BLOCK
        assert len(rows_of(screen)) == 23 or column == 4_000_000


EDITS = st.lists(
    st.tuples(st.sampled_from(["type", "insert", "remove", "undo", "redo"]), st.integers(0, 99), TEXTS), max_size=20
)


@settings(max_examples=60)
@given(TEXTS, EDITS)
def test_edits_change_the_text_as_they_would_a_string_and_undo_takes_all_of_them_back(
    text: str, edits: list[tuple[str, int, str]]
) -> None:
    buffer = TextBuffer(text)
    for kind, number, piece in edits:
        before = buffer.text
        if kind in ("type", "insert"):
            place = buffer.clip(Position(number % len(buffer.lines), number))
            buffer.cursor = place
            offset = len(buffer.get_text(Position(0, 0), place))
            buffer.insert(piece, typed=kind == "type")
            assert buffer.text == before[:offset] + piece + before[offset:]
            assert len(buffer.get_text(Position(0, 0), buffer.cursor)) == offset + len(piece)
        elif kind == "remove":
            start, end = sorted(buffer.clip(Position(k % len(buffer.lines), k)) for k in (number, 3 * number))
            removed = buffer.get_text(start, end)
            buffer.remove(start, end)
            assert len(buffer.text) == len(before) - len(removed)
        else:
            (buffer.undo if kind == "undo" else buffer.redo)()
    while buffer.redo():
        pass
    last = buffer.text
    while buffer.undo():
        pass
    assert buffer.text == text and not buffer.is_modified
    while buffer.redo():
        pass
    assert buffer.text == last


def test_a_text_whose_oldest_edits_are_forgotten_is_not_the_saved_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("charlstm.writing.buffer.MAX_UNDO_CHARACTERS", 5)
    buffer = TextBuffer("")
    for piece in ("abc", "def", "ghi"):
        buffer.insert(piece)
    while buffer.undo():
        pass
    assert buffer.text == "abcdef" and buffer.is_modified


def test_one_undo_takes_back_a_typed_word_and_the_saved_text_is_not_modified() -> None:
    buffer = TextBuffer("")
    for character in "one two":
        buffer.insert(character, typed=True)
    buffer.mark_saved()
    buffer.insert("x", typed=True)
    seen = [(buffer.text, buffer.is_modified)]
    for act in (buffer.undo, buffer.undo, buffer.undo, buffer.redo, buffer.redo):
        assert act()
        seen.append((buffer.text, buffer.is_modified))
    texts = ["one twox", "one two", "one ", "", "one ", "one two"]
    assert seen == list(zip(texts, [True, False, True, True, True, False], strict=True))


@pytest.mark.parametrize(
    "data", [b"", b"a", b"a\n", b"a\n\n", b"\n", b"a\r\nb\r\n", b"a\r\nb\n", b"\xef\xbb\xbfa\n", b"a\r"]
)
def test_a_file_that_was_not_changed_is_saved_as_it_was(data: bytes) -> None:
    path = Path("a.txt")
    path.write_bytes(data)
    file = TextFile(path)
    text = file.read()
    file.save(text)
    assert path.read_bytes() == data
    file.save(text + "b" if text else "b")
    assert path.read_bytes().rstrip(b"\r\n").endswith(b"b")


def test_a_new_file_gets_a_newline_at_its_end_and_an_old_one_keeps_its_permissions_and_link() -> None:
    new = TextFile(Path("new.txt"))
    assert new.read() == ""
    new.save("abc")
    assert Path("new.txt").read_bytes() == b"abc\n"
    Path("new.txt").chmod(0o600)
    Path("link.txt").symlink_to("new.txt")
    link = TextFile(Path("link.txt"))
    assert link.read() == "abc"
    link.save("abcd")
    assert Path("link.txt").is_symlink()
    assert Path("new.txt").read_bytes() == b"abcd\n"
    assert stat.S_IMODE(Path("new.txt").stat().st_mode) == 0o600


def test_unsaved_text_replaces_no_earlier_one_and_nothing_that_a_link_points_to() -> None:
    Path("other.txt").write_text("other\n")
    Path("a.txt.unsaved").symlink_to("other.txt")
    Path("a.txt.unsaved.2").symlink_to("nothing")
    file = TextFile(Path("a.txt"))
    kept = [file.keep_unsaved(text) for text in ("one", "two")]
    assert list(map(str, kept)) == ["a.txt.unsaved.1", "a.txt.unsaved.3"]
    assert [path.read_text() for path in kept] == ["one\n", "two\n"]
    assert Path("other.txt").read_text() == "other\n" and not Path("nothing").exists()
    Path("a.txt.unsaved.old").touch()
    assert sorted(map(str, file.find_unsaved())) == ["a.txt.unsaved", *(f"a.txt.unsaved.{k}" for k in (1, 2, 3))]


def test_unsaved_text_that_cannot_be_written_leaves_no_empty_file(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> bytes:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(TextFile, "encode", fail)
    with pytest.raises(CharlstmError, match=r"cannot write a\.txt\.unsaved: No space left"):
        TextFile(Path("a.txt")).keep_unsaved("abc")
    assert not list(Path().iterdir())


def test_a_file_that_another_program_changed_is_noticed() -> None:
    path = Path("a.txt")
    path.write_text("abc\n")
    file = TextFile(path)
    file.read()
    assert not file.has_changed()
    path.write_text("other\n")
    assert file.has_changed()
    file.save("abc")
    assert not file.has_changed()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"abc\xffdef", "byte 0xff at offset 3 is not utf-8"),
        (b"\x7fELF\0\0", "contains a NUL at offset 4"),
        ("abc".encode("utf-16"), "is UTF-16, and write edits UTF-8"),
    ],
)
def test_a_file_that_is_not_utf8_text_is_an_error_that_says_where(data: bytes, message: str) -> None:
    Path("a.bin").write_bytes(data)
    with pytest.raises(CharlstmError, match=message):
        TextFile(Path("a.bin")).read()


def test_a_folder_a_pipe_a_missing_folder_and_a_huge_file_are_usage_errors() -> None:
    os.mkfifo("pipe")
    with Path("huge").open("wb") as file:
        file.truncate(MAX_FILE_BYTES + 1)
    for name, message in (
        (".", "is a folder"),
        ("pipe", "is not a regular file"),
        ("no/a.txt", "there is no folder no"),
        ("huge", "write opens at most"),
    ):
        with pytest.raises(UsageError, match=message):
            TextFile(Path(name)).read()
