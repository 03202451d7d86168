"""The ids of a corpus, split by position into training, validation and test parts."""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from itertools import accumulate, pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charlstm.errors import CharlstmError

PART_LABELS = {"train": "training", "val": "validation", "test": "testing"}
PART_NAMES = tuple(PART_LABELS)

TokenIds = NDArray[np.unsignedinteger[Any]]
"""The ids of a text, in the smallest type that holds them."""

CHUNK_IDS = 1 << 20
"""Ids per chunk."""

MAX_MAPPED = 16 << 20
"""Ids read from a mapped file before its pages are released."""

DISCARD_PAGES: int | None = getattr(mmap, "MADV_DONTNEED", None)
"""Advice to release the pages of a mapped file; None on Windows, which takes them back when it needs the memory."""

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
        self.map: Any = getattr(ids, "_mmap", None) if DISCARD_PAGES is not None else None

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

    def chunks(self, start: int = 0, stop: int | None = None) -> Iterator[TokenIds]:
        """Read the ids from `start` to `stop`, by default all, in order, in chunks of `CHUNK_IDS`."""
        end = self.length if stop is None else min(stop, self.length)
        for at in range(start, end, CHUNK_IDS):
            yield self.span(at, min(at + CHUNK_IDS, end))

    def release_pages(self, about_to_read: int) -> None:
        self.read += about_to_read
        if self.map is not None and self.read > MAX_MAPPED:
            self.map.madvise(DISCARD_PAGES)
            self.read = 0


class Split:
    """The ids of a corpus, split by position into parts of these shares.

    With an `end_of_document` id, each document is whole in one part. A part with a share above 0 has at least one
    document, or one character; training needs two characters. Raises CharlstmError if the corpus has fewer.
    """

    def __init__(self, ids: TokenIds, shares: tuple[float, ...], end_of_document: int | None = None) -> None:
        self.ids, self.shares, self.end_of_document = ids, shares, end_of_document
        needed = [self.fewest_units(name) * (share > 0) for name, share in self.named_shares]
        units = self.count_units(sum(needed))
        if units < sum(needed):
            raise too_small(units, [name for name, share in self.named_shares if share], end_of_document is not None)
        ends = self.last_boundaries(sum(needed))
        self.edges = [0]
        for k, share in enumerate(accumulate(shares)):
            lowest, highest = self.skip_units(self.edges[-1], needed[k]), ends[sum(needed[k + 1 :])]
            self.edges.append(min(max(self.find_edge(round(len(ids) * share)), lowest), highest))

    @property
    def named_shares(self) -> list[tuple[str, float]]:
        return list(zip(PART_NAMES, self.shares, strict=False))

    def fewest_units(self, name: str) -> int:
        """Return how many documents or characters a part needs."""
        return 2 if name == "train" and self.end_of_document is None else 1

    def count_units(self, limit: int) -> int:
        """Count the documents or characters of the corpus, up to `limit`."""
        count = at = 0
        while count < limit and at < len(self.ids):
            count, at = count + 1, self.skip_units(at, 1)
        return count

    def skip_units(self, position: int, count: int) -> int:
        """Return the position `count` documents or characters after one between two of them."""
        if self.end_of_document is None:
            return position + count
        return self.find_edge(position + 1) if count else position

    def last_boundaries(self, count: int) -> list[int]:
        """Return the positions before the last 0 to `count` documents or characters, which the corpus has."""
        length = len(self.ids)
        if self.end_of_document is None:
            return [length - k for k in range(count + 1)]
        found, tokens, stop = [length], Tokens(self.ids), length - 1  # the last id is the end of the last document
        while stop > 0 and len(found) <= count:
            start = max(stop - CHUNK_IDS, 0)
            ends = np.flatnonzero(tokens.span(start, stop) == self.end_of_document)
            found += (start + 1 + ends[::-1][:count]).tolist()
            stop = start
        return [*found, 0][: count + 1]

    def find_edge(self, position: int) -> int:
        """Return the position or, with documents, the end of the document that it is in."""
        if self.end_of_document is None or position == 0:
            return position
        tokens = Tokens(self.ids)
        for at in range(position - 1, len(self.ids), CHUNK_IDS):
            ends = np.flatnonzero(tokens.span(at, at + CHUNK_IDS) == self.end_of_document)
            if len(ends):
                return at + int(ends[0]) + 1
        return len(self.ids)

    def part(self, name: str) -> Tokens:
        """Return the part `train`, `val` or `test`, empty if the split does not have it."""
        spans = dict(zip(PART_NAMES, pairwise(self.edges), strict=False))
        return Tokens(self.ids, *spans.get(name, (0, 0)))


def too_small(count: int, parts: list[str], in_documents: bool) -> CharlstmError:
    """Return the error for a corpus of `count` documents or characters, which are too few for these parts."""
    unit = ("document" if in_documents else "character") + "s" * (count != 1)
    needed = len(parts) + (not in_documents)
    names = " and ".join(PART_LABELS[name] for name in parts)
    whole = ["--split 1,0 trains on all of it"] * (len(parts) > 1 and count >= 2 - in_documents)
    one_text = ["--document stream reads it as one text"] * in_documents
    return CharlstmError(
        f"the corpus has {count} {unit}, and {names} need{'s' * (len(parts) == 1)} at least {needed}",
        ", ".join([*one_text, *whole]) or "add more text",
    )


def default_shares(length: int, shares: tuple[float, ...]) -> tuple[float, ...]:
    """Return the default shares, with at most `MAX_VALIDATION` ids for validation."""
    share = min(shares[1], MAX_VALIDATION / max(length, 1))
    return (1 - share, share)
