"""For each detector the unit that follows it best: chosen on the first half of a text, reported on the second.

A number is compared by Pearson's correlation r, a condition by the area under the ROC curve (AUC), a class by the
correlation of a unit with its mean in each class. Next to each result are two others: what the character that was just
read achieves alone, since a unit that only echoes `"` is not a memory, and a noise level, the 99th percentile of the
results of the same search after the detector was shifted along the text.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from charlstm.cells import Array
from charlstm.inspection.detectors import Detector
from charlstm.inspection.trace import Series, Trace
from charlstm.sampling.units import Unit
from charlstm.vocabulary import Ids

SHIFTS = 100
"""Shifted detectors for the noise level."""

NOISE_QUANTILE = 0.99

MIN_SHIFT = 0.05
"""Least shift, as a share of the text: the detectors and units next to a position resemble those at it."""

MIN_POSITIONS, MIN_CHANGES = 20, 4
"""A condition is ranked if it is true and false at this many positions of each half, and changes this often."""

MAX_CLASSES = 64
"""The most frequent characters are a class each; all others are one."""

RUNNERS_UP = 4
"""Further units that are reported for a detector."""

MAX_TIES = 0.01
"""Share of equal neighbors up to which the ranks of values ignore ties."""


@dataclass(frozen=True)
class Match:
    """A unit that follows a detector.

    unit: the unit.
    quantity: a state or gate of it.
    score: |r| or AUC on the second half, negative or below 0.5 if the sign differs between the halves.
    first_half_score: the same on the first half, where it was chosen.
    sign: 1 if the quantity rises with the detector, -1 if it falls.
    """

    unit: Unit
    quantity: str
    score: float
    first_half_score: float
    sign: int

    def to_dict(self) -> dict[str, Any]:
        """Return the match as JSON values."""
        return {
            "unit": str(self.unit),
            "quantity": self.quantity,
            "score": round(self.score, 4),
            "first_half_score": round(self.first_half_score, 4),
            "sign": self.sign,
        }


@dataclass(frozen=True)
class Finding:
    """The units that follow a detector best, the best on the first half first.

    detector: the detector.
    measure: "r" or "auc".
    best: the best unit.
    character_score: what the character just read achieves alone, on the second half.
    noise: what the best unit achieves for a detector that the units cannot know.
    others: the next best units.
    """

    detector: Detector
    measure: str
    best: Match
    character_score: float
    noise: float
    others: tuple[Match, ...] = ()

    @property
    def is_above_noise(self) -> bool:
        return self.best.score > self.noise

    @property
    def remark(self) -> str:
        """Why it says nothing about memory; empty if it does."""
        if not self.is_above_noise:
            return "not above noise"
        return "" if self.best.score > self.character_score else "no more than the character"

    def to_dict(self) -> dict[str, Any]:
        """Return the finding as JSON values."""
        return {
            "detector": self.detector.name,
            "measure": self.measure,
            **self.best.to_dict(),
            "character_score": round(self.character_score, 4),
            "noise": round(self.noise, 4),
            "above_noise": self.is_above_noise,
            "others": [each.to_dict() for each in self.others],
        }


def rank_units(
    trace: Trace, detectors: Sequence[Detector], seed: int = 1, shifts: int = SHIFTS
) -> tuple[list[Finding], list[Detector]]:
    """Return what was found for each detector, and the detectors that hardly vary in one of the halves.

    trace: of a text.
    detectors: of the same text.
    seed: draws the shifts.
    shifts: number of shifted detectors for the noise level.
    """
    varying = [each for each in detectors if varies(each.values)]
    characters = limit_classes(trace.ids)
    offsets = draw_offsets(len(trace.ids), seed, shifts)
    findings: dict[str, Finding] = {}
    for kind, score in SCORES.items():
        if chosen := [each for each in varying if each.kind == kind]:
            search = search_units(trace, chosen, offsets, score)
            for k, detector in enumerate(chosen):
                findings[detector.name] = search.describe(k, detector, score_character(detector, characters))
    return [findings[each.name] for each in varying], [each for each in detectors if not varies(each.values)]


def varies(values: Array) -> bool:
    """Return whether both halves of a text have enough of what a detector distinguishes."""
    for half in halves(values):
        _, counts = np.unique(half, return_counts=True)
        if len(half) - counts.max(initial=0) < MIN_POSITIONS or (half[1:] != half[:-1]).sum() < MIN_CHANGES:
            return False
    return True


def halves(values: Array) -> tuple[Array, Array]:
    """Return both halves of an array, of which the last dimension is time."""
    middle = values.shape[-1] // 2
    return np.ascontiguousarray(values[..., :middle]), np.ascontiguousarray(values[..., middle:])


def draw_offsets(length: int, seed: int, shifts: int) -> list[int]:
    """Return by how many positions a detector is shifted along the text: 0, then at random."""
    least = max(round(MIN_SHIFT * length), 1)
    return [0, *np.random.default_rng(seed).integers(least, max(length - least, least + 1), shifts).tolist()]


class HalfScores(NamedTuple):
    """The signed scores of D detectors at S shifts and of H units, in both halves, [D, S, H]."""

    first: Array
    second: Array


Scorer = Callable[[Array, Array], HalfScores]
"""Returns the scores of detectors [D, S, T] and units [H, T]."""


@dataclass
class UnitSearch:
    """The best units among the series seen so far.

    series: their names.
    plain: the scores of the detectors that were not shifted, [D, H] for each series.
    chosen: the highest absolute score in the first half, [D, S].
    reported: the score of the same unit in the second half, with the sign of the first, [D, S].
    """

    measure: str
    series: list[Series]
    plain: list[HalfScores]
    chosen: Array
    reported: Array

    def describe(self, k: int, detector: Detector, character_score: float) -> Finding:
        """Return what was found for detector k."""
        first, second = (np.concatenate([scores[half][k] for scores in self.plain]) for half in (0, 1))
        hidden = len(first) // len(self.series)
        floor = 0.5 if self.measure == "auc" else 0.0
        matches = []
        for index in np.argsort(-np.abs(first), kind="stable")[: RUNNERS_UP + 1].tolist():
            series, sign = self.series[index // hidden], 1 if first[index] >= 0 else -1
            unit = Unit(series.layer, index % hidden, series.direction)
            score, first_score = (floor + sign * float(half[index]) for half in (second, first))
            matches.append(Match(unit, series.quantity, score, first_score, sign))
        # the quantile of Weibull (1939) is exceeded by 1 % of further shifts, however few these are
        noise = floor + float(np.quantile(self.reported[k, 1:], NOISE_QUANTILE, method="weibull"))
        return Finding(detector, self.measure, matches[0], character_score, noise, tuple(matches[1:]))


def search_units(trace: Trace, detectors: Sequence[Detector], offsets: Sequence[int], score: Scorer) -> UnitSearch:
    """Score every unit of a trace with these detectors, which are of one kind, at each of these shifts."""
    kind = detectors[0].kind
    shifted = np.stack([[np.roll(each.values, offset) for offset in offsets] for each in detectors])
    size = shifted.shape[:2]
    zeros = np.zeros(size, np.float32)
    search = UnitSearch("auc" if kind == "condition" else "r", [], [], zeros, zeros)
    for series, values in trace.series.items():
        if kind == "class" and series.quantity not in trace.state:
            continue  # gates read the character directly, and classes take long to compare
        scores = score(shifted, values.T)
        best = np.abs(scores.first).argmax(-1)[..., None]
        chosen, reported = (np.take_along_axis(half, best, -1)[..., 0] for half in scores)
        better = np.abs(chosen) > search.chosen
        search.chosen = np.where(better, np.abs(chosen), search.chosen)
        search.reported = np.where(better, reported * np.sign(chosen), search.reported)
        search.series.append(series)
        search.plain.append(HalfScores(*(half[:, 0].copy() for half in scores)))
    return search


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
