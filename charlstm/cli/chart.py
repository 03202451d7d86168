"""A curve in a terminal, of braille patterns: each character is two dots wide and four high."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from math import ceil, floor

import numpy as np

ROWS = 12
MARGIN = 6  # columns for the figures at the left
NARROWEST, WIDEST = 20, 100

BLANK = 0x2800
BITS = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))
"""What a dot adds to the number of its character: the left column's four from the top down, then the right one's."""


def chart(points: Sequence[tuple[float, float]], mark: float, width: int) -> list[str]:
    """Lines of at most `width` columns, 20 or more, that show y over x, with an arrow below x = `mark`.

    x is above 0 and ascends; its scale is logarithmic.
    """
    columns = min(max(width, NARROWEST), WIDEST) - MARGIN - 1
    xs, ys = np.log10([x for x, _ in points]), np.array([y for _, y in points])
    first, last, low, high = xs[0], xs[-1], ys.min(), ys.max()

    def column(x: float) -> int:
        return round(float(np.clip((x - first) / max(last - first, 1e-9), 0, 1)) * (columns - 1))

    heights = np.interp(np.linspace(first, last, 2 * columns), xs, ys)
    depths = np.rint((high - heights) / max(high - low, 1e-9) * (4 * ROWS - 1)).astype(int).tolist()
    curve = braille(depths, columns)
    decades = range(ceil(first - 1e-6), floor(last + 1e-6) + 1)
    ticks = {column(n): f"{10.0**n:g}" for n in decades}
    axis = "".join("┬" if k in ticks else "─" for k in range(columns))
    figures = {0: f"{high:.2f}", ROWS - 1: f"{low:.2f}"}
    return [
        *(f"{figures.get(k, ''):>{MARGIN}}│{line}" for k, line in enumerate(curve)),
        f"{'':{MARGIN}}└{axis}",
        f"{'':{MARGIN}} {placed(ticks, columns)}",
        f"{'':{MARGIN}} {placed({column(float(np.log10(mark))): f'▲ {mark:.2g}'}, columns)}",
    ]


def braille(depths: Sequence[int], columns: int) -> Iterable[str]:
    """Rows of characters for a line that lies so many dots below the top, from one column of dots to the next."""
    canvas = [[BLANK] * columns for _ in range(ROWS)]
    for x, (before, here) in enumerate(pairwise([depths[0], *depths])):
        step = 1 if here > before else -1
        for y in {here, *range(before + step, here, step)}:
            canvas[y // 4][x // 2] |= BITS[x % 2][y % 4]
    return ("".join(chr(c) if c > BLANK else " " for c in row).rstrip() for row in canvas)


def placed(texts: Mapping[int, str], columns: int) -> str:
    """A line with each text at its column, or as near as there is room; without those that would touch another."""
    line = ""
    for column, text in sorted(texts.items()):
        start = min(column, columns - len(text))
        if start > len(line) or not line:
            line = line.ljust(start) + text
    return line
