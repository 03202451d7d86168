"""The ids of a corpus, split by position into training, validation and test parts."""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from itertools import accumulate, pairwise
from math import ceil
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charlstm.errors import CharlstmError

PART_NAMES = ("train", "val", "test")

TokenIds = NDArray[np.unsignedinteger[Any]]
"""The ids of a text, in the smallest type that holds them."""

CHUNK_IDS = 1 << 20
"""Ids per chunk."""

MAX_MAPPED = 16 << 20
"""Ids read from a mapped file before its pages are released."""

MAX_VALIDATION = 5_000_000
"""Largest validation part by default, in ids; evaluating it takes about a minute on two cores."""


class Tokens:
    """A part of a corpus, [length]; `tokens[positions]` copies the ids at these positions.

    The ids may be a file mapped into memory. Its pages are released from time to time, so reading all of it takes
    little memory. `start` and `stop` are positions in `ids`.
    """

    def __init__(self, ids: TokenIds, start: int = 0, stop: int | None = None) -> None:
        self.ids, self.start = ids, start
        self.length = (len(ids) if stop is None else stop) - start
        self.read = 0  # ids since the pages were last released
        self.map: Any = getattr(ids, "_mmap", None)

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, positions: NDArray[np.integer]) -> TokenIds:
        """Return the ids at these positions, which must not be negative, in the shape of `positions`."""
        self.release_pages(positions.size)
        return np.asarray(self.ids[positions + self.start])

    def span(self, start: int, stop: int) -> TokenIds:
        """Return a copy of the ids from `start` to `stop`."""
        self.release_pages(stop - start)
        return np.array(self.ids[self.start + start : self.start + min(stop, self.length)])

    def chunks(self) -> Iterator[TokenIds]:
        """Read all ids in order, in chunks of `CHUNK_IDS`."""
        for at in range(0, self.length, CHUNK_IDS):
            yield self.span(at, at + CHUNK_IDS)

    def release_pages(self, about_to_read: int) -> None:
        self.read += about_to_read
        if self.map is not None and self.read > MAX_MAPPED:
            self.map.madvise(mmap.MADV_DONTNEED)
            self.read = 0


class Split:
    """The ids of a corpus, split into parts of these shares.

    With an `end_of_document` id, each document is whole in one part. Raises CharlstmError if the training or the
    validation part would be empty.
    """

    def __init__(self, ids: TokenIds, shares: tuple[float, ...], end_of_document: int | None = None) -> None:
        self.ids, self.shares = ids, shares
        self.edges = [0, *(self.find_edge(round(len(ids) * share), end_of_document) for share in accumulate(shares))]
        for name, label, share in zip(PART_NAMES, ("training", "validation"), shares, strict=False):
            if not len(self.part(name)):
                unit = "characters" if end_of_document is None else "characters in too few documents"
                raise CharlstmError(
                    f"the corpus has {len(ids):,} {unit}; a {label} part of {share:g} "
                    f"needs at least {ceil(1 / share):,} characters",
                    "add more text or change the shares with --split",
                )

    def find_edge(self, position: int, end_of_document: int | None) -> int:
        """Return the position or, with documents, the end of the document that it is in."""
        if end_of_document is None or position == 0:
            return position
        tokens = Tokens(self.ids)
        for at in range(position - 1, len(self.ids), CHUNK_IDS):
            ends = np.flatnonzero(tokens.span(at, at + CHUNK_IDS) == end_of_document)
            if len(ends):
                return at + int(ends[0]) + 1
        return len(self.ids)

    def part(self, name: str) -> Tokens:
        """Return the part `train`, `val` or `test`, empty if the split does not have it."""
        spans = dict(zip(PART_NAMES, pairwise(self.edges), strict=False))
        return Tokens(self.ids, *spans.get(name, (0, 0)))


def default_shares(length: int, shares: tuple[float, ...]) -> tuple[float, ...]:
    """Return the default shares, with at most `MAX_VALIDATION` ids for validation."""
    share = min(shares[1], MAX_VALIDATION / max(length, 1))
    return (1 - share, share)
