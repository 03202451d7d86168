"""How much of a sample occurs verbatim in a text: what a model has memorized.

The text may be of any length. It is read once, in blocks that overlap, so that every run of a sample lies whole in some
block. Runs are found by polynomial hashes (Karp & Rabin 1987) and compared character by character, so the result is
exact.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache

import numpy as np
from numpy.typing import NDArray

from charlstm.vocabulary import Codes

Hashes = NDArray[np.uint64]
Positions = NDArray[np.int64]

MIN_RUN = 20
"""The shortest run of characters that counts as copied. Shorter runs recur in any text of the language."""

BLOCK_CODES = 1 << 18
"""New characters in a block: its hashes, 2 MB, stay in the processor's cache."""

MIN_TABLES = 8
"""Tables kept from block to block, one per run length, even if they are large: most blocks need the same lengths."""

MAX_TABLES = 32
"""Tables kept if they are small."""

MAX_TABLE_RUNS = 1 << 22
"""Runs in all tables together, which bounds their memory."""

BASE = 0x9E3779B97F4A7C15
"""Base of the hashes, modulo 2**64. It is odd, so it has an inverse."""


@dataclass(frozen=True)
class Novelty:
    """How much of one sample occurs in the text."""

    longest: int  # characters of its longest run that occurs in the text
    start: int  # where that run starts in the sample; one of them if several are as long
    covered: float  # share of the sample's characters in copied runs of `min_run` characters or more


def measure_novelty(samples: Sequence[Codes], text: Iterable[Codes], min_run: int = MIN_RUN) -> list[Novelty]:
    """Measure how much of each sample occurs in the text.

    The chunks of `text` are read once; they may be cut anywhere. Memory does not grow with the text: about 70 MB, and
    up to 1 KB per character of the samples.
    """
    search = NoveltySearch(samples, min_run)
    longest = max(map(len, samples), default=0)
    if longest:
        for block in overlapping_blocks(text, max(BLOCK_CODES, len(search.samples.codes)), longest - 1):
            search.read(block)
    return search.results()


def overlapping_blocks(chunks: Iterable[Codes], step: int, overlap: int) -> Iterator[Codes]:
    """Yield the text in blocks of `step` to 2 * `step` codes, each after the `overlap` codes that precede it."""
    parts: list[Codes] = []
    new = 0
    for piece in (chunk[first : first + step] for chunk in chunks for first in range(0, len(chunk), step)):
        parts.append(piece)
        new += len(piece)
        if new >= step:
            block = np.concatenate(parts)
            yield block
            parts, new = [block[max(len(block) - overlap, 0) :]], 0
    if new:
        yield np.concatenate(parts)


class HashedCodes:
    """Codes, and the hash of every run of them, as the difference of two prefix sums."""

    def __init__(self, codes: Codes) -> None:
        self.codes = codes
        self.powers, self.inverses = hash_powers(BASE, len(codes)), hash_powers(pow(BASE, -1, 1 << 64), len(codes))
        self.sums = np.zeros(len(codes) + 1, np.uint64)
        np.cumsum(np.multiply(codes, self.powers, dtype=np.uint64, casting="unsafe"), out=self.sums[1:])

    def hashes(self, length: int) -> Hashes:
        """Return the hash of each run of this length, by the position where it starts."""
        count = max(len(self.codes) - length + 1, 0)
        return (self.sums[length:][:count] - self.sums[:count]) * self.inverses[:count]

    def hashes_at(self, positions: Positions, length: int) -> Hashes:
        """Return the hash of the run of this length at each of these positions."""
        return (self.sums[positions + length] - self.sums[positions]) * self.inverses[positions]


def hash_powers(base: int, count: int) -> Hashes:
    """Return 1, base, base**2, ... modulo 2**64, [count]."""
    size = 1 << max(count - 1, 0).bit_length()  # few different sizes, so that the cache helps
    return cached_powers(base, size)[:count]


@lru_cache(4)
def cached_powers(base: int, count: int) -> Hashes:
    factors = np.full(count, base, np.uint64)
    factors[0] = 1
    return np.multiply.accumulate(factors)


class RunTable:
    """The runs of one length in the samples, indexed by their hashes."""

    def __init__(self, positions: Positions, hashes: Hashes) -> None:
        self.positions = positions  # where the runs start in the samples, ascending
        self.keys, self.key_of_run = np.unique(hashes, return_inverse=True)
        bits = min(max(len(hashes), 1).bit_length() + 6, 22)
        self.shift = np.uint64(64 - bits)
        self.filter = np.zeros(1 << bits, np.bool_)  # its first bits rule out most hashes that are not keys
        self.filter[self.keys >> self.shift] = True

    def look_up(self, hashes: Hashes) -> tuple[Positions, Positions]:
        """Return the indices of the hashes that are keys, and the number of the key of each."""
        likely = np.flatnonzero(self.filter[hashes >> self.shift])
        numbers = np.minimum(np.searchsorted(self.keys, hashes[likely]), len(self.keys) - 1)
        hit = self.keys[numbers] == hashes[likely]
        return likely[hit], numbers[hit]


