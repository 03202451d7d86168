"""How much of a sample stands word for word in a text: what a model has memorised, and what is new.

The text may be of any length: it is read once, a block at a time, each with so much of the one before it that every run
stands whole in some block. Runs are found by polynomial hashes (Karp & Rabin 1987) and compared character by character
before they count, so the answer is exact.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

Codes = NDArray[np.unsignedinteger[Any]]
"""Code points or bytes, [length]."""

Hashes = NDArray[np.uint64]
Places = NDArray[np.int64]

MIN_RUN = 20
"""Characters in a row, the least that count as copied: shorter runs are the language's own."""

BLOCK_CODES = 1 << 18
"""Characters of the text that are new in a block, or a little more; its hashes stay in the processor's cache."""

FEW_TABLES, MANY_TABLES, MAX_TABLE_RUNS = 8, 32, 1 << 22
"""Tables of the samples' runs, one for each length, that are kept from block to block, and the runs in all of them."""

BASE = 0x9E3779B97F4A7C15
"""Of the hashes, which are taken modulo 2**64; odd, so that it has an inverse."""


@dataclass(frozen=True)
class Novelty:
    """Of one sample: its longest run that stands in the text, and what share of it is copied."""

    longest: int  # characters
    start: int  # where in the sample that run begins, or one of those that are as long
    covered: float  # share of the sample's characters in runs of `run` or more


def measure_novelty(samples: Sequence[Codes], text: Iterable[Codes], run: int = MIN_RUN) -> list[Novelty]:
    """What of each sample stands in the text, whose chunks may be cut anywhere and are read once.

    Some 70 megabytes are held in memory, and up to a kilobyte for each character of the samples, whatever the length
    of the text.
    """
    search = NoveltySearch(samples, run)
    longest = max(map(len, samples), default=0)
    if longest:
        for block in overlapping_blocks(text, max(BLOCK_CODES, len(search.text.codes)), longest - 1):
            search.read(block)
    return search.found()


def overlapping_blocks(chunks: Iterable[Codes], step: int, overlap: int) -> Iterator[Codes]:
    """The text in blocks of `step` codes or up to twice as many, each with the `overlap` codes that come before it."""
    parts: list[Codes] = []
    fresh = 0
    for piece in (chunk[first : first + step] for chunk in chunks for first in range(0, len(chunk), step)):
        parts.append(piece)
        fresh += len(piece)
        if fresh >= step:
            block = np.concatenate(parts)
            yield block
            parts, fresh = [block[max(len(block) - overlap, 0) :]], 0
    if fresh:
        yield np.concatenate(parts)


class Hashed:
    """Codes, and the hash of every run of them from the hashes of what leads up to its ends."""

    def __init__(self, codes: Codes) -> None:
        self.codes = codes
        self.powers, self.inverses = hash_powers(BASE, len(codes)), hash_powers(pow(BASE, -1, 1 << 64), len(codes))
        self.sums = np.zeros(len(codes) + 1, np.uint64)
        np.cumsum(np.multiply(codes, self.powers, dtype=np.uint64, casting="unsafe"), out=self.sums[1:])

    def runs(self, length: int) -> Hashes:
        """The hash of the run of that length at each place where one begins, [places]."""
        count = max(len(self.codes) - length + 1, 0)
        return (self.sums[length:][:count] - self.sums[:count]) * self.inverses[:count]

    def runs_at(self, places: Places, length: int) -> Hashes:
        """The same at these places only."""
        return (self.sums[places + length] - self.sums[places]) * self.inverses[places]


def hash_powers(base: int, count: int) -> Hashes:
    """1, base, base**2, ... modulo 2**64, [count]."""
    size = 1 << max(count - 1, 0).bit_length()
    return cached_powers(base, size)[:count]


@lru_cache(4)
def cached_powers(base: int, count: int) -> Hashes:
    factors = np.full(count, base, np.uint64)
    factors[0] = 1
    return np.multiply.accumulate(factors)


class Table:
    """The runs of one length in the samples, to be looked up by their hashes."""

    def __init__(self, places: Places, hashes: Hashes) -> None:
        self.places = places  # where in the samples they begin, ascending
        self.keys, self.rank = np.unique(hashes, return_inverse=True)
        bits = min(max(len(hashes), 1).bit_length() + 6, 22)
        self.shift = np.uint64(64 - bits)
        self.filter = np.zeros(1 << bits, np.bool_)  # most of what is not a key is told by its first bits
        self.filter[self.keys >> self.shift] = True

    def look_up(self, hashes: Hashes) -> tuple[Places, Places]:
        """Which of these hashes are keys, and the rank of each that is."""
        likely = np.flatnonzero(self.filter[hashes >> self.shift])
        ranks = np.minimum(np.searchsorted(self.keys, hashes[likely]), len(self.keys) - 1)
        hit = self.keys[ranks] == hashes[likely]
        return likely[hit], ranks[hit]


