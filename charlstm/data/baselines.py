"""Baselines for a model of a text, in bits per character: order-0 and order-3 entropy, and the size that xz reaches."""

from __future__ import annotations

import lzma
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Counts = NDArray[np.integer[Any]]
CodePoints = NDArray[np.uint32]

MAX_COUNTED = 2_000_000
"""Characters at the beginning of a text whose contexts are counted."""

MAX_COMPRESSED = 2 << 20
"""Bytes at the beginning of a text that xz compresses, which takes a second or two."""

MIN_COVERAGE = 0.9
"""Estimated probability that the next four characters occurred together before. Below it the entropy estimate is
unreliable, because too many contexts are new."""

EULER_GAMMA = 0.5772156649015329


@dataclass(frozen=True)
class Baseline:
    """Bits per character, measured on the first `characters` characters of a text."""

    bpc: float
    characters: int


def entropy(counts: Counts) -> float:
    """Return the entropy in bits of a distribution with these counts, [symbols]."""
    shares = counts / counts.sum()
    return max(0.0, -float((shares * np.log2(shares)).sum()))


class TextPrefix:
    """The code points of the first `MAX_COUNTED` characters of a text, added in chunks."""

    def __init__(self) -> None:
        self.parts: list[CodePoints] = []
        self.length = 0

    def add(self, points: CodePoints) -> None:
        kept = points[: MAX_COUNTED - self.length]
        if len(kept):
            self.parts.append(kept.copy())
            self.length += len(kept)

    def context_entropy(self) -> Baseline | None:
        """Return the order-3 entropy of the prefix, or None if it is too short for an estimate."""
        bits = context_entropy(np.concatenate([np.empty(0, np.uint32), *self.parts]))
        return Baseline(bits, self.length) if bits is not None else None


def context_entropy(points: CodePoints) -> float | None:
    """Return the entropy of a character in bits given the three characters before it, or None for too short a text.

    The plug-in estimate is far too low because most contexts are rare. This one corrects the entropy of each context
    as in Grassberger 2003 (arXiv:physics/0307138, eq. 27). A text is too short if Turing's estimate (Good 1953) of the
    probability that the next four characters occurred together before is below `MIN_COVERAGE`.
    """
    if len(points) < 4:
        return None
    codes = points.astype(np.uint64)
    _, pairs = np.unique(codes[:-1] << 32 | codes[1:], return_inverse=True)
    fours = count_distinct(pairs[:-2] << 32 | pairs[2:])
    threes = count_distinct(codes[:-3] << 42 | codes[1:-2] << 21 | codes[2:-1])
    total = fours.sum()
    if 1 - (fours == 1).sum() / total < MIN_COVERAGE:
        return None
    nats = (threes * np.log(threes)).sum() - (fours * grassberger(fours)).sum()
    return max(0.0, float(nats / total / np.log(2)))


def count_distinct(codes: NDArray[np.integer[Any]]) -> Counts:
    """Count the occurrences of each distinct code, [distinct]."""
    counts: Counts = np.unique(codes, return_counts=True)[1]
    return counts


def grassberger(counts: Counts) -> NDArray[np.float64]:
    """Compute G(n) for each count n, which replaces log n in the entropy.

    G(1) = -γ - log 2, and G(2k) = G(2k + 1) = G(1) + 2 + 2/3 + 2/5 + ... + 2/(2k - 1).
    """
    sums: NDArray[np.float64] = np.zeros(int(counts.max()) // 2 + 1)
    np.cumsum(2 / (2 * np.arange(1, len(sums)) - 1), out=sums[1:])
    logarithms: NDArray[np.float64] = sums[counts // 2] - (EULER_GAMMA + np.log(2))
    return logarithms


class XzBaseline:
    """The compressed size of the beginning of a text, with the default settings of xz; the text is added in chunks."""

    def __init__(self) -> None:
        self.compressor = lzma.LZMACompressor()
        self.bytes = self.characters = self.compressed = 0

    def add(self, text: str) -> None:
        room = MAX_COMPRESSED - self.bytes
        data = text[:room].encode()
        if len(data) > room:
            data = data[:room].decode(errors="ignore").encode()
            self.bytes = MAX_COMPRESSED  # full: the next character does not fit
        else:
            self.bytes += len(data)
        self.characters += len(data.decode())
        self.compressed += len(self.compressor.compress(data))

    def finish(self) -> Baseline:
        size = self.compressed + len(self.compressor.flush())
        return Baseline(8 * size / self.characters, self.characters)
