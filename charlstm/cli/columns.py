"""Names in columns of a terminal."""

from __future__ import annotations

from rich.cells import cell_len


def shorten(text: str, width: int) -> str:
    """Return a text of at most this many columns, with its end kept, by which names differ."""
    if cell_len(text) <= width:
        return text
    tail = text
    while cell_len(tail) > width - 1:
        tail = tail[1:]
    return f"…{tail}"
