"""For each detector the unit that follows it best: chosen on the first half of a text, reported on the second.

A number is compared by Pearson's correlation r, a condition by the area under the ROC curve (AUC), a class by the
correlation of a unit with its mean in each class. Next to each result are two others: what the character that was just
read achieves alone, since a unit that only echoes `"` is not a memory, and a noise level, the 99th percentile of the
results of the same search after the detector was shifted along the text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from charlstm.inspection.comparison import SCORES, HalfScores, Halves, Scorer, halves, score_character
from charlstm.inspection.detectors import Detector, limit_classes
from charlstm.inspection.trace import Series, Trace
from charlstm.matrices import Array
from charlstm.sampling.units import Unit

SHIFTS = 100
"""Shifted detectors for the noise level."""

NOISE_QUANTILE = 0.99

MIN_SHIFT = 0.05
"""Least shift, as a share of the text: the detectors and units next to a position resemble those at it."""

MIN_POSITIONS, MIN_CHANGES = 20, 4
"""A condition is ranked if it is true and false at this many positions of each half, and changes this often."""

RUNNERS_UP = 4
"""Further units that are reported for a detector."""


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
        """Why it says nothing about memory: "noise", "echo" of the character just read, or empty if it does."""
        if not self.is_above_noise:
            return "noise"
        return "" if self.best.score > self.character_score else "echo"

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
    """Return what was found for each detector, and the detectors that vary too little in one of the halves.

    trace: of a text.
    detectors: of the same text.
    seed: draws the shifts.
    shifts: number of shifted detectors for the noise level.
    """
    varying = [each for each in detectors if varies(each.values)]
    characters = limit_classes(trace.ids)
    offsets = draw_offsets(len(trace.ids), seed, shifts)
    searches = [
        UnitSearch.begin(chosen, offsets)
        for kind in SCORES
        if (chosen := [each for each in varying if each.kind == kind])
    ]
    for series, values in trace.series.items():
        units = halves(values.T)
        for search in searches:
            if search.kind == "class" and series.quantity not in trace.state:
                continue  # gates read the character directly, and classes take long to compare
            search.add(series, units)
    findings = {
        detector.name: search.describe(k, score_character(detector, characters))
        for search in searches
        for k, detector in enumerate(search.detectors)
    }
    return [findings[each.name] for each in varying], [each for each in detectors if not varies(each.values)]


def varies(values: Array) -> bool:
    """Return whether both halves of a text have enough of what a detector distinguishes."""
    for half in halves(values):
        _, counts = np.unique(half, return_counts=True)
        if len(half) - counts.max(initial=0) < MIN_POSITIONS or (half[1:] != half[:-1]).sum() < MIN_CHANGES:
            return False
    return True


def draw_offsets(length: int, seed: int, shifts: int) -> list[int]:
    """Return by how many positions a detector is shifted along the text: 0, then at random."""
    least = max(round(MIN_SHIFT * length), 1)
    return [0, *np.random.default_rng(seed).integers(least, max(length - least, least + 1), shifts).tolist()]


@dataclass
class UnitSearch:
    """The best units for D detectors of one kind among the series seen so far.

    detectors: the detectors.
    score: compares them, at S shifts, with units.
    series: the names of the series.
    plain: the scores of the detectors that were not shifted, [D, H] for each series.
    chosen: the highest absolute score in the first half, [D, S].
    reported: the score of the same unit in the second half, with the sign of the first, [D, S].
    """

    detectors: Sequence[Detector]
    score: Scorer
    series: list[Series]
    plain: list[HalfScores]
    chosen: Array
    reported: Array

    @classmethod
    def begin(cls, detectors: Sequence[Detector], offsets: Sequence[int]) -> UnitSearch:
        """Return a search for detectors of one kind, at these shifts along the text."""
        shifted = np.stack([[np.roll(each.values, offset) for offset in offsets] for each in detectors])
        zeros = np.zeros(shifted.shape[:2], np.float32)
        return cls(detectors, SCORES[detectors[0].kind](shifted), [], [], zeros, zeros)

    @property
    def kind(self) -> str:
        return self.detectors[0].kind

    def add(self, series: Series, units: Halves) -> None:
        """Compare the detectors with the units of a series, [H, T] in two halves."""
        scores = self.score(units)
        best = np.abs(scores.first).argmax(-1)[..., None]
        chosen, reported = (np.take_along_axis(half, best, -1)[..., 0] for half in scores)
        better = np.abs(chosen) > self.chosen
        self.chosen = np.where(better, np.abs(chosen), self.chosen)
        self.reported = np.where(better, reported * np.sign(chosen), self.reported)
        self.series.append(series)
        self.plain.append(HalfScores(*(half[:, 0].copy() for half in scores)))

    def describe(self, k: int, character_score: float) -> Finding:
        """Return what was found for detector k."""
        first, second = (np.concatenate([scores[half][k] for scores in self.plain]) for half in (0, 1))
        hidden = len(first) // len(self.series)
        measure, floor = ("auc", 0.5) if self.kind == "condition" else ("r", 0.0)
        matches = []
        for index in np.argsort(-np.abs(first), kind="stable")[: RUNNERS_UP + 1].tolist():
            series, sign = self.series[index // hidden], 1 if first[index] >= 0 else -1
            unit = Unit(series.layer, index % hidden, series.direction)
            score, first_score = (floor + sign * float(half[index]) for half in (second, first))
            matches.append(Match(unit, series.quantity, score, first_score, sign))
        # the quantile of Weibull (1939) is exceeded by 1 % of further shifts, however few these are
        noise = floor + float(np.quantile(self.reported[k, 1:], NOISE_QUANTILE, method="weibull"))
        return Finding(self.detectors[k], measure, matches[0], character_score, noise, tuple(matches[1:]))
