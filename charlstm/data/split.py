"""A corpus as ids, cut by position into the parts to train on, to validate with and to test with."""

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

Ids = NDArray[np.unsignedinteger[Any]]

CHUNK_IDS = 1 << 20
"""Ids read at a time."""

MAX_MAPPED = 16 << 20
"""Ids read from a file after which the memory that it was mapped to is given back."""

MAX_VALIDATION = 5_000_000
"""Ids that are set aside for validation where nobody said how many: reading them takes a minute or so on two cores."""


class Tokens:
    """A part of a corpus, [length]: `tokens[places]` gives the ids there, a copy.

    The ids may be a file mapped into memory. However much of it is read, little of it stays there.
    """

    def __init__(self, ids: Ids, start: int = 0, stop: int | None = None) -> None:
        self.ids, self.start = ids, start
        self.length = (len(ids) if stop is None else stop) - start
        self.read = 0
        self.map: Any = getattr(ids, "_mmap", None)

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, places: NDArray[np.integer]) -> Ids:
        """The ids at these places, which must not be negative, in the shape of `places`."""
        self.release(places.size)
        return np.asarray(self.ids[places + self.start])

    def span(self, start: int, stop: int) -> Ids:
        """The ids of places next to each other."""
        self.release(stop - start)
        return np.array(self.ids[self.start + start : self.start + min(stop, self.length)])

    def chunks(self) -> Iterator[Ids]:
        """All of them in order, some at a time."""
        for at in range(0, self.length, CHUNK_IDS):
            yield self.span(at, at + CHUNK_IDS)

    def release(self, about_to_read: int) -> None:
        self.read += about_to_read
        if self.map is not None and self.read > MAX_MAPPED:
            self.map.madvise(mmap.MADV_DONTNEED)
            self.read = 0


class Split:
    """The ids of a whole corpus and the shares of its parts. Documents are whole in one part, if there is a boundary.

    Raises CharlstmError if none are left to train on or to validate with.
    """

    def __init__(self, ids: Ids, shares: tuple[float, ...], end_of_document: int | None = None) -> None:
        self.ids, self.shares = ids, shares
        self.edges = [0, *(self.edge(round(len(ids) * share), end_of_document) for share in accumulate(shares))]
        for name, share in zip(PART_NAMES[:2], shares, strict=False):
            if not len(self.part(name)):
                unit = "characters" if end_of_document is None else "characters, in too few documents"
                raise CharlstmError(
                    f"the corpus has {len(ids):,} {unit}, and to {'validate with' if name == 'val' else 'train on'} "
                    f"a share of {share:g} it needs at least {ceil(1 / share):,}",
                    "give it more text, or other shares by --split",
                )

    def edge(self, place: int, boundary: int | None) -> int:
        """This place or, with documents, the end of the one it lies in."""
        if boundary is None or place == 0:
            return place
        whole = Tokens(self.ids)
        for at in range(place - 1, len(self.ids), CHUNK_IDS):
            ends = np.flatnonzero(whole.span(at, at + CHUNK_IDS) == boundary)
            if len(ends):
                return at + int(ends[0]) + 1
        return len(self.ids)

    def part(self, name: str) -> Tokens:
        """The ids of `train`, `val` or `test`. Empty for a part that the split does not have."""
        spans = dict(zip(PART_NAMES, pairwise(self.edges), strict=False))
        return Tokens(self.ids, *spans.get(name, (0, 0)))


def default_shares(length: int, shares: tuple[float, ...]) -> tuple[float, ...]:
    """The default shares, or those that leave no more than enough to validate with of a corpus so large."""
    share = min(shares[1], MAX_VALIDATION / max(length, 1))
    return (1 - share, share)
