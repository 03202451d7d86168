"""Places of a text where the same units are on as in a given span (LSTMVis; Strobelt et al. 2018)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from charlstm.errors import UsageError
from charlstm.inspection.detectors import Flags
from charlstm.inspection.levels import to_levels
from charlstm.inspection.trace import Trace
from charlstm.sampling.units import Unit
from charlstm.vocabulary import Ids

ON = 0.5
"""A unit is on where its level is above this, or below the negative: half of the range that it uses."""


@dataclass(frozen=True)
class SimilarPlaces:
    """Spans of a text that resemble one of them.

    units: those that are on throughout the span, each with the sign of its level.
    spans: the first place of each span, and how many of the units are on throughout, the most first.
    """

    units: list[tuple[Unit, int]]
    spans: list[tuple[int, int]]


def find_similar(trace: Trace, start: int, end: int, count: int = 10) -> SimilarPlaces:
    """Return up to `count` spans that are as long as that from `start` to before `end`, and overlap no other.

    Raises UsageError unless the span is within the text and at least one unit is on throughout.
    """
    length = end - start
    if not 0 <= start < end <= len(trace.ids):
        raise UsageError(f"{start}:{end} is not a span of a text of {len(trace.ids):,} characters")
    quantity = trace.state[0]
    units: list[tuple[Unit, int]] = []
    totals = np.zeros(len(trace.ids) - length + 1, np.int64)
    for series, values in trace.series.items():
        if series.quantity != quantity:
            continue
        levels = to_levels(quantity, values)
        for sign in (1, -1):
            lasting = on_throughout(sign * levels > ON, length)
            chosen = np.flatnonzero(lasting[start])
            units += [(Unit(series.layer, int(number), series.direction), sign) for number in chosen]
            totals += lasting[:, chosen].sum(1)
    if not units:
        raise UsageError(f"no unit is on throughout {start}:{end}", "try a shorter span")
    return SimilarPlaces(units, list_best(totals, start, length, count))


def on_throughout(on: Flags, length: int) -> Flags:
    """Return whether each unit is on in all `length` places from each one on, [T - length + 1, H], given [T, H]."""
    total = np.concatenate([np.zeros((1, on.shape[1]), np.int64), np.cumsum(on, 0)])
    lasting: Flags = total[length:] - total[:-length] == length
    return lasting


def list_best(totals: Ids, start: int, length: int, count: int) -> list[tuple[int, int]]:
    """Return the places with the highest totals that are at least `length` apart, also from `start`."""
    taken = [start]
    for place in np.argsort(-totals, kind="stable").tolist():
        if totals[place] == 0 or len(taken) > count:
            break
        if all(abs(place - other) >= length for other in taken):
            taken.append(place)
    return [(place, int(totals[place])) for place in taken[1:]]
