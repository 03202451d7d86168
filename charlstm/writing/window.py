"""The part of a text that the model reads: some of it before the cursor, and what is visible after it.

Where reading begins stays the same while the cursor moves near it, so that little is read twice.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from charlstm.vocabulary import Ids
from charlstm.writing.buffer import Change, Position, TextBuffer
from charlstm.writing.encoding import TextEncoder

READ_BEFORE = 2000
"""Characters before the cursor that are read where it comes from far away."""

MAX_READ_BEFORE = 8 * READ_BEFORE
"""Characters before the cursor from which reading begins nearer to it."""

MAX_AHEAD = 6000
"""Characters after the cursor that are read to find the surprising ones."""

READ_AFTER = 500
"""Characters after the cursor that an infilling reads, with a bidirectional model."""


class ReadWindow:
    """The text that is read: `before` and `ahead` of the cursor; `after` for the other direction."""

    def __init__(self) -> None:
        self.start: Position | None = None
        self.stop: Position | None = None
        self.before = self.ahead = self.after = ""
        self.line_starts: list[int] = []

    def follow(self, buffer: TextBuffer, visible_end: Position) -> None:
        """Take notice of the changes of a text and of its cursor."""
        changes, cursor = buffer.take_changes(), buffer.cursor
        self.start, self.stop = move_through(changes, self.start), move_through(changes, self.stop)
        if self.start is None or not is_within(buffer, self.start, cursor, MAX_READ_BEFORE):
            self.start = find_before(buffer, cursor, READ_BEFORE)
        if self.stop is None or not is_within(buffer, cursor, self.stop, 8 * READ_AFTER):
            self.stop = find_after(buffer, cursor, READ_AFTER)
        self.before = buffer.get_text(self.start, cursor)
        self.after = buffer.get_text(cursor, self.stop)
        end = min(max(buffer.clip(visible_end), cursor), find_after(buffer, cursor, MAX_AHEAD))
        self.ahead = buffer.get_text(cursor, end)
        text, at = self.before + self.ahead, -1
        self.line_starts = [0]
        while (at := text.find("\n", at + 1)) >= 0:
            self.line_starts.append(at + 1)
        self.symbols: tuple[Ids, Ids] | None = None

    def find_surprises(
        self, line: int, surprises: NDArray[np.float32], encoder: TextEncoder
    ) -> tuple[int, NDArray[np.float32]]:
        """Return the surprises of the characters of a line that were read, and the column of the first of them.

        surprises: those of the symbols, [symbols].
        """
        text = self.before + self.ahead
        k = line - self.start.line if self.start else -1
        if not 0 <= k < len(self.line_starts):
            return 0, surprises[:0]
        column = self.start.column if self.start and not k else 0
        first = self.line_starts[k]
        last = self.line_starts[k + 1] - 1 if k + 1 < len(self.line_starts) else len(text)
        if len(surprises) == len(text):
            return column, surprises[first:last]
        if self.symbols is None:
            self.symbols = encoder.find_symbols(text)
        begins, ends = (np.minimum(each[first:last], len(surprises)) for each in self.symbols)
        edges = np.concatenate([[0], np.cumsum(np.nan_to_num(surprises), dtype=np.float64)])
        return column, (edges[ends] - edges[begins]).astype(np.float32)


def move_through(changes: list[Change], place: Position | None) -> Position | None:
    """Return where a place is after some changes, None if it is no more."""
    for change in changes:
        place = place and change.move(place)
    return place


def is_within(buffer: TextBuffer, first: Position, last: Position, characters: int) -> bool:
    """Return whether one place is before another, and no more than this many characters."""
    return first <= last and last.line - first.line <= characters and count_between(buffer, first, last) <= characters


def count_between(buffer: TextBuffer, first: Position, last: Position) -> int:
    lengths = sum(len(line) + 1 for line in buffer.lines[first.line : last.line])
    return lengths + last.column - first.column


def find_before(buffer: TextBuffer, place: Position, characters: int) -> Position:
    """Return the start of a line this many characters before a place, or one within a line that is much longer."""
    line, left = place.line, characters - place.column
    if left < -characters:
        return Position(line, place.column - characters)
    while left > 0 and line:
        line -= 1
        left -= len(buffer.lines[line]) + 1
    if left < -characters:
        return Position(line, len(buffer.lines[line]) - characters)
    return Position(line, 0)


def find_after(buffer: TextBuffer, place: Position, characters: int) -> Position:
    """Return the end of a line this many characters after a place, or one within a line that is much longer."""
    line, column, left = *place, characters
    while left > len(buffer.lines[line]) - column and line + 1 < len(buffer.lines):
        left -= len(buffer.lines[line]) - column + 1
        line, column = line + 1, 0
    return Position(line, min(column + max(left, 0) + characters, len(buffer.lines[line])))
