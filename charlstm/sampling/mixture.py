"""A network mixed with an n-gram model that learns the text as it is read.

The n-gram model has counted what followed each run of up to 8 symbols so far. It knows at once what a network learns
slowly: the names and phrases of this text. The mixture is that of PAQ8 (Mahoney 2005) for more than two symbols: a
product of distributions, each raised to a weight, and normalized. The weights are learned while the text is read, by
gradient descent on the loss. A symbol is predicted before it is counted, so that a prediction depends on the symbols
before it only.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charlstm.vocabulary import Ids

Distributions = NDArray[Any]
"""Natural log-probabilities of every symbol, [n, V]."""

Before = tuple[int, ...]
"""The last `MAX_RUN_LENGTH` symbols before a place, the latest first."""

MAX_RUN_LENGTH = 8
"""Symbols before a place that are looked up."""

MAX_RUNS = 2**21
"""Runs of symbols that are counted, in about 400 MB. Then only runs that have occurred are counted further."""

RATE = 0.002
"""Learning rate of the weights at the beginning."""

RATE_STEPS = 2000
"""Symbols after which the rate has fallen by the square root of two. It falls with the square root of their number."""


class Mixture:
    """A mixture over `size` symbols. It reads a text in order."""

    def __init__(self, size: int) -> None:
        self.counts = RunCounts(size)
        self.before: Before = ()
        # One set of weights for each length of the longest run that is known: of the network, then of each run.
        self.weights = [np.array([1.0] + [0.0] * (known + 1)) for known in range(MAX_RUN_LENGTH + 1)]
        self.learned = [0] * (MAX_RUN_LENGTH + 1)  # symbols that each set has learned from
        self.experts, self.mixed = np.zeros((2, size)), np.zeros(size)

    def read(self, window: Distributions, symbols: Ids) -> NDArray[np.float64]:
        """Read the next symbols of the text, [n]. Returns the mixture at each place, [n, V].

        window: the distributions of the network, [n, V].
        """
        mixed = np.empty(window.shape)
        for k, symbol in enumerate(symbols.tolist()):
            mixed[k] = self.predict(window[k])
            self.observe(symbol)
        return mixed

    def predict(self, network: Distributions) -> NDArray[np.float64]:
        """Return the log-probabilities of the next symbol, [V], from those of the network, [V]."""
        self.experts, self.mixed = self.predict_after(self.before, network)
        return self.mixed

    def predict_after(self, before: Before, network: Distributions) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the log-probabilities of the experts, [K, V], and of the mixture, [V], after these symbols."""
        experts = np.stack([network, *(np.log(p) for p in self.counts.predict(before))])
        score = self.weights[len(experts) - 2] @ experts
        score -= score.max()
        return experts, score - np.log(np.exp(score).sum())

    def observe(self, symbol: int) -> None:
        """Learn from the symbol that was predicted last."""
        known = len(self.experts) - 2
        rate = RATE / np.sqrt(1 + self.learned[known] / RATE_STEPS)
        self.weights[known] += rate * (self.experts[:, symbol] - self.experts @ np.exp(self.mixed))
        self.learned[known] += 1
        self.counts.add(self.before, symbol)
        self.before = follow(self.before, symbol)


class RunCounts:
    """What has followed each run of up to `MAX_RUN_LENGTH` symbols of a text so far.

    The followers of a run are counts by symbol or, as long as there was only one, that symbol. Its key is a number with
    its symbols, plus 1, as digits.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.followers: dict[int, int | dict[int, int]] = {}
        self.powers = [(size + 1) ** k for k in range(MAX_RUN_LENGTH)]

    def keys(self, before: Before) -> Iterator[int]:
        """Yield the keys of the runs at the end of these symbols, from the empty run to the longest."""
        key = 0
        yield key
        for power, symbol in zip(self.powers, before, strict=False):
            key += (symbol + 1) * power
            yield key

    def predict(self, before: Before) -> Iterator[NDArray[np.float64]]:
        """Yield the probabilities of the next symbol after each known run, from the empty run to the longest.

        Each is interpolated with that of the run that is one symbol shorter: a run has the weight of as many symbols as
        it was followed by, the shorter one that of as many as were different (Witten and Bell 1991, method C). The
        empty run is interpolated with equal probabilities.
        """
        p = np.full(self.size, 1 / self.size)
        for key in self.keys(before):
            found = self.followers.get(key)
            if isinstance(found, dict):
                total = sum(found.values()) + len(found)
                p = p * (len(found) / total)
                p[list(found)] += np.array(list(found.values())) / total
            elif found is not None:
                p = p / 2
                p[found] += 0.5
            elif key:
                return
            yield p

    def add(self, before: Before, symbol: int) -> None:
        """Count a symbol that follows these."""
        for key in self.keys(before):
            found = self.followers.get(key)
            if isinstance(found, dict):
                found[symbol] = found.get(symbol, 0) + 1
            elif found is not None:
                self.followers[key] = {found: 2} if found == symbol else {found: 1, symbol: 1}
            elif len(self.followers) < MAX_RUNS:
                self.followers[key] = symbol


def follow(before: Before, symbol: int) -> Before:
    """Return the last symbols, now with this one."""
    return (symbol, *before[: MAX_RUN_LENGTH - 1])
