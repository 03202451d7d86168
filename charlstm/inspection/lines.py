"""The state of a model after each line of a text, as data for other programs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, NamedTuple

import numpy as np

from charlstm.inspection.trace import Series, Trace
from charlstm.matrices import Array

Pool = Literal["last", "mean"]


class LineState(NamedTuple):
    """A line of a text, without its newline, and the state of all layers, [S]."""

    text: str
    state: Array


def line_states(text: str, trace: Trace, quantity: str, pool: Pool = "last") -> Iterator[LineState]:
    """Yield the state of each line of a text of C characters, traced by character.

    quantity: "hidden", "cell", or another that the trace has.
    pool: "last" is the state after the last character of the line, in the backward direction after its first one, which
        that direction reads last; "mean" is the mean over the line.
    """
    series = {name: values for name, values in trace.series.items() if name.quantity == quantity}
    start = 0
    for line in list_lines(text):
        content = line.removesuffix("\n")
        span = slice(start, start + max(len(content), 1))
        parts = [pool_series(name, values[span], pool) for name, values in series.items()]
        yield LineState(content, np.concatenate(parts))
        start += len(line)


def list_lines(text: str) -> list[str]:
    """Return the lines of a text with their newlines. Only a newline ends a line."""
    lines = [f"{line}\n" for line in text.split("\n")]
    lines[-1] = lines[-1].removesuffix("\n")
    return [line for line in lines if line]


def pool_series(name: Series, values: Array, pool: Pool) -> Array:
    """Return one value per unit, [H], from those over a line, [n, H]."""
    if pool == "mean":
        return np.asarray(values.mean(0))
    return np.asarray(values[0 if name.direction == "backward" else -1])
