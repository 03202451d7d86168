"""The loss of a model by category: inside quotations, by column, by kind of character."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from charlstm.inspection.detectors import CLASS_NAMES, Flags, detect
from charlstm.inspection.intervention import categorize
from charlstm.matrices import Array

EDGES = (0, 1, 5, 10, 20, 40, 80)
"""Lower bounds of the ranges of a number."""

MIN_ROW = 20
"""Fewest characters of a row."""

NEXT = "next character"
"""The name of the rows by the kind of the character that is predicted; all others are by what was read before it."""


@dataclass(frozen=True)
class CategoryLoss:
    """The loss of some characters of a text.

    detector: what they are chosen by.
    value: its value for these.
    characters: their number.
    loss_nats: their loss, nats per character.
    """

    detector: str
    value: str
    characters: int
    loss_nats: float

    def to_dict(self) -> dict[str, Any]:
        """Return the loss as JSON values."""
        return {**vars(self), "loss_nats": round(self.loss_nats, 5)}


def loss_by_category(text: str, log_probabilities: Array) -> Iterator[CategoryLoss]:
    """Yield the loss of a text of C characters by category, given the log-probability of each, [C].

    A category is the kind of the character itself, or the value of a detector before it.
    """
    losses = -log_probabilities
    for name, mask in categorize(text).items():
        yield from row(NEXT, name, mask, losses)
    for detector in detect(text):
        values = detector.values[:-1]  # after the character before
        if detector.name in ("previous character", "newline next"):
            continue  # the class replaces the first, the kind of the character the second
        if detector.kind == "condition":
            ranges = [("yes", values > 0), ("no", values == 0)]
        elif detector.kind == "class":
            ranges = [(name, values == k) for k, name in enumerate(CLASS_NAMES)]
        else:
            ranges = list(split_range(values))
        rows = [found for name, mask in ranges for found in row(detector.name, name, mask, losses[1:])]
        if len(rows) > 1:
            yield from rows


def split_range(values: Array) -> Iterator[tuple[str, Flags]]:
    """Yield the ranges of a number, with the places that are in each."""
    for low, high in zip(EDGES, (*EDGES[1:], np.inf), strict=True):
        name = str(low) if high == low + 1 else f"{low} to {high - 1:g}" if np.isfinite(high) else f"{low} or more"
        yield name, (values >= low) & (values < high)


def row(detector: str, value: str, mask: Flags, losses: Array) -> Iterator[CategoryLoss]:
    """Yield the loss of these places, if they are enough."""
    if mask.sum() >= MIN_ROW:
        yield CategoryLoss(detector, value, int(mask.sum()), float(losses[mask].mean(dtype=np.float64)))
