"""The visible rows: the text wrapped to the width of the screen, with the ghost text at the cursor."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from charlstm.writing.buffer import Position
from charlstm.writing.graphemes import count_cells, draw_clusters, iterate_clusters
from charlstm.writing.session import Session
from charlstm.writing.wrapping import find_row_starts

MAX_BLOCK = 4096
"""Characters of a line that are wrapped at once. Where a longer one is cut, a row ends."""

MAX_MARGIN = 3
"""Rows below the cursor that stay visible, for ghost text."""

Piece = tuple[str, str]
"""A style ("", "ghost" or "marked") and the text displayed in it."""

Span = tuple[int, int, str]
"""The first character of a text that has a style, the one after the last, and the style."""


@dataclass(frozen=True)
class ScreenRow:
    """A row of the screen: where its text begins, and characters of a text in which spans have a style.

    A row of nothing but ghost text begins where the cursor is.
    """

    start: Position
    text: str
    first: int
    last: int
    spans: tuple[Span, ...] = ()
    is_before_newline: bool = True  # of the ghost text, if there is any

    def draw(self) -> Iterator[Piece]:
        """Yield the pieces of the row."""
        at, x = self.first, 0
        for first, last, style in (*self.spans, (self.last, self.last, "")):
            for begin, end, used in ((at, min(first, self.last), ""), (max(first, at), min(last, self.last), style)):
                if begin < end:
                    drawn = draw_clusters(self.text[begin:end], x)
                    x += count_cells(drawn)
                    at = end
                    yield used, drawn


@dataclass(frozen=True)
class Screen:
    """What is visible: rows, and the row and character of the row at which the cursor is."""

    rows: tuple[tuple[Piece, ...], ...]
    cursor_row: int
    cursor_index: int


class View:
    """A window on the text of a session, which follows the cursor.

    width: cells of a row. One more must be free at its end, for the cursor or a space.
    """

    def __init__(self, session: Session) -> None:
        self.session, self.buffer = session, session.buffer
        self.width, self.height = 80, 24
        self.top = Position(0, 0)
        self.goal: int | None = None  # the cell that the cursor keeps to while it moves up and down

    @property
    def margin(self) -> int:
        return min(MAX_MARGIN, self.height // 4)

    def draw(self, width: int, height: int) -> Screen:
        """Return the screen of this size around the cursor."""
        self.width, self.height = max(width, 1), max(height, 1)
        block = self.make_rows(self.buffer.cursor)
        at = self.find_cursor_row(block)
        above = [*self.collect_rows_above(block[0].start, self.height), *block[:at]]
        self.scroll([row.start for row in above], block[at].start)
        rows = [row for row in above if row.start >= self.top] + block[at:]
        cursor_row = len(rows) - len(block[at:])
        rows += self.collect_rows_below(self.find_end(block), self.height - len(rows))
        row, column = rows[cursor_row], self.find_cursor_column()
        shown = rows[: self.height]
        self.session.show_until(self.find_end(shown))
        index = len(draw_clusters(row.text[row.first : column]))
        return Screen(tuple(tuple(each.draw()) for each in shown), cursor_row, index)

    def scroll(self, above: list[Position], cursor: Position) -> None:
        """Choose the first visible row among those above the cursor and its own."""
        nearest = above[-(self.height - 1 - self.margin) :] if self.height - 1 > self.margin else []
        if self.top > cursor:
            self.top = cursor
        elif nearest and self.top < nearest[0]:
            self.top = nearest[0]
        else:
            self.top = max((start for start in [*nearest, cursor] if start <= self.top), default=cursor)

    def make_rows(self, place: Position, *, plain: bool = False) -> list[ScreenRow]:
        """Return the rows of the block of a line in which a place is, with the ghost text unless `plain`."""
        line = self.buffer.lines[place.line]
        first = min(place.column, max(len(line) - 1, 0)) // MAX_BLOCK * MAX_BLOCK
        text, begin = line[first : first + MAX_BLOCK], Position(place.line, first)
        marked = [(a, b, "marked") for a, b in self.session.find_marked(place.line, first, first + len(text))]
        cursor = self.buffer.cursor
        if plain or not self.session.ghost or self.find_block(cursor) != begin:
            return cut_rows(begin, text, find_row_starts(text, self.width), marked)
        return self.make_ghost_rows(begin, text, cursor.column - first, marked)

    def make_ghost_rows(self, begin: Position, text: str, column: int, marked: list[Span]) -> list[ScreenRow]:
        """Return the rows of a block in which the ghost text is inserted."""
        pieces = self.session.ghost.split("\n")
        rows: list[ScreenRow] = []
        for k, piece in enumerate(pieces):
            head = text[:column] if k == 0 else ""
            tail = text[column:] if k == len(pieces) - 1 else ""
            ghost_end = len(head) + len(piece)
            spans = [(a, min(b, len(head)), style) for a, b, style in marked if a < len(head)]
            spans.append((len(head), ghost_end, "ghost"))
            if tail:
                moved = ((max(a - column, 0), b - column, style) for a, b, style in marked)
                spans += [(a + ghost_end, b + ghost_end, style) for a, b, style in moved if b > 0]
            starts = find_row_starts(head + piece + tail, self.width, (len(head), ghost_end))
            first_place = Position(begin.line, begin.column + (column if k else 0))
            for row in cut_rows(first_place, head + piece + tail, starts, spans):
                inside = min(row.first, len(head)) + max(row.first - ghost_end, 0)  # characters before it that are text
                place = Position(begin.line, first_place.column + inside)
                rows.append(replace(row, start=place, is_before_newline=k == 0))
        return rows

    def find_block(self, place: Position) -> Position:
        """Return where the block of a place begins."""
        length = len(self.buffer.lines[place.line])
        return Position(place.line, min(place.column, max(length - 1, 0)) // MAX_BLOCK * MAX_BLOCK)

    def find_cursor_column(self) -> int:
        """Return the column of the cursor in the text of its rows."""
        return self.buffer.cursor.column - self.find_block(self.buffer.cursor).column

    def find_cursor_row(self, block: list[ScreenRow]) -> int:
        """Return the index of the row with the cursor in the rows of its block."""
        column = self.find_cursor_column()
        return max(k for k, row in enumerate(block) if row.is_before_newline and row.first <= column)

    def collect_rows_above(self, begin: Position, count: int) -> list[ScreenRow]:
        """Return the rows before a block, the nearest `count` or a few more."""
        rows: list[ScreenRow] = []
        while len(rows) < count:
            if begin.column:
                begin = Position(begin.line, begin.column - MAX_BLOCK)
            elif begin.line:
                begin = self.find_block(Position(begin.line - 1, len(self.buffer.lines[begin.line - 1])))
            else:
                break
            rows = self.make_rows(begin, plain=True) + rows
        return rows

    def collect_rows_below(self, end: Position, count: int) -> list[ScreenRow]:
        """Return the rows after the end of a block, `count` or a few more."""
        rows: list[ScreenRow] = []
        while len(rows) < count:
            if end.column < len(self.buffer.lines[end.line]):
                begin = end
            elif end.line + 1 < len(self.buffer.lines):
                begin = Position(end.line + 1, 0)
            else:
                break
            rows += self.make_rows(begin, plain=True)
            end = self.find_end(rows)
        return rows

    def find_end(self, rows: list[ScreenRow]) -> Position:
        """Return where the text of some rows ends."""
        last = rows[-1]
        ghost = sum(min(b, last.last) - max(a, last.first) for a, b, s in last.spans if s == "ghost" and b > last.first)
        column = last.start.column + last.last - last.first - max(ghost, 0)
        return self.buffer.clip(Position(last.start.line, column))

    def move_rows(self, count: int) -> None:
        """Move the cursor down by this many rows, up if negative. It keeps to its cell where rows are long enough."""
        rows, at = self.collect_plain_rows(abs(count))
        cursor = self.buffer.cursor
        here = rows[at]
        if self.goal is None:
            self.goal = count_cells(
                draw_clusters(here.text[here.first : here.first + cursor.column - here.start.column])
            )
        to = at + count
        if to < 0 or to >= len(rows):
            place = self.buffer.end if to > 0 else Position(0, 0)
        else:
            place = find_cell(rows[to], self.goal)
        goal = self.goal
        self.session.move_to(place)
        self.goal = goal

    def collect_plain_rows(self, count: int) -> tuple[list[ScreenRow], int]:
        """Return the rows around the cursor, `count` or more on either side, and the index of its own."""
        cursor = self.buffer.cursor
        block = self.make_rows(cursor, plain=True)
        column = self.find_cursor_column()
        at = max(k for k, row in enumerate(block) if row.first <= column)
        above = self.collect_rows_above(block[0].start, count)
        return [*above, *block, *self.collect_rows_below(self.find_end(block), count)], len(above) + at

    def find_row_edges(self) -> tuple[Position, Position]:
        """Return the first and the last place of the row with the cursor."""
        rows, at = self.collect_plain_rows(1)
        row = rows[at]
        return row.start, find_cell(row, self.width + 1)


def cut_rows(begin: Position, text: str, starts: tuple[int, ...], spans: list[Span]) -> list[ScreenRow]:
    """Return the rows of a text that begin at these columns."""
    ends = [*starts[1:], len(text)]
    return [
        ScreenRow(
            Position(begin.line, begin.column + first),
            text,
            first,
            last,
            tuple(span for span in spans if span[0] < last and span[1] > first),
        )
        for first, last in zip(starts, ends, strict=True)
    ]


def find_cell(row: ScreenRow, cell: int) -> Position:
    """Return the place in a row at a cell, or the last place of a shorter row."""
    column, x = row.first, 0
    is_last = row.last == len(row.text)
    for cluster in iterate_clusters(row.text[row.first : row.last]):
        width = count_cells(draw_clusters(cluster, x))
        if x + width > cell or (not is_last and column + len(cluster) >= row.last):
            break
        column, x = column + len(cluster), x + width
    return Position(row.start.line, row.start.column + column - row.first)
