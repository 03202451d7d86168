"""Which symbols would repeat a run of N symbols that a text already contains (`--no-repeat`)."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

MODULUS = (1 << 61) - 1
"""Modulus of the hashes of runs (Karp & Rabin 1987), a Mersenne prime. Two runs have the same hash by accident once in
10**18 times; a symbol is then excluded in vain."""

BASE = 0x5BD1E995C0FFEE
"""Base of the hashes."""


class RepeatIndex:
    """The runs of `length` symbols in a text that grows, by their first `length` - 1 symbols.

    Adding a symbol, and looking up the symbols that would repeat a run, take the same time whatever the length of the
    text and of the runs.
    """

    def __init__(self, length: int, text: Iterable[int] = ()) -> None:
        self.length = length
        self.last: deque[int] = deque(maxlen=length)  # the last symbols
        self.oldest_power = pow(BASE, length - 1, MODULUS)
        self.hash = 0  # of the last `length` - 1 symbols
        self.followers: dict[int, tuple[int, ...]] = {}  # the symbols after each run of `length` - 1, by its hash
        self.shared: dict[int, tuple[int, ...]] = {}  # the same, for the text before `branch`
        for symbol in text:
            self.add(symbol)

    def branch(self) -> RepeatIndex:
        """Return an index that continues with the same text. This one must not grow any more."""
        other = RepeatIndex(self.length)
        other.last, other.hash, other.shared = self.last.copy(), self.hash, self.followers
        return other

    def add(self, symbol: int) -> None:
        """Add a symbol to the text."""
        if symbol not in self.repeating_symbols() and len(self.last) >= self.length - 1:
            self.followers[self.hash] = (*self.followers.get(self.hash, ()), symbol)
        self.last.append(symbol)
        self.hash = (self.hash * BASE + symbol + 1) % MODULUS
        if len(self.last) == self.length:
            self.hash = (self.hash - (self.last[0] + 1) * self.oldest_power) % MODULUS

    def repeating_symbols(self) -> tuple[int, ...]:
        """Return the symbols that would make the last `length` symbols a run that the text already contains."""
        if len(self.last) < self.length - 1:
            return ()
        return self.followers.get(self.hash, ()) + self.shared.get(self.hash, ())
