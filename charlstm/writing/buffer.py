"""The text that is edited, as lines, with a cursor and undo.

An edit takes as long as its line is, not as long as the text.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import NamedTuple

from charlstm.writing.graphemes import find_next_boundary, find_previous_boundary

MAX_UNDO_CHARACTERS = 20_000_000
"""Characters that are kept for undo. The oldest edits are forgotten first."""


class Position(NamedTuple):
    """A place between two characters. Both numbers count from 0; the column counts characters."""

    line: int
    column: int


class Change(NamedTuple):
    """What an edit replaced: the text between `start` and `old_end` by one that ends at `new_end`."""

    start: Position
    old_end: Position
    new_end: Position

    def move(self, place: Position) -> Position | None:
        """Return where a place is after the edit; None if it was inside the replaced text."""
        if place <= self.start:
            return place
        if place < self.old_end:
            return None
        column = place.column + (self.new_end.column - self.old_end.column) * (place.line == self.old_end.line)
        return Position(place.line + self.new_end.line - self.old_end.line, column)


@dataclass
class Edit:
    """An edit that can be undone."""

    start: Position
    removed: str
    inserted: str
    number: int
    """Which distinguishes the states of a text."""


class TextBuffer:
    """Lines of text and a cursor. There is always at least one line."""

    def __init__(self, text: str = "") -> None:
        self.lines = text.split("\n")
        self.cursor = Position(len(self.lines) - 1, len(self.lines[-1]))
        self.changes: list[Change] = []
        """What was changed since `take_changes` was called."""
        self.undone: list[Edit] = []
        self.done: deque[Edit] = deque()
        self.done_characters = 0
        self.number = self.saved_number = self.oldest_number = 0
        self.joins = False  # whether the next edit may become part of the last one

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    @property
    def end(self) -> Position:
        return Position(len(self.lines) - 1, len(self.lines[-1]))

    @property
    def is_modified(self) -> bool:
        """Whether the text differs from the saved one, as far as undo knows."""
        return self.state_number != self.saved_number

    @property
    def state_number(self) -> int:
        """A number of the text as it is now, which it has again after undo or redo."""
        return self.done[-1].number if self.done else self.oldest_number

    def mark_saved(self) -> None:
        self.saved_number = self.state_number
        self.joins = False

    def take_changes(self) -> list[Change]:
        """Return the changes since the last call, the oldest first."""
        changes, self.changes = self.changes, []
        return changes

    def get_text(self, start: Position, end: Position) -> str:
        """Return the text between two places."""
        if start.line == end.line:
            return self.lines[start.line][start.column : end.column]
        middle = self.lines[start.line + 1 : end.line]
        return "\n".join([self.lines[start.line][start.column :], *middle, self.lines[end.line][: end.column]])

    def insert(self, text: str, *, typed: bool = False) -> None:
        """Insert a text at the cursor, which moves behind it.

        typed: the text is one character of several, which one undo takes back together, word by word.
        """
        line, column = self.cursor
        before = self.lines[line][max(column - 1, 0) : column]
        starts_word = before.isspace() and not text.isspace()
        self.joins = self.joins and typed and not starts_word and text != "\n"
        self.apply(self.cursor, self.cursor, text)
        self.joins = typed

    def remove(self, start: Position, end: Position) -> None:
        """Remove the text between two places. The cursor moves there."""
        self.joins = False
        if start != end:
            self.apply(start, end, "")

    def apply(self, start: Position, end: Position, text: str) -> None:
        """Replace the text between two places, and remember it for undo."""
        removed = self.get_text(start, end)
        self.replace(start, end, text)
        self.number += 1
        self.undone.clear()
        last = self.done[-1] if self.done else None
        if self.joins and last and not last.removed and start == end == advance_position(last.start, last.inserted):
            last.inserted += text
            last.number = self.number
        else:
            self.done.append(Edit(start, removed, text, self.number))
        self.done_characters += len(removed) + len(text)
        while self.done_characters > MAX_UNDO_CHARACTERS and len(self.done) > 1:
            oldest = self.done.popleft()
            self.oldest_number = oldest.number
            self.done_characters -= len(oldest.removed) + len(oldest.inserted)

    def replace(self, start: Position, end: Position, text: str) -> None:
        """Replace the text between two places, and move the cursor behind the new one."""
        first, last = self.lines[start.line][: start.column], self.lines[end.line][end.column :]
        pieces = text.split("\n")
        new_end = Position(start.line + len(pieces) - 1, len(pieces[-1]) + (start.column if len(pieces) == 1 else 0))
        pieces[0] = first + pieces[0]
        pieces[-1] += last
        self.lines[start.line : end.line + 1] = pieces
        self.cursor = new_end
        self.changes.append(Change(start, end, new_end))

    def undo(self) -> bool:
        """Take back the last edit. Returns whether there was one."""
        if not self.done:
            return False
        edit = self.done.pop()
        self.done_characters -= len(edit.removed) + len(edit.inserted)
        self.replace(edit.start, advance_position(edit.start, edit.inserted), edit.removed)
        self.undone.append(edit)
        self.joins = False
        return True

    def redo(self) -> bool:
        """Repeat the edit that was taken back last. Returns whether there was one."""
        if not self.undone:
            return False
        edit = self.undone.pop()
        self.replace(edit.start, advance_position(edit.start, edit.removed), edit.inserted)
        self.done.append(edit)
        self.done_characters += len(edit.removed) + len(edit.inserted)
        return True

    def find_previous(self, place: Position) -> Position:
        """Return the place one character (grapheme cluster) before another one."""
        if place.column:
            return Position(place.line, find_previous_boundary(self.lines[place.line], place.column))
        return Position(place.line - 1, len(self.lines[place.line - 1])) if place.line else place

    def find_next(self, place: Position) -> Position:
        """Return the place one character after another one."""
        if place.column < len(self.lines[place.line]):
            return Position(place.line, find_next_boundary(self.lines[place.line], place.column))
        return Position(place.line + 1, 0) if place.line + 1 < len(self.lines) else place

    def find_previous_word(self, place: Position) -> Position:
        """Return the start of the word before a place, or the end of the line before it."""
        if not place.column:
            return self.find_previous(place)
        before = self.lines[place.line][: place.column].rstrip()
        return Position(place.line, len(before) - len((before.rsplit(None, 1) or [""])[-1]))

    def find_next_word(self, place: Position) -> Position:
        """Return the end of the word after a place, or the start of the next line."""
        line, column = self.lines[place.line], place.column
        if column == len(line):
            return self.find_next(place)
        while column < len(line) and line[column].isspace():
            column += 1
        while column < len(line) and not line[column].isspace():
            column += 1
        return Position(place.line, column)

    def clip(self, place: Position) -> Position:
        """Return the nearest place that the text has."""
        line = min(max(place.line, 0), len(self.lines) - 1)
        return Position(line, min(max(place.column, 0), len(self.lines[line])))


def advance_position(start: Position, text: str) -> Position:
    """Return the place behind a text that begins at `start`."""
    newlines = text.count("\n")
    if not newlines:
        return Position(start.line, start.column + len(text))
    return Position(start.line + newlines, len(text) - text.rindex("\n") - 1)
