"""An n-gram model of the training text: which errors of a network would it not have made?

A character is an error if its probability is below one half (Karpathy, Johnson and Fei-Fei 2015, section 4.4).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from charlstm.matrices import Array
from charlstm.vocabulary import Ids

MAX_ORDER = 9

MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
"""Of the polynomial hash of a run of symbols: 2**64 over the golden ratio (Knuth 1998, section 6.4)."""

RunHashes = NDArray[np.uint64]


class NgramModel:
    """The counts of all runs of up to n symbols of a text.

    A symbol is predicted from the longest run before it that the text contains, at most n - 1 symbols, by the share of
    its continuations. There is no smoothing: only whether a probability is above one half is asked for.
    """

    def __init__(self, ids: Ids, order: int = MAX_ORDER) -> None:
        """Count the runs of up to `order` symbols in a text, [T]."""
        self.counts = [count_hashes(hash_runs(ids, length)) for length in range(order + 1)]
        # a run at the end of the text has no continuation; the empty run has one per symbol
        self.contexts = [count_hashes(hash_runs(ids[:-1] if length else ids, length)) for length in range(order)]

    def probabilities(self, ids: Ids, order: int) -> Array:
        """Return the probability of each symbol of a text given up to `order` - 1 symbols before it, [T]."""
        p = np.zeros(len(ids), np.float32)
        known = np.zeros(len(ids), bool)
        for length in range(min(order, len(ids)) - 1, -1, -1):
            seen = look_up(self.contexts[length], hash_runs(ids[:-1] if length else ids, length))
            runs = look_up(self.counts[length + 1], hash_runs(ids, length + 1))
            new = ~known[length:] & (seen > 0)  # the first places have fewer symbols before them
            p[length:][new] = runs[new] / seen[new]
            known[length:] |= new
        return p


def hash_runs(ids: Ids, length: int) -> RunHashes:
    """Return a hash of each run of `length` symbols, [T - length + 1]; of the empty run at each place, [T]."""
    if length == 0:
        return np.zeros(len(ids), np.uint64)
    hashes = np.zeros(max(len(ids) - length + 1, 0), np.uint64)
    for k in range(length):
        hashes = hashes * MULTIPLIER + ids[k : k + len(hashes)].astype(np.uint64) + np.uint64(1)
    return hashes


def count_hashes(hashes: RunHashes) -> tuple[RunHashes, Ids]:
    """Return the distinct hashes, sorted, and how often each occurs."""
    return np.unique(hashes, return_counts=True)


def look_up(counts: tuple[RunHashes, Ids], hashes: RunHashes) -> Ids:
    """Return how often each of these was counted."""
    known, numbers = counts
    if not len(known):
        return np.zeros(len(hashes), np.int64)
    places = np.minimum(np.searchsorted(known, hashes), len(known) - 1)
    return np.where(known[places] == hashes, numbers[places], 0)


def share_avoided(log_probabilities: Array, ngrams: NgramModel, ids: Ids, order: int) -> float:
    """Return the share of the errors of a network that the n-gram model would not have made; 0 without errors."""
    errors = log_probabilities < np.log(0.5)
    if not errors.any():
        return 0.0
    return float((ngrams.probabilities(ids, order)[errors] >= 0.5).mean())
