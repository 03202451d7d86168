"""Values of a unit as levels from -1 to 1, for colors: 0 is the middle of the range of the quantity."""

from __future__ import annotations

import numpy as np

from charlstm.matrices import Array

SIGMOID_GATES = ("input", "forget", "reset", "update")
"""Quantities between 0 and 1. The output gate is one, too, except in a Jordan network, whose output is a tanh."""

EXTENT_QUANTILE = 0.99
"""Quantile of the distance from the middle that has the full color: a few extreme values do not hide the others."""


def middle(quantity: str, values: Array) -> float:
    """Return the value that is shown without color: 0.5 for gates, 0 for states."""
    return 0.5 if quantity in SIGMOID_GATES or (quantity == "output" and values.min() >= 0) else 0.0


def extents(values: Array, center: float) -> Array:
    """Return the distance from the center that has the full color, of each unit [n], given their values [T, n]."""
    distances = np.quantile(np.abs(values - np.float32(center)), EXTENT_QUANTILE, axis=0)
    return np.asarray(np.maximum(distances, 1e-6), np.float32)


def to_levels(quantity: str, values: Array) -> Array:
    """Return levels from -1 to 1 for values of units, [T, n] each."""
    center = middle(quantity, values)
    levels: Array = np.clip((values - center) / extents(values, center), -1, 1).astype(np.float32)
    return levels
