"""How detectors and units are compared: r, the area under the ROC curve, and the correlation with means of classes."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from charlstm.cells import Array
from charlstm.inspection.detectors import Detector
from charlstm.vocabulary import Ids

MAX_CLASSES = 64
"""The most frequent characters are a class each; all others are one."""

MAX_TIES = 0.01
"""Share of equal neighbors up to which the ranks of values ignore ties."""


class HalfScores(NamedTuple):
    """The signed scores of D detectors at S shifts and of H units, in both halves, [D, S, H]."""

    first: Array
    second: Array


Scorer = Callable[[Array, Array], HalfScores]
"""Returns the scores of detectors [D, S, T] and units [H, T]."""


def halves(values: Array) -> tuple[Array, Array]:
    """Return both halves of an array, of which the last dimension is time."""
    middle = values.shape[-1] // 2
    return np.ascontiguousarray(values[..., :middle]), np.ascontiguousarray(values[..., middle:])


def correlate(detectors: Array, units: Array) -> HalfScores:
    """Return r of each number and unit."""
    pairs = zip(halves(detectors), halves(units), strict=True)
    return HalfScores(*(standardize(rows) @ standardize(half).T for rows, half in pairs))


def score_conditions(detectors: Array, units: Array) -> HalfScores:
    """Return AUC - 1/2 of each condition and unit: the area as the sum of ranks of Mann and Whitney (1947)."""
    pairs = zip(halves(detectors), halves(units), strict=True)
    return HalfScores(*(normalize_conditions(rows) @ rank_rows(half).T for rows, half in pairs))


def score_classes(detectors: Array, units: Array) -> HalfScores:
    """Return the correlation of each unit with its mean of the first half in each class, which is positive there."""
    count = int(detectors.max()) + 1
    first_units, second_units = (standardize(half) for half in halves(units))
    first, second = (np.empty((*detectors.shape[:2], len(units)), np.float32) for _ in range(2))
    for place in np.ndindex(*detectors.shape[:2]):
        of_first, of_second = (half.astype(np.int64) for half in halves(detectors[place]))
        means, counts = class_means(of_first, first_units, count)
        first[place] = np.sqrt((counts * np.square(means)).sum(0))  # of units of mean 0 and length 1
        second_means, second_counts = class_means(of_second, second_units, count)
        share = second_counts / second_counts.sum()
        centered = means - (share * means).sum(0)
        norm = np.sqrt((second_counts * np.square(centered)).sum(0))
        covariance = (second_counts * centered * second_means).sum(0)
        second[place] = np.divide(covariance, norm, out=np.zeros_like(norm), where=norm > TINY)
    return HalfScores(first, second)


SCORES: dict[str, Scorer] = {"number": correlate, "condition": score_conditions, "class": score_classes}
"""How each kind of detector is compared with units."""

TINY = 1e-6
"""A unit whose values have a lower norm than this is constant."""


def standardize(rows: Array) -> Array:
    """Return rows [..., T] with mean 0 and length 1; zeros for a constant row."""
    centered = rows - rows.mean(-1, keepdims=True)
    norm = np.sqrt(np.square(centered).sum(-1, keepdims=True))
    return np.asarray(np.divide(centered, norm, out=np.zeros_like(centered), where=norm > TINY))


def normalize_conditions(rows: Array) -> Array:
    """Return conditions [..., T] such that their product with centered ranks is AUC - 1/2; zeros for a constant row."""
    true = rows.sum(-1, keepdims=True)
    pairs = true * (rows.shape[-1] - true)
    return np.asarray(np.divide(rows, pairs, out=np.zeros_like(rows), where=pairs > 0))


def rank_rows(rows: Array) -> Array:
    """Return the rank of each value within its row [H, T], with mean 0. Equal values have their mean rank."""
    order = np.argsort(rows, axis=-1)
    ranks = np.empty_like(rows)
    np.put_along_axis(ranks, order, np.arange(rows.shape[-1], dtype=np.float32)[None], -1)
    ordered = np.take_along_axis(rows, order, -1)
    ties = (ordered[:, 1:] == ordered[:, :-1]).mean(-1)
    for k in np.flatnonzero(ties > MAX_TIES):
        _, inverse, counts = np.unique(rows[k], return_inverse=True, return_counts=True)
        ranks[k] = (np.cumsum(counts) - (counts + 1) / 2)[inverse]
    return ranks - np.float32((rows.shape[-1] - 1) / 2)


def class_means(classes: Ids, units: Array, count: int) -> tuple[Array, Array]:
    """Return the mean of each unit [H, n] in each class of these positions, [count, H], and their counts [count, 1]."""
    one_hot = np.zeros((count, len(classes)), np.float32)
    one_hot[classes, np.arange(len(classes))] = 1
    counts = one_hot.sum(1, keepdims=True)
    return (one_hot @ units.T) / np.maximum(counts, np.float32(1)), counts


def limit_classes(ids: Ids) -> Ids:
    """Return the class of each symbol [T]: 0 to `MAX_CLASSES` - 1 for the most frequent, then one for all others."""
    symbols, inverse, counts = np.unique(ids, return_inverse=True, return_counts=True)
    rank = np.empty(len(symbols), np.int64)
    rank[np.argsort(-counts, kind="stable")] = np.arange(len(symbols))
    classes: Ids = np.minimum(rank, MAX_CLASSES)[inverse]
    return classes


def score_character(detector: Detector, characters: Ids) -> float:
    """Return the score on the second half of the detector's mean for each character, as it was in the first half."""
    if detector.kind == "class":
        return 1.0  # such a detector is a function of the character
    middle, count = len(characters) // 2, int(characters.max()) + 1
    means, _ = class_means(characters[:middle], detector.values[None, :middle], count)
    predicted, actual = means[characters[middle:], 0][None], detector.values[None, middle:]
    if detector.kind == "number":
        return float((standardize(predicted) * standardize(actual)).sum())
    return 0.5 + float((normalize_conditions(actual) * rank_rows(predicted)).sum())
