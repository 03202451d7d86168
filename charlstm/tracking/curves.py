"""What a run has logged, as curves."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from io import StringIO
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charlstm.errors import CharlstmError
from charlstm.storage.locate import METRICS
from charlstm.storage.metrics import LoggedLine, MetricsReader
from charlstm.storage.model import ModelFile
from charlstm.storage.run import RunFolder
from charlstm.tracking.overview import count_passes, load_run_header
from charlstm.tracking.quantities import AXES, AxisName, Quantity, is_loss

SMOOTHING = 50
"""A training loss, which is that of a single batch, is averaged over this part of its curve."""

FEW_POINTS = 10
"""Points of a curve, up to which each is drawn as a dot in an image and none is cut off."""

START_SHARE = 0.05
"""Share of a curve after which its loss is no longer that of a model that knows nothing."""


@dataclass(frozen=True)
class Curve:
    """A quantity of a run: y over x."""

    run: str
    quantity: Quantity
    xs: NDArray[np.float64]
    ys: NDArray[np.float64]


class RunLog:
    """What one run has logged, read again and again while it trains.

    Raises UsageError for a folder without a run, CharlstmError for one that is damaged.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.reader = MetricsReader(path / METRICS)
        self.header  # noqa: B018 - raises for a folder without a run
        self.reader.update()
        if self.reader.is_damaged:
            raise CharlstmError(f"{path / METRICS} is damaged: none of its lines has metrics", "restore it from a copy")

    @cached_property
    def header(self) -> ModelFile:
        """What the run is: its settings, vocabulary and text."""
        return load_run_header(self.path)

    @property
    def entries(self) -> Sequence[LoggedLine]:
        """The lines that have been read."""
        return self.reader.entries

    @property
    def is_training(self) -> bool:
        """Whether a process trains it now."""
        return RunFolder(self.path).is_training

    def read_curve(self, quantity: Quantity, axis: AxisName, name: str) -> Curve:
        """Return a quantity over an axis, with the name of the run. It may be empty."""
        points = [
            (x, entry[quantity.key])
            for entry in self.entries
            if is_number(entry.get(quantity.key)) and is_number(x := self.place(entry, axis))
        ]
        xs, ys = np.array(points, np.float64).reshape(-1, 2).T
        return Curve(name, quantity, xs, ys)

    def place(self, entry: LoggedLine, axis: AxisName) -> float | None:
        """Return where a line is on an axis. Passes that an earlier version did not log are computed."""
        place = entry.get(AXES[axis])
        return count_passes(self.header, entry.get("characters")) if place is None and axis == "epoch" else place


def group_panels(curves: Sequence[Curve]) -> list[tuple[str, list[Curve]]]:
    """Return a title and the curves of each chart: those of one unit share one."""
    panels: dict[str, list[Curve]] = {}
    for curve in curves:
        panels.setdefault(curve.quantity.panel or curve.quantity.key, []).append(curve)
    return [(name_panel([curve.quantity for curve in inside]), inside) for inside in panels.values()]


def name_panel(quantities: Sequence[Quantity]) -> str:
    """Return what a chart of these quantities shows, with its unit."""
    first = quantities[0]
    label = first.label if len({*quantities}) == 1 else first.panel
    return f"{label} in {first.unit}" if first.unit else label


def sort_by_end(curves: Sequence[Curve]) -> list[Curve]:
    """Return the curves in the order in which they end, from the top."""
    return sorted(curves, key=lambda curve: -curve.ys[-1])


def name_curves(curves: Sequence[Curve]) -> list[str]:
    """Return what distinguishes each curve: the run, the quantity or both."""
    if len({curve.quantity for curve in curves}) == 1:
        return [curve.run for curve in curves]
    if len({curve.run for curve in curves}) == 1:
        return [curve.quantity.label for curve in curves]
    return [f"{curve.run} {curve.quantity.label}" for curve in curves]


def smooth(curve: Curve) -> Curve:
    """Return the running mean over a fiftieth of a curve. Nearer to its ends, fewer points are averaged."""
    count = len(curve.ys)
    radius = np.minimum(count // (2 * SMOOTHING), np.minimum(np.arange(count), np.arange(count)[::-1]))
    sums = np.concatenate([[0.0], np.cumsum(curve.ys)])
    middle = np.arange(count)
    return replace(curve, ys=(sums[middle + radius + 1] - sums[middle - radius]) / (2 * radius + 1))


def find_top(curves: Sequence[Curve]) -> float | None:
    """Return the highest loss after the first twentieth of each curve: the rest of a chart would be nearly empty.

    A curve of few points counts from its first: nothing else would be left of it. One that ends within the first
    twentieth of the longest does not count. None if they are no losses.
    """
    if not all(is_loss(curve.quantity) for curve in curves):
        return None
    begin = START_SHARE * max(float(curve.xs[-1]) for curve in curves)
    return float(max(find_settled(curve).max() for curve in curves if curve.xs[-1] >= begin))


def find_settled(curve: Curve) -> NDArray[np.float64]:
    """Return the values of a curve after its beginning; all of them if they are few."""
    if len(curve.xs) <= FEW_POINTS:
        return curve.ys
    settled: NDArray[np.float64] = curve.ys[curve.xs >= curve.xs[0] + START_SHARE * (curve.xs[-1] - curve.xs[0])]
    return settled


def is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and isfinite(value)


def write_csv(logs: Mapping[str, RunLog], quantities: Sequence[Quantity]) -> Iterator[str]:
    """Yield a header and a line for each of the points. What a point does not have is an empty cell."""
    yield format_csv_row(["run", *AXES.values(), *(quantity.key for quantity in quantities)])
    for point in list_points(logs, quantities):
        yield format_csv_row([*point.values()])


def list_points(logs: Mapping[str, RunLog], quantities: Sequence[Quantity]) -> Iterator[dict[str, Any]]:
    """Yield a record for each line of the metrics of some runs, by name, that has one of the quantities.

    It has the name of the run, the places on all axes and the quantities, None for those that the line does not have.
    """
    keys = [quantity.key for quantity in quantities]
    for name, log in logs.items():
        for entry in log.entries:
            if not entry.keys().isdisjoint(keys):
                places = {key: log.place(entry, axis) for axis, key in AXES.items()}
                yield {"run": name, **places, **{key: entry.get(key) for key in keys}}


def format_csv_row(cells: Sequence[object]) -> str:
    """Return a line of CSV. None is an empty cell."""
    text = StringIO()
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue()
