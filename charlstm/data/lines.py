"""The lines of a text: their number, their lengths and how many are repeated."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray

MAX_COMPARED = 4_000_000
"""Lines at the beginning of the text that are compared with each other; each takes eight bytes of memory."""

NEWLINE, CARRIAGE_RETURN = 10, 13


@dataclass(frozen=True)
class Lines:
    """Statistics of lines. Carriage returns are not counted, and blank lines are not compared."""

    count: int
    blank: int
    longest: int  # characters
    compared: int
    repeated: int  # compared lines that are equal to an earlier one

    @property
    def duplicates(self) -> float:
        """The share of the compared lines that are equal to an earlier one."""
        return self.repeated / self.compared if self.compared else 0.0


class LineCounter:
    """Reads a text in chunks of any size and counts its lines. Memory use does not depend on their length."""

    def __init__(self) -> None:
        self.count = self.blank = self.longest = 0
        self.length = 0  # of the unfinished line
        self.line = blake2b(digest_size=8)
        self.hashes = bytearray()

    def add(self, text: str, points: NDArray[np.unsignedinteger[Any]]) -> None:
        """Add a chunk and its code points."""
        if "\r" in text:
            text, points = text.replace("\r", ""), points[points != CARRIAGE_RETURN]
        self.add_hashes(text)
        ends = np.flatnonzero(points == NEWLINE)
        lengths = np.diff(ends, prepend=-1) - 1
        if len(lengths):
            lengths[0] += self.length
            self.length = 0
            self.add_lengths(lengths)
        self.length += len(points) - (int(ends[-1]) + 1 if len(ends) else 0)

    def add_lengths(self, lengths: NDArray[np.int64]) -> None:
        self.count += len(lengths)
        self.blank += int((lengths == 0).sum())
        self.longest = max(self.longest, int(lengths.max()))

    def add_hashes(self, text: str) -> None:
        """Hash each line that ends in this chunk, including the part of it in earlier chunks."""
        if len(self.hashes) == 8 * MAX_COMPARED:
            return
        first, *others = text.split("\n")
        self.line.update(first.encode())
        blank = self.length == 0 and not first
        for line in others:
            if not blank and len(self.hashes) < 8 * MAX_COMPARED:
                self.hashes += self.line.digest()
            self.line, blank = blake2b(line.encode(), digest_size=8), not line

    def finish(self) -> Lines:
        if self.length:
            self.add_hashes("\n")
            self.add_lengths(np.array([self.length]))
        hashes = np.frombuffer(bytes(self.hashes), np.uint64)
        return Lines(self.count, self.blank, self.longest, len(hashes), len(hashes) - len(np.unique(hashes)))
