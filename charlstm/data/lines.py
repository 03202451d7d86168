"""A text's lines: how many, how long, and how many of them have stood before."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray

COMPARED = 4_000_000
"""Lines that are compared with each other, from the beginning of the text: eight bytes are kept of each."""

NEWLINE, RETURN = 10, 13


@dataclass(frozen=True)
class Lines:
    """Figures of lines; a carriage return is not counted, and blank lines are not compared."""

    count: int
    blank: int
    longest: int  # characters
    compared: int
    repeated: int  # of those compared, the ones that have stood before

    @property
    def duplicates(self) -> float:
        """The share of lines that have stood before."""
        return self.repeated / self.compared if self.compared else 0.0


class LineCounter:
    """Reads a text in chunks that may be cut anywhere, also within a line, however long that is."""

    def __init__(self) -> None:
        self.count = self.blank = self.longest = 0
        self.length = 0  # of the line that has begun
        self.line = blake2b(digest_size=8)
        self.hashes = bytearray()

    def add(self, text: str, points: NDArray[np.unsignedinteger[Any]]) -> None:
        """A chunk, and its code points."""
        if "\r" in text:
            text, points = text.replace("\r", ""), points[points != RETURN]
        self.compare(text)
        ends = np.flatnonzero(points == NEWLINE)
        lengths = np.diff(ends, prepend=-1) - 1
        if len(lengths):
            lengths[0] += self.length
            self.length = 0
            self.take(lengths)
        self.length += len(points) - (int(ends[-1]) + 1 if len(ends) else 0)

    def take(self, lengths: NDArray[np.int64]) -> None:
        self.count += len(lengths)
        self.blank += int((lengths == 0).sum())
        self.longest = max(self.longest, int(lengths.max()))

    def compare(self, text: str) -> None:
        """Hashes each line that ends here, with what came of it before."""
        if len(self.hashes) == 8 * COMPARED:
            return
        first, *others = text.split("\n")
        self.line.update(first.encode())
        blank = self.length == 0 and not first
        for line in others:
            if not blank and len(self.hashes) < 8 * COMPARED:
                self.hashes += self.line.digest()
            self.line, blank = blake2b(line.encode(), digest_size=8), not line

    def finish(self) -> Lines:
        if self.length:
            self.compare("\n")
            self.take(np.array([self.length]))
        hashes = np.frombuffer(bytes(self.hashes), np.uint64)
        return Lines(self.count, self.blank, self.longest, len(hashes), len(hashes) - len(np.unique(hashes)))