class BlockMatches:
    """Where a block of the text has the hashes of the samples' runs of one length."""

    def __init__(self, table: RunTable, positions: Positions, keys: Positions) -> None:
        self.positions, self.keys = positions, keys  # in the block, and the key that is there
        self.first = np.full(len(table.keys), -1)  # the first position of each key in the block
        self.first[keys[::-1]] = positions[::-1]
        matched = self.first[table.key_of_run] >= 0
        self.run_positions, self.run_keys = table.positions[matched], table.key_of_run[matched]  # in the samples


class NoveltySearch:
    """The search for runs of the samples in a text, block by block, and what it has found so far.

    Positions are in the concatenation of all samples.
    """

    def __init__(self, samples: Sequence[Codes], min_run: int) -> None:
        self.min_run = min_run
        sizes = np.array([len(sample) for sample in samples], np.int64)
        self.ends = np.cumsum(sizes)
        self.starts = self.ends - sizes
        self.samples = HashedCodes(np.concatenate([*samples, np.empty(0, np.uint8)]))
        self.room = np.repeat(self.ends, sizes) - np.arange(len(self.samples.codes))  # codes up to the sample's end
        self.copied = np.zeros(len(self.samples.codes), np.bool_)  # whether a copied run of `min_run` starts there
        self.longest = np.zeros(len(samples), np.int64)
        self.longest_start = np.zeros(len(samples), np.int64)
        tables = MAX_TABLE_RUNS // max(len(self.samples.codes), 1)
        self.table = lru_cache(min(max(tables, MIN_TABLES), MAX_TABLES))(self.build_table)

    def build_table(self, length: int) -> RunTable:
        """Index the runs of this length in the samples."""
        positions = np.flatnonzero(self.room >= length)
        return RunTable(positions, self.samples.hashes_at(positions, length))

    def read(self, codes: Codes) -> None:
        """Search a block of the text."""
        block = HashedCodes(codes)
        copied = self.match(block, self.min_run, None)
        match = cache(lambda length: self.match(block, length, copied.positions if length >= self.min_run else None))
        new = ~self.copied[copied.run_positions]
        for position, key in zip(copied.run_positions[new].tolist(), copied.run_keys[new].tolist(), strict=True):
            self.copied[position] = self.occurs(block, copied, position, key, self.min_run)
        for sample, best in enumerate(self.longest.tolist()):
            self.improve(block, match, sample, best)

    def match(self, block: HashedCodes, length: int, among: Positions | None) -> BlockMatches:
        """Find runs of this length by their hashes, anywhere in the block or at the positions `among` only."""
        table = self.table(length)
        if not len(table.keys):
            return BlockMatches(table, np.empty(0, np.int64), np.empty(0, np.int64))
        if among is None:
            return BlockMatches(table, *table.look_up(block.hashes(length)))
        among = among[among + length <= len(block.codes)]
        hits, keys = table.look_up(block.hashes_at(among, length))
        return BlockMatches(table, among[hits], keys)

    def improve(self, block: HashedCodes, match: Callable[[int], BlockMatches], sample: int, best: int) -> None:
        """Search for a run of this sample that is longer than its best. In most cases no run of best + 1 exists."""
        start, size = int(self.starts[sample]), int(self.ends[sample] - self.starts[sample])

        def is_missing(length: int) -> bool:
            return self.find_run(block, match(length), sample, length) is None

        if best == size or is_missing(best + 1):
            return
        longest = best + bisect_left(range(best + 1, size + 1), True, key=is_missing)
        position = self.find_run(block, match(longest), sample, longest)
        assert position is not None
        self.longest[sample], self.longest_start[sample] = longest, position - start

    def find_run(self, block: HashedCodes, matches: BlockMatches, sample: int, length: int) -> int | None:
        """Return the position of a run of this sample that has this length and occurs in the block."""
        first, last = np.searchsorted(matches.run_positions, [self.starts[sample], self.ends[sample]])
        runs = zip(matches.run_positions[first:last].tolist(), matches.run_keys[first:last].tolist(), strict=True)
        return next(
            (int(position) for position, key in runs if self.occurs(block, matches, position, key, length)), None
        )

    def occurs(self, block: HashedCodes, matches: BlockMatches, position: int, key: int, length: int) -> bool:
        """Compare a run whose hash was found with the block, character by character."""
        wanted = self.samples.codes[position : position + length]
        here = int(matches.first[key])
        if np.array_equal(block.codes[here : here + length], wanted):
            return True
        others = matches.positions[matches.keys == key]  # another run with the same hash came first: hardly ever
        return any(np.array_equal(block.codes[other : other + length], wanted) for other in others.tolist())

    def results(self) -> list[Novelty]:
        """Return what was found of each sample."""
        count = len(self.copied)
        edges = np.zeros(count + self.min_run + 1, np.int64)  # +1 where a copied run starts, -1 after its end
        edges[:count] += self.copied
        edges[self.min_run :][:count] -= self.copied
        covered = np.cumsum(edges)[:count] > 0
        return [
            Novelty(int(longest), int(run_start), float(covered[start:end].mean()) if end > start else 0.0)
            for longest, run_start, start, end in zip(
                self.longest, self.longest_start, self.starts, self.ends, strict=True
            )
        ]