class Match:
    """Where a block of the text has the hashes of the samples' runs of one length."""

    def __init__(self, table: Table, places: Places, ranks: Places) -> None:
        self.places, self.ranks = places, ranks
        self.first = np.full(len(table.keys), -1)
        self.first[ranks[::-1]] = places[::-1]
        found = self.first[table.rank] >= 0
        self.samples, self.rank = table.places[found], table.rank[found]  # the runs of the samples that were found


class NoveltySearch:
    """What has been found so far of each sample."""

    def __init__(self, samples: Sequence[Codes], run: int) -> None:
        self.run = run
        sizes = np.array([len(sample) for sample in samples], np.int64)
        self.ends = np.cumsum(sizes)
        self.begins = self.ends - sizes
        self.text = Hashed(np.concatenate([*samples, np.empty(0, np.uint8)]))
        self.room = np.repeat(self.ends, sizes) - np.arange(len(self.text.codes))
        self.copied = np.zeros(len(self.text.codes), np.bool_)  # whether a run of `run` begins there
        self.longest = np.zeros(len(samples), np.int64)
        self.start = np.zeros(len(samples), np.int64)
        tables = MAX_TABLE_RUNS // max(len(self.text.codes), 1)
        self.table = lru_cache(min(max(tables, FEW_TABLES), MANY_TABLES))(self.build_table)

    def build_table(self, length: int) -> Table:
        places = np.flatnonzero(self.room >= length)
        return Table(places, self.text.runs_at(places, length))

    def read(self, codes: Codes) -> None:
        """Takes in a block of the text."""
        block = Hashed(codes)
        copied = self.match(block, self.run, None)
        match = cache(lambda length: self.match(block, length, copied.places if length >= self.run else None))
        news = ~self.copied[copied.samples]
        for place, rank in zip(copied.samples[news].tolist(), copied.rank[news].tolist(), strict=True):
            self.copied[place] = self.stands(block, copied, place, rank, self.run)
        for sample, best in enumerate(self.longest.tolist()):
            self.improve(block, match, sample, best)

    def match(self, block: Hashed, length: int, among: Places | None) -> Match:
        """Where the block may have runs of that length: anywhere, or among the places where shorter ones were found."""
        table = self.table(length)
        if not len(table.keys):
            return Match(table, np.empty(0, np.int64), np.empty(0, np.int64))
        if among is None:
            return Match(table, *table.look_up(block.runs(length)))
        among = among[among + length <= len(block.codes)]
        hits, ranks = table.look_up(block.runs_at(among, length))
        return Match(table, among[hits], ranks)

    def improve(self, block: Hashed, match: Callable[[int], Match], sample: int, best: int) -> None:
        """Looks for a run of this sample longer than its best: one more first, since mostly there is none."""
        begin, most = int(self.begins[sample]), int(self.ends[sample] - self.begins[sample])

        def missing(length: int) -> bool:
            return self.place(block, match(length), sample, length) is None

        if best == most or missing(best + 1):
            return
        longest = best + bisect_left(range(best + 1, most + 1), True, key=missing)
        place = self.place(block, match(longest), sample, longest)
        assert place is not None
        self.longest[sample], self.start[sample] = longest, place - begin

    def place(self, block: Hashed, match: Match, sample: int, length: int) -> int | None:
        """Where, among all samples' codes, a run of this sample begins that has that length and stands in the block."""
        first, last = np.searchsorted(match.samples, [self.begins[sample], self.ends[sample]])
        for place, rank in zip(match.samples[first:last].tolist(), match.rank[first:last].tolist(), strict=True):
            if self.stands(block, match, place, rank, length):
                return int(place)
        return None

    def stands(self, block: Hashed, match: Match, place: int, rank: int, length: int) -> bool:
        """Whether a run whose hash was found is in the block indeed."""
        wanted = self.text.codes[place : place + length]
        here = int(match.first[rank])
        if np.array_equal(block.codes[here : here + length], wanted):
            return True
        others = match.places[match.ranks == rank]  # another run of the same hash came first: hardly ever
        return any(np.array_equal(block.codes[other : other + length], wanted) for other in others.tolist())

    def found(self) -> list[Novelty]:
        edges = np.zeros(len(self.copied) + self.run + 1, np.int64)  # +1 where a run begins, -1 where it has ended
        edges[: len(self.copied)] += self.copied
        edges[self.run :][: len(self.copied)] -= self.copied
        covered = np.cumsum(edges)[: len(self.copied)] > 0
        return [
            Novelty(int(longest), int(start), float(covered[begin:end].mean()) if end > begin else 0.0)
            for longest, start, begin, end in zip(self.longest, self.start, self.begins, self.ends, strict=True)
        ]
