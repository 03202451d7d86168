"""What a model of a text has to beat, in bits per character: the entropy of single characters, that of a character
once the three before it are known, and what xz makes of it."""

from __future__ import annotations

import lzma
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Counts = NDArray[np.integer[Any]]
Points = NDArray[np.uint32]

MAX_COUNTED = 2_000_000
"""Characters at the beginning of a text in which contexts are counted."""

MAX_COMPRESSED = 2 << 20
"""Bytes of a text's beginning that xz is tried on: a second or two."""

COVERAGE = 0.9
"""Probability that the next four characters have been seen together before, below which counting them tells nothing."""

EULER = 0.5772156649015329


@dataclass(frozen=True)
class Baseline:
    """A figure and the number of characters, from the beginning of the text, that it was measured on."""

    bpc: float
    characters: int


def entropy(counts: Counts) -> float:
    """Of a character by itself, in bits."""
    shares = counts / counts.sum()
    return max(float(-(shares * np.log2(shares)).sum()), 0.0)


class TextPrefix:
    """The code points of the first `COUNTED` characters."""

    def __init__(self) -> None:
        self.parts: list[Points] = []
        self.length = 0

    def add(self, points: Points) -> None:
        kept = points[: MAX_COUNTED - self.length]
        if len(kept):
            self.parts.append(kept.copy())
            self.length += len(kept)

    def context_entropy(self) -> Baseline | None:
        """Of a character once the three before it are known; None where the text is too short to tell."""
        bits = context_entropy(np.concatenate([np.empty(0, np.uint32), *self.parts]))
        return Baseline(bits, self.length) if bits is not None else None


def context_entropy(points: Points) -> float | None:
    """Entropy of a character in bits, given the three before it; None where most of what comes next would be new.

    As counted it is far too low, since most contexts are rare: each one's entropy is estimated as by Grassberger 2003
    (arXiv:physics/0307138, eq. 27). Whether there is enough to count is told by Turing's estimate (Good 1953) of the
    probability of what has been seen before.
    """
    if len(points) < 4:
        return None
    codes = points.astype(np.uint64)
    _, pairs = np.unique(codes[:-1] << 32 | codes[1:], return_inverse=True)
    fours = count_distinct(pairs[:-2] << 32 | pairs[2:])
    threes = count_distinct(codes[:-3] << 42 | codes[1:-2] << 21 | codes[2:-1])
    total = fours.sum()
    if 1 - (fours == 1).sum() / total < COVERAGE:
        return None
    nats = (threes * np.log(threes)).sum() - (fours * grassberger(fours)).sum()
    return max(float(nats / total / np.log(2)), 0.0)


def count_distinct(codes: NDArray[np.integer[Any]]) -> Counts:
    """How often each different one occurs."""
    counts: Counts = np.unique(codes, return_counts=True)[1]
    return counts


def grassberger(counts: Counts) -> NDArray[np.float64]:
    """G(n) of each count, which takes the place of log n: G(1) = -γ - log 2, and G(2k) = G(2k + 1) is higher than that
    by 2 + 2/3 + 2/5 + ... + 2/(2k - 1)."""
    sums: NDArray[np.float64] = np.zeros(int(counts.max()) // 2 + 1)
    np.cumsum(2 / (2 * np.arange(1, len(sums)) - 1), out=sums[1:])
    logarithms: NDArray[np.float64] = sums[counts // 2] - (EULER + np.log(2))
    return logarithms


class XzBaseline:
    """What xz makes of the text's beginning, with its own default settings."""

    def __init__(self) -> None:
        self.compressor = lzma.LZMACompressor()
        self.bytes = self.characters = self.compressed = 0

    def add(self, text: str) -> None:
        room = MAX_COMPRESSED - self.bytes
        data = text[:room].encode()
        if len(data) > room:
            data = data[:room].decode(errors="ignore").encode()
            self.bytes = MAX_COMPRESSED  # a character more would be too much
        else:
            self.bytes += len(data)
        self.characters += len(data.decode())
        self.compressed += len(self.compressor.compress(data))

    def finish(self) -> Baseline:
        size = self.compressed + len(self.compressor.flush())
        return Baseline(8 * size / self.characters, self.characters)
