"""Units of a model by name, and values that they are fixed at."""

from __future__ import annotations

import re
from collections.abc import Mapping
from math import isfinite
from typing import NamedTuple

import numpy as np

from charlstm.architecture import BACKWARD_PREFIX
from charlstm.config import Direction, ModelConfig
from charlstm.errors import UsageError
from charlstm.sampling.network import Clamp


class Unit(NamedTuple):
    """A unit of a model: its number within a layer, all counted from 0 as in `layers.1.weight_hh`."""

    layer: int
    number: int
    direction: Direction = "forward"

    def __str__(self) -> str:
        return f"{BACKWARD_PREFIX if self.direction == 'backward' else ''}{self.layer}.{self.number}"

    @classmethod
    def parse(cls, text: str, config: ModelConfig) -> Unit:
        """Return the unit named "1.37", or "backward.1.37". Raises UsageError unless the model has it."""
        match = re.fullmatch(r"(backward\.)?(\d{1,4})\.(\d{1,6})", text)
        if match is None:
            raise UsageError(f"{text!r} is not a unit", "name one as LAYER.UNIT, both counted from 0, such as 0.17")
        unit = cls(int(match[2]), int(match[3]), "backward" if match[1] else "forward")
        if unit.direction == "backward" and not config.bidirectional:
            raise UsageError(f"there is no unit {unit}: the model reads forward only")
        if unit.layer >= config.layers or unit.number >= config.hidden:
            layers = f"layers 0 to {config.layers - 1}" if config.layers > 1 else "layer 0"
            raise UsageError(f"there is no unit {unit}: the model has {layers} with units 0 to {config.hidden - 1}")
        return unit


class Target(NamedTuple):
    """What a unit is fixed at: a value, or a number of standard deviations from its mean."""

    value: float
    in_deviations: bool

    @classmethod
    def parse(cls, text: str) -> Target:
        """Return the target "2.0", a value, or "+2", which counts standard deviations. Raises UsageError."""
        try:
            value = float(text)
        except ValueError:
            value = float("nan")
        if not isfinite(value):
            raise UsageError(f"{text!r} is not a value to fix a unit at", "give one as 2.0, or as +2 or -2 deviations")
        return cls(value, text.strip()[:1] in ("+", "-"))


def make_clamps(values: Mapping[Unit, float], direction: Direction) -> list[Clamp]:
    """Return clamps for the network of a direction, one per layer. Raises UsageError for a unit of the other one."""
    by_layer: dict[int, list[Unit]] = {}
    for unit in values:
        if unit.direction != direction:
            raise UsageError(f"unit {unit} is not in the {direction} direction", "--direction chooses the other one")
        by_layer.setdefault(unit.layer, []).append(unit)
    return [
        Clamp(
            layer,
            np.array([unit.number for unit in units]),
            np.array([values[unit] for unit in units], np.float32),
        )
        for layer, units in by_layer.items()
    ]
