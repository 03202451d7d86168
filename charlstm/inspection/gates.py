"""How far the gates of each layer are open: saturation, integrators and time constants.

A gate is left-saturated where it is below 0.1 and right-saturated where it is above 0.9 (Karpathy, Johnson and Fei-Fei
2015, section 4.2). A unit whose forget gate is nearly always right-saturated integrates: it keeps its cell state.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from charlstm.inspection.trace import Series, Trace
from charlstm.matrices import Array

LEFT_SATURATED, RIGHT_SATURATED = 0.1, 0.9
"""A gate is saturated below the first and above the second."""

NEARLY_ALWAYS = 0.9
"""Share of the text from which a unit counts as always open or always closed."""

GATES = ("input", "forget", "output", "reset", "update")
KEEPING = ("forget", "update")
"""Gates that are 1 where a unit keeps its state."""

PERCENTILES = (10, 50, 90)


@dataclass(frozen=True)
class GateStatistics:
    """How far a gate of a layer is open over a text.

    series: the layer and the gate.
    left: share of the text in which each unit is left-saturated, [H].
    right: share of the text in which each unit is right-saturated, [H].
    time_constants: 1 / (1 - mean) of each unit, in characters, [H], of a gate that keeps the state; None of others.
    """

    series: Series
    left: Array
    right: Array
    time_constants: Array | None

    def to_dict(self) -> dict[str, object]:
        """Return the statistics as JSON values."""
        record: dict[str, object] = {
            "series": str(self.series),
            "left_saturated": round(float(self.left.mean()), 4),
            "right_saturated": round(float(self.right.mean()), 4),
            "units_nearly_always_open": np.flatnonzero(self.right > NEARLY_ALWAYS).tolist(),
            "units_nearly_always_closed": np.flatnonzero(self.left > NEARLY_ALWAYS).tolist(),
        }
        if self.time_constants is not None:
            record["time_constants"] = {
                f"p{k}": round(float(np.percentile(self.time_constants, k)), 2) for k in PERCENTILES
            }
            record["longest_time_constant"] = round(float(self.time_constants.max()), 2)
        return record


def measure_gates(trace: Trace) -> list[GateStatistics]:
    """Return the statistics of every gate of a trace. A cell without gates has those of |h|."""
    found = [measure_gate(series, values) for series, values in trace.series.items() if is_gate(series, values)]
    return found or [
        measure_gate(series, np.abs(values)) for series, values in trace.series.items() if series.quantity == "hidden"
    ]


def is_gate(series: Series, values: Array) -> bool:
    """Return whether a quantity is a gate, between 0 and 1. The output of a Jordan network has the name of a gate."""
    return series.quantity in GATES and bool(values.min() >= 0)


def measure_gate(series: Series, values: Array) -> GateStatistics:
    left, right = (
        (values < LEFT_SATURATED).mean(0, dtype=np.float32),
        (values > RIGHT_SATURATED).mean(0, dtype=np.float32),
    )
    keeps = series.quantity in KEEPING
    time_constants = 1 / np.maximum(1 - values.mean(0), np.float32(1e-6)) if keeps else None
    return GateStatistics(series, left, right, time_constants)
