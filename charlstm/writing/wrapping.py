"""Where a long line continues on the next row of the screen."""

from __future__ import annotations

from functools import lru_cache
from itertools import chain, pairwise

from charlstm.writing.graphemes import count_cells, draw_cluster, is_plain, iterate_clusters


@lru_cache(maxsize=512)
def find_row_starts(text: str, width: int, ghost: tuple[int, int] | None = None) -> tuple[int, ...]:
    """Return the columns at which the rows of a text without newlines begin, 0 first.

    A row ends after white space, if it has any, and has at most `width` cells. A space may follow in one more.

    ghost: where ghost text begins and ends, if there is any. It does not move what is before it: the row in which it
        begins ends after white space in the ghost text, or is filled.
    """
    if is_plain(text):
        return tuple(wrap_plain(text, width, ghost[0] if ghost else -1))
    return tuple(wrap_clusters(text, width, ghost))


def wrap_plain(text: str, width: int, ghost_start: int) -> list[int]:
    starts = [0]
    while len(text) - starts[-1] > width:
        start = starts[-1]
        after_space = text.rfind(" ", start, start + width + 1) + 1
        least = max(start, ghost_start if ghost_start <= start + width else 0)
        starts.append(after_space if after_space > least else start + width)
    return starts


def wrap_clusters(text: str, width: int, ghost: tuple[int, int] | None) -> list[int]:
    edges = (0, *ghost, len(text)) if ghost else (0, len(text))
    starts, x, column, cut = [0], 0, 0, 0
    x_at_cut = 0
    for cluster in chain.from_iterable(iterate_clusters(text[a:b]) for a, b in pairwise(edges)):
        cells = count_cells(draw_cluster(cluster, x))
        if ghost and column == ghost[0]:
            cut = starts[-1]
        while x + cells > width + cluster.isspace() and column > starts[-1]:
            start, x = (cut, x - x_at_cut) if cut > starts[-1] else (column, 0)
            starts.append(start)
            cells = count_cells(draw_cluster(cluster, x))
        column, x = column + len(cluster), x + cells
        if cluster.isspace():
            cut, x_at_cut = column, x
            if x > width:
                starts.append(column)
                x = 0
    return starts
