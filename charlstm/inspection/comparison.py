"""How detectors and units are compared: r, the area under the ROC curve, and the correlation with means of classes."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from charlstm.inspection.detectors import Detector
from charlstm.matrices import Array
from charlstm.runtime import count_cores
from charlstm.vocabulary import Ids

MAX_TIES = 0.01
"""Share of equal neighbors up to which the ranks of values ignore ties."""


class HalfScores(NamedTuple):
    """The signed scores of D detectors at S shifts and of H units, in both halves, [D, S, H]."""

    first: Array
    second: Array


Halves = tuple[Array, Array]

Scorer = Callable[[Halves], HalfScores]
"""Returns the scores of some detectors and units [H, T], which are given as two halves."""


def halves(values: Array) -> Halves:
    """Return both halves of an array, of which the last dimension is time."""
    middle = values.shape[-1] // 2
    return np.ascontiguousarray(values[..., :middle]), np.ascontiguousarray(values[..., middle:])


def correlate(detectors: Array) -> Scorer:
    """Return what computes r of each number, [D, S, T], and unit."""
    prepared = [standardize(rows) for rows in halves(detectors)]
    return lambda units: HalfScores(*(rows @ standardize(half).T for rows, half in zip(prepared, units, strict=True)))


def score_conditions(detectors: Array) -> Scorer:
    """Return what computes AUC - 1/2 of each condition and unit: the area as a sum of ranks (Mann and Whitney 1947)."""
    prepared = [normalize_conditions(rows) for rows in halves(detectors)]
    return lambda units: HalfScores(*(rows @ rank_rows(half).T for rows, half in zip(prepared, units, strict=True)))


def score_classes(detectors: Array) -> Scorer:
    """Return what computes the correlation of each unit with its mean of the first half in each class."""
    prepared = [halves(one_hot(classes.astype(np.int64))) for classes in detectors]

    def score(units: Halves) -> HalfScores:
        pairs = [score_class(*classes, *map(standardize, units)) for classes in prepared]
        return HalfScores(*(np.stack(half) for half in zip(*pairs, strict=True)))

    return score


def score_class(first_classes: Array, second_classes: Array, first: Array, second: Array) -> HalfScores:
    """Return the scores of the classes of a detector at S shifts, [S, K, n], and of standardized units, [H, n]."""
    means, counts = class_means(first_classes, first)
    first_scores = np.sqrt((counts * np.square(means)).sum(1))  # which is positive
    second_means, second_counts = class_means(second_classes, second)
    centered = means - (second_counts * means).sum(1, keepdims=True) / second_counts.sum(1, keepdims=True)
    norm = np.sqrt((second_counts * np.square(centered)).sum(1))
    covariance = (second_counts * centered * second_means).sum(1)
    return HalfScores(first_scores, np.divide(covariance, norm, out=np.zeros_like(norm), where=norm > TINY))


SCORES: dict[str, Callable[[Array], Scorer]] = {
    "number": correlate,
    "condition": score_conditions,
    "class": score_classes,
}
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
    cores = count_cores()
    with ThreadPoolExecutor(cores) as pool:  # NumPy sorts without holding the interpreter
        return np.concatenate(list(pool.map(rank_some_rows, np.array_split(rows, cores))))


def rank_some_rows(rows: Array) -> Array:
    order = np.argsort(rows, axis=-1)
    ranks = np.empty_like(rows)
    np.put_along_axis(ranks, order, np.arange(rows.shape[-1], dtype=np.float32)[None], -1)
    ordered = np.take_along_axis(rows, order, -1)
    ties = (ordered[:, 1:] == ordered[:, :-1]).mean(-1)
    for k in np.flatnonzero(ties > MAX_TIES):
        _, inverse, counts = np.unique(rows[k], return_inverse=True, return_counts=True)
        ranks[k] = (np.cumsum(counts) - (counts + 1) / 2)[inverse]
    return ranks - np.float32((rows.shape[-1] - 1) / 2)


def one_hot(classes: Ids) -> Array:
    """Return 1 for the class of each place and 0 for the others, [S, K, n], given the classes at S shifts, [S, n]."""
    ones = np.zeros((len(classes), int(classes.max()) + 1, classes.shape[1]), np.float32)
    np.put_along_axis(ones, classes[:, None], np.float32(1), 1)
    return ones


def class_means(classes: Array, units: Array) -> tuple[Array, Array]:
    """Return the mean of each unit [H, n] in each class, [S, K, H], and the number of places in it, [S, K, 1]."""
    counts = classes.sum(2, keepdims=True)
    sums = (classes.reshape(-1, classes.shape[2]) @ units.T).reshape(*classes.shape[:2], -1)
    return sums / np.maximum(counts, np.float32(1)), counts


def score_character(detector: Detector, characters: Ids) -> float:
    """Return the score on the second half of the detector's mean for each character, as it was in the first half."""
    if detector.kind == "class":
        return 1.0  # such a detector is a function of the character
    middle, everywhere = len(characters) // 2, one_hot(characters[None])
    means, _ = class_means(everywhere[..., :middle], detector.values[None, :middle])
    predicted, actual = means[0, characters[middle:], 0][None], detector.values[None, middle:]
    if detector.kind == "number":
        return float((standardize(predicted) * standardize(actual)).sum())
    return 0.5 + float((normalize_conditions(actual) * rank_rows(predicted)).sum())
