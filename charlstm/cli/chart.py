"""A chart in a terminal, of braille patterns: each character has two columns and four rows of dots."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import floor, log10

import numpy as np
from numpy.typing import ArrayLike, NDArray

from charlstm.cli.output import format_count

ROWS = 12
MARGIN = 6
"""Columns for the numbers at the left, at least."""
MIN_WIDTH = 20

BLANK = 0x2800
"""The braille pattern without dots."""

DOT_BITS = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))
"""The bit of each dot in the code point of its character: the left column from the top, then the right one."""

Y_LABELS = 4
"""Numbers at the left of a chart."""

MARK_DISTANCE = 24
"""Columns between two marks on a line, at least."""


@dataclass(frozen=True)
class Line:
    """A line of a chart.

    mark: a letter that is shown on it, so that lines can be told apart without color; empty for none.
    color: the SGR code of its color; empty for that of the text.
    """

    xs: ArrayLike
    ys: ArrayLike
    mark: str = ""
    color: str = ""


Ticks = Mapping[float, str]
"""The labels of an axis, by their places."""


def draw_chart(
    lines: Sequence[Line],
    width: int,
    choose_ticks: Callable[[float, float, int], Ticks],
    *,
    rows: int = ROWS,
    log_x: bool = False,
    bottom: float | None = None,
    top: float | None = None,
    arrow: tuple[float, str] | None = None,
) -> list[str]:
    """Return the rows of a chart, `width` columns wide or less. Lines that come later are drawn over the others.

    width: at least 20.
    choose_ticks: returns the labels of the x axis, given its ends and the columns that it has.
    log_x: whether the x axis is logarithmic.
    bottom, top: the lowest and the highest y of the axis; None is that of the lines.
    arrow: an x to point at, and a text for it.
    """
    scale: Callable[[ArrayLike], NDArray[np.float64]] = np.log10 if log_x else np.asarray
    xs = np.concatenate([line.xs for line in lines])
    first, last = (float(scale(end(xs))) for end in (np.min, np.max))

    def place(x: ArrayLike, count: int) -> NDArray[np.int64]:
        """Return which of `count` columns an x is in."""
        share = np.clip((scale(x) - first) / max(last - first, 1e-9), 0, 1)
        return np.rint(share * (count - 1)).astype(int)

    most = 2 * (max(width, MIN_WIDTH) - MARGIN - 1)  # columns of dots
    ys = np.concatenate([average_columns(place(line.xs, most), np.asarray(line.ys, float))[1] for line in lines])
    low, high = float(ys.min()) if bottom is None else bottom, float(ys.max()) if top is None else top
    levels = {round(k * (rows - 1) / (Y_LABELS - 1)): high - k * (high - low) / (Y_LABELS - 1) for k in range(Y_LABELS)}
    labels = {row: format_level(value, high - low) for row, value in levels.items()}
    margin = max(MARGIN, *map(len, labels.values()))
    columns = max(width, MIN_WIDTH) - margin - 1
    canvas, traced = Canvas(rows, columns), []
    for line in lines:
        start, heights = average_columns(place(line.xs, 2 * columns), np.asarray(line.ys, float))
        shown = np.flatnonzero(heights <= high)
        depths = np.rint((high - heights) / max(high - low, 1e-9) * (4 * rows - 1)).astype(int).clip(0, 4 * rows - 1)
        begin = int(shown[0]) if len(shown) else 0
        traced.append(canvas.draw(start + begin, depths[begin:].tolist(), line.color))
    for k, (line, path) in enumerate(zip(lines, traced, strict=True)):
        canvas.mark(path, line.mark, line.color, k / len(lines), max(MARK_DISTANCE, 3 * len(lines)))
    ticks = {
        int(place(x, columns)): text for x, text in choose_ticks(float(xs.min()), float(xs.max()), columns).items()
    }
    axis = "".join("┬" if k in ticks else "─" for k in range(columns))
    below = [ticks] if arrow is None else [ticks, {int(place(arrow[0], columns)): f"▲ {arrow[1]}"}]
    return [
        *(f"{labels.get(k, ''):>{margin}}│{row}" for k, row in enumerate(canvas.rows())),
        f"{'':{margin}}└{axis}",
        *(f"{'':{margin}} {place_labels(texts, columns)}" for texts in below),
    ]


def average_columns(places: NDArray[np.int64], ys: NDArray[np.float64]) -> tuple[int, NDArray[np.float64]]:
    """Return the first column of dots that has a value, and from there on the mean of the values in each column.

    Columns without values get those between their neighbors.
    """
    counts, sums = np.bincount(places), np.bincount(places, ys)
    filled = np.flatnonzero(counts)
    return int(filled[0]), np.interp(np.arange(filled[0], filled[-1] + 1), filled, sums[filled] / counts[filled])


class Canvas:
    """The dots of a chart, and the marks that are written over them."""

    def __init__(self, rows: int, columns: int) -> None:
        self.dots = [[BLANK] * columns for _ in range(rows)]
        self.colors = [[""] * columns for _ in range(rows)]
        self.marks: dict[tuple[int, int], str] = {}  # by row and column

    def draw(self, start: int, depths: Sequence[int], color: str) -> dict[int, int]:
        """Draw a line, given as dots below the top for each column of dots from `start` on.

        Returns the row that it is in, by column.
        """
        path = {}
        for x, (before, here) in enumerate(pairwise([depths[0], *depths]), start):
            step = 1 if here > before else -1
            for y in {here, *range(before + step, here, step)}:
                self.dots[y // 4][x // 2] |= DOT_BITS[x % 2][y % 4]
                self.colors[y // 4][x // 2] = color
            path[x // 2] = here // 4
        return path

    def mark(self, path: Mapping[int, int], mark: str, color: str, share: float, distance: int) -> None:
        """Write a mark on a line at every distance, beginning with a share of it."""
        offset = round((share + 0.5) * distance) % distance
        columns = [column for column in path if column % distance == offset] or [*path][len(path) // 2 :][:1]
        for column in columns if mark else ():
            self.marks[path[column], column] = mark
            self.colors[path[column]][column] = color

    def rows(self) -> Iterator[str]:
        """Yield the rows as text."""
        for row, dots in enumerate(self.dots):
            width = max((column + 1 for column, dot in enumerate(dots) if dot > BLANK), default=0)
            cells = [self.marks.get((row, k), chr(dot) if dot > BLANK else " ") for k, dot in enumerate(dots[:width])]
            yield "".join(paint(cell, self.colors[row][k]) for k, cell in enumerate(cells))


def paint(text: str, color: str) -> str:
    """Return a text in the color of an SGR code; empty for none."""
    return f"\x1b[{color}m{text}\x1b[0m" if color and text != " " else text


def format_level(value: float, spread: float) -> str:
    """Return a number with as many digits as tell apart the levels of an axis of this length."""
    if abs(value) >= 1e4:
        return format_count(value)
    return f"{value:.{max(2 - floor(log10(max(spread, 1e-6))), 0)}f}"


def place_labels(labels: Mapping[int, str], columns: int) -> str:
    """Return a line with each label at its column or further left; a label that would touch the last is omitted."""
    line = ""
    for column, text in sorted(labels.items()):
        start = min(column, columns - len(text))
        if start > len(line) or not line:
            line = line.ljust(start) + text
    return line
