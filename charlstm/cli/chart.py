"""A curve in a terminal, of braille patterns: each character has two columns and four rows of dots."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from math import ceil, floor

import numpy as np

ROWS = 12
MARGIN = 6
"""Columns for the numbers at the left."""
MIN_WIDTH, MAX_WIDTH = 20, 100

BLANK = 0x2800
"""The braille pattern without dots."""

DOT_BITS = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))
"""The bit of each dot in the code point of its character: the left column from the top, then the right one."""


def draw_chart(points: Sequence[tuple[float, float]], mark: float, width: int) -> list[str]:
    """Return the lines of a chart of y over x, at most `width` columns wide, with an arrow below x = `mark`.

    points: (x, y), x positive and ascending; the x axis is logarithmic. width: at least 20.
    """
    columns = min(max(width, MIN_WIDTH), MAX_WIDTH) - MARGIN - 1
    xs, ys = np.log10([x for x, _ in points]), np.array([y for _, y in points])
    first, last, low, high = xs[0], xs[-1], ys.min(), ys.max()

    def column(x: float) -> int:
        return round(float(np.clip((x - first) / max(last - first, 1e-9), 0, 1)) * (columns - 1))

    heights = np.interp(np.linspace(first, last, 2 * columns), xs, ys)
    depths = np.rint((high - heights) / max(high - low, 1e-9) * (4 * ROWS - 1)).astype(int).tolist()
    curve = draw_curve(depths, columns)
    decades = range(ceil(first - 1e-6), floor(last + 1e-6) + 1)
    ticks = {column(n): f"{10.0**n:g}" for n in decades}
    axis = "".join("┬" if k in ticks else "─" for k in range(columns))
    scale = {0: f"{high:.2f}", ROWS - 1: f"{low:.2f}"}
    return [
        *(f"{scale.get(k, ''):>{MARGIN}}│{line}" for k, line in enumerate(curve)),
        f"{'':{MARGIN}}└{axis}",
        f"{'':{MARGIN}} {place_labels(ticks, columns)}",
        f"{'':{MARGIN}} {place_labels({column(float(np.log10(mark))): f'▲ {mark:.2g}'}, columns)}",
    ]


def draw_curve(depths: Sequence[int], columns: int) -> Iterable[str]:
    """Return rows of braille for a curve, given as dots below the top for each column of dots."""
    canvas = [[BLANK] * columns for _ in range(ROWS)]
    for x, (before, here) in enumerate(pairwise([depths[0], *depths])):
        step = 1 if here > before else -1
        for y in {here, *range(before + step, here, step)}:
            canvas[y // 4][x // 2] |= DOT_BITS[x % 2][y % 4]
    return ("".join(chr(c) if c > BLANK else " " for c in row).rstrip() for row in canvas)


def place_labels(labels: Mapping[int, str], columns: int) -> str:
    """Return a line with each label at its column or further left; a label that would touch the last is omitted."""
    line = ""
    for column, text in sorted(labels.items()):
        start = min(column, columns - len(text))
        if start > len(line) or not line:
            line = line.ljust(start) + text
    return line
