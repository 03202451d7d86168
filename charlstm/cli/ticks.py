"""Where the axes of charts are labeled: at round numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import ceil, floor, log10

from charlstm.cli.chart import Ticks
from charlstm.cli.output import format_count, format_duration

LABEL_COLUMNS = 12
"""Columns per label, on average."""

DURATIONS = (1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 14400, 21600, 43200, 86400)
"""Round times in seconds."""


def choose_decade_ticks(low: float, high: float, columns: int) -> Ticks:
    """Return the powers of ten from `low` to `high`."""
    exponents = range(ceil(log10(low) - 1e-6), floor(log10(high) + 1e-6) + 1)
    return {10.0**n: f"{10.0**n:g}" for n in exponents}


def choose_count_ticks(low: float, high: float, columns: int) -> Ticks:
    """Return round numbers from `low` to `high`, for an axis of this many columns."""
    rough = (high - low) / max(columns // LABEL_COLUMNS, 1)
    unit = 10.0 ** floor(log10(max(rough, 1e-9)))
    return list_multiples(low, high, next(k * unit for k in (1, 2, 5, 10) if k * unit >= rough), format_count)


def choose_duration_ticks(low: float, high: float, columns: int) -> Ticks:
    """Return round times in seconds from `low` to `high`, for an axis of this many columns."""
    rough = (high - low) / max(columns // LABEL_COLUMNS, 1)
    step = next((step for step in DURATIONS if step >= rough), 86400 * ceil(rough / 86400))
    return list_multiples(low, high, step, format_round_duration)


def format_round_duration(seconds: float) -> str:
    """Format seconds as 0, 45s, 20m, 1h30m or 2d."""
    if seconds % 86400 == 0:
        return f"{seconds / 86400:.0f}d" if seconds else "0"
    return format_duration(seconds).removesuffix("m00s").removesuffix("h00m") + (
        "" if seconds % 60 else "h" if seconds % 3600 == 0 else "m" if seconds < 3600 else ""
    )


def list_multiples(low: float, high: float, step: float, form: Callable[[float], str]) -> Ticks:
    """Return the multiples of a step, with their labels."""
    first, last = ceil(low / step - 1e-6), floor(high / step + 1e-6)
    places: Sequence[float] = [k * step for k in range(first, last + 1)]
    return {place: form(place) for place in places}
