"""From logits to a drawn id: pure functions, in the order they are applied.

`logits` and `p` are [N, V]. Rows of `p` are in proportion to probabilities; they need not add up to 1.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from charlstm.config import SamplingConfig

Logits = NDArray[np.float32]
Weights = NDArray[np.float32]
Ids = NDArray[np.int64]


def sample_ids(logits: Logits, config: SamplingConfig, u: NDArray[np.float64]) -> Ids:
    """One id for each row, [N]; `u` [N] is uniform in [0, 1).

    The temperature comes first, so that top-k, top-p and min-p, in this order, see the distribution it makes.
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


def mask_symbol(logits: Logits, unknown: int | None) -> Logits:
    """The unknown symbol made impossible."""
    if unknown is None:
        return logits
    return np.where(np.arange(logits.shape[1]) == unknown, np.float32(-np.inf), logits)


def greedy(logits: Logits) -> Ids:
    """The likeliest id; the lowest of several."""
    ids: Ids = logits.argmax(axis=1)
    return ids


def logits_to_weights(logits: Logits, temperature: float) -> Weights:
    """e^(logits / temperature), scaled so that the likeliest has 1: softmax without its division."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    if temperature != 1:
        shifted /= np.float32(max(temperature, 1e-30))
    return np.asarray(np.exp(shifted), np.float32)


def log_softmax(logits: Logits) -> Logits:
    """Natural logarithms of the probabilities."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)), np.float32)


def top_k(p: Weights, k: int) -> Weights:
    """The k likeliest only (Fan et al. 2018), and any that are as likely as the last of them."""
    if k >= p.shape[1]:
        return p
    least = np.partition(p, -k, axis=1)[:, -k, None]
    return np.where(p >= least, p, np.float32(0))


def top_p(p: Weights, share: float) -> Weights:
    """Nucleus sampling (Holtzman et al. 2020): the fewest likeliest that have at least this share between them.

    `share` is of what earlier filters left. The likeliest one always stays.
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


def min_p(p: Weights, share: float) -> Weights:
    """What is at least this share as likely as the likeliest (Nguyen et al. 2024)."""
    return np.where(p >= np.float32(share) * p.max(axis=1, keepdims=True), p, np.float32(0))


def sample_categorical(p: Weights, u: NDArray[np.float64]) -> Ids:
    """The id in which the point `u` of the cumulative distribution falls."""
    edges = np.add.accumulate(p, axis=1, dtype=np.float64)
    return np.array([row.searchsorted(point * row[-1], "right") for row, point in zip(edges, u, strict=True)])
