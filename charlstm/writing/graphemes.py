"""Grapheme clusters: what a reader takes for one character, and the cells that it occupies on a terminal.

Terminals disagree about the width of emoji sequences, and a wrong guess misplaces the rest of the row. A sequence is
therefore drawn as parts whose width is the same everywhere: its emoji without joiners and modifiers, a flag as letters.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from wcwidth import grapheme_boundary_before, iter_graphemes, wcwidth

from charlstm.console import UNSAFE, escape_character

TAB_COLUMNS = 8
"""Cells between two tab stops."""

MAX_CLUSTER = 64
"""Characters of a cluster; the next one then begins, whatever it is."""

FLAG_LETTERS = range(0x1F1E6, 0x1F200)
SKIN_TONES = range(0x1F3FB, 0x1F400)
DOTTED_CIRCLE = "◌"
"""What a combining mark without a base is drawn on."""


def is_plain(text: str) -> bool:
    """Return whether every character is a cluster of its own that occupies one cell."""
    return text.isascii() and text.isprintable()


def iterate_clusters(text: str) -> Iterator[str]:
    """Yield the grapheme clusters of a text."""
    for cluster in iter_graphemes(text):
        for start in range(0, len(cluster), MAX_CLUSTER):
            yield cluster[start : start + MAX_CLUSTER]


def find_next_boundary(text: str, column: int) -> int:
    """Return the end of the cluster that begins at a column."""
    return column + len(next(iterate_clusters(text[column : column + MAX_CLUSTER]), ""))


def find_previous_boundary(text: str, column: int) -> int:
    """Return the beginning of the cluster that ends at a column."""
    start = max(column - MAX_CLUSTER, 0)
    piece = text[start:column]
    return start + (grapheme_boundary_before(piece, len(piece)) if piece else 0)


def draw_cluster(cluster: str, x: int) -> str:
    """Return the characters to display for a cluster that begins in cell `x` of its row."""
    if cluster == "\t":
        return " " * (TAB_COLUMNS - x % TAB_COLUMNS)
    drawn = "".join(draw_character(character, k == 0) for k, character in enumerate(cluster))
    return DOTTED_CIRCLE + drawn if drawn and not count_cells(drawn) else drawn


def draw_character(character: str, is_first: bool) -> str:
    """Return the characters to display for a character of a cluster."""
    if UNSAFE.match(character) or character in "\u2028\u2029" or wcwidth(character) < 0:
        return escape_character(character)
    if ord(character) in FLAG_LETTERS:
        return chr(ord("A") + ord(character) - FLAG_LETTERS.start)
    is_invisible = unicodedata.category(character) == "Cf" or 0xFE00 <= ord(character) <= 0xFE0F
    if wcwidth(character) == 0 and is_invisible:
        return escape_character(character) if is_first else ""
    return "" if ord(character) in SKIN_TONES and not is_first else character


def count_cells(drawn: str) -> int:
    """Return how many cells a drawn text occupies."""
    return len(drawn) if is_plain(drawn) else sum(max(wcwidth(character), 0) for character in drawn)


def draw_clusters(text: str, x: int = 0) -> str:
    """Return the characters to display for a text without newlines that begins in cell `x` of its row."""
    if is_plain(text):
        return text
    pieces = []
    for cluster in iterate_clusters(text):
        pieces.append(draw_cluster(cluster, x))
        x += count_cells(pieces[-1])
    return "".join(pieces)


def mark_whole_clusters(marked: NDArray[np.bool_], text: str) -> None:
    """Mark all characters of a cluster of which one is marked, since they are drawn together."""
    if is_plain(text) or not marked.any():
        return
    at = 0
    for cluster in iterate_clusters(text):
        end = at + len(cluster)
        marked[at:end] = marked[at:end].any()
        at = end
