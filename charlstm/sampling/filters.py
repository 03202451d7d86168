"""From logits to a drawn id: pure functions, in the order in which they are applied.

`logits` and `p` are [N, V]. Each row of `p` is proportional to probabilities; it need not sum to 1.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from charlstm.config import SamplingConfig
from charlstm.matrices import Array
from charlstm.vocabulary import Ids

MIN_TEMPERATURE = 1e-30
"""Lower temperatures would overflow; this one already picks the most likely symbol."""


def sample_ids(logits: Array, config: SamplingConfig, u: NDArray[np.float64]) -> Ids:
    """Draw one id per row, [N]. `u` [N] is uniform in [0, 1).

    The temperature comes first; top-k, top-p and min-p, in this order, filter the distribution that it makes.
    """
    if config.temperature == 0:
        return greedy(logits)
    p = logits_to_weights(logits, config.temperature)
    if config.top_k:
        p = top_k(p, config.top_k)
    if config.top_p < 1:
        p = top_p(p, config.top_p)
    if config.min_p:
        p = min_p(p, config.min_p)
    return sample_categorical(p, u)


def mask_symbol(logits: Array, symbol: int | None) -> Array:
    """Return logits under which this id is impossible."""
    if symbol is None:
        return logits
    return np.where(np.arange(logits.shape[1]) == symbol, np.float32(-np.inf), logits)


def mask_symbols(logits: Array, symbols: Sequence[Sequence[int]]) -> Array:
    """Return logits under which the ids listed for each row are impossible."""
    masked = logits.copy()
    for row, excluded in zip(masked, symbols, strict=True):
        row[list(excluded)] = -np.inf
    return masked


def greedy(logits: Array) -> Ids:
    """Return the most likely id of each row, the lowest if several are."""
    ids: Ids = logits.argmax(axis=1)
    return ids


def logits_to_weights(logits: Array, temperature: float) -> Array:
    """Return e^(logits / temperature), scaled so that the largest is 1: softmax without its division."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    if temperature != 1:
        shifted /= np.float32(max(temperature, MIN_TEMPERATURE))
    return np.asarray(np.exp(shifted), np.float32)


def log_softmax(logits: Array) -> Array:
    """Return natural log-probabilities."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)), np.float32)


def top_k(p: Array, k: int) -> Array:
    """Keep the k most likely ids (Fan et al. 2018), and any that are as likely as the last of them."""
    if k >= p.shape[1]:
        return p
    least = np.partition(p, -k, axis=1)[:, -k, None]
    return np.where(p >= least, p, np.float32(0))


def top_p(p: Array, share: float) -> Array:
    """Keep the nucleus: the fewest ids that together have at least this share (Holtzman et al. 2020).

    `share` is relative to what earlier filters kept. The most likely id is always kept.
    """
    order = np.argsort(-p, axis=1, kind="stable")
    ranked = np.take_along_axis(p, order, axis=1)
    before = np.cumsum(ranked, axis=1, dtype=np.float64) - ranked
    dropped = before >= share * ranked.sum(axis=1, keepdims=True, dtype=np.float64)
    dropped[:, 0] = False
    ranked[dropped] = 0
    kept = np.empty_like(p)
    np.put_along_axis(kept, order, ranked, axis=1)
    return kept


def min_p(p: Array, share: float) -> Array:
    """Keep the ids that are at least this share as likely as the most likely one (Nguyen et al. 2024)."""
    return np.where(p >= np.float32(share) * p.max(axis=1, keepdims=True), p, np.float32(0))


def sample_categorical(p: Array, u: NDArray[np.float64]) -> Ids:
    """Draw one id per row by inverting the cumulative distribution at `u` [N]."""
    edges = np.add.accumulate(p, axis=1, dtype=np.float64)
    return np.array([row.searchsorted(point * row[-1], "right") for row, point in zip(edges, u, strict=True)])
