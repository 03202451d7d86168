"""Curves as charts on a terminal, with a legend below each."""

from __future__ import annotations

from collections.abc import Sequence
from string import ascii_letters, digits

from rich.cells import cell_len

from charlstm.cli.chart import ROWS, Line, draw_chart, paint
from charlstm.cli.columns import shorten
from charlstm.cli.output import format_count, format_duration
from charlstm.cli.ticks import choose_count_ticks, choose_duration_ticks
from charlstm.console import Console
from charlstm.tracking.curves import Curve, find_top, group_panels, name_curves, sort_by_end
from charlstm.tracking.quantities import AxisName, is_loss

LINE_COLORS = (
    "38;5;33",
    "38;5;208",
    "38;5;34",
    "38;5;160",
    "38;5;135",
    "38;5;37",
    "38;5;199",
    "38;5;136",
    "38;5;245",
    "38;5;106",
)
"""SGR codes of colors that can be told apart, and read on light and on dark."""

MARKS = ascii_letters + digits
MIN_CHART_ROWS, MAX_CHART_ROWS = 4, 24
COLUMNS_PER_ROW = 8
"""The shape of a chart that is neither flat nor steep."""

MIN_NAME = 8
"""Columns for the name of a curve, at least."""

TITLE_ROWS = 3
"""Rows of a chart besides the plot and the legend: its title, its axis and the labels of it."""

AXIS_LABELS: dict[AxisName, str] = {
    "step": "steps",
    "time": "time",
    "epoch": "passes over the text",
    "characters": "characters read",
}


def draw_panels(console: Console, curves: Sequence[Curve], axis: AxisName, height: int | None = None) -> list[str]:
    """Return the rows of a chart for each unit, as stdout can show them.

    height: the rows that there are; None for as many as look well.
    """
    panels = group_panels(curves)
    width = console.width(console.stdout)
    rows = min(max(ROWS, width // COLUMNS_PER_ROW), MAX_CHART_ROWS)
    if height is not None:
        others = len(curves) + TITLE_ROWS * len(panels)
        rows = min(max((height - others) // len(panels), MIN_CHART_ROWS), rows)
    colored = console.uses_color(console.stdout)
    return [row for panel in panels for row in draw_titled_chart(*panel, axis, width, rows, colored=colored)]


def draw_titled_chart(
    title: str, curves: Sequence[Curve], axis: AxisName, width: int, rows: int, *, colored: bool
) -> list[str]:
    """Return a title, a chart and its legend, in the order in which the curves end, from the top."""
    curves = sort_by_end(curves)
    marks = [MARKS[k % len(MARKS)] for k in range(len(curves))] if len(curves) > 1 else [""]
    colors = [LINE_COLORS[k % len(LINE_COLORS)] if colored else "" for k in range(len(curves))]
    lines = [Line(curve.xs, curve.ys, *look) for curve, *look in zip(curves, marks, colors, strict=True)]
    ticks = choose_duration_ticks if axis == "time" else choose_count_ticks
    chart = draw_chart(
        lines, width, ticks, rows=rows, bottom=None if is_loss(curves[0].quantity) else 0.0, top=find_top(curves)
    )
    return [f"{title} over {AXIS_LABELS[axis]}", *chart, *draw_legend(curves, marks, colors, axis, width)]


def draw_legend(
    curves: Sequence[Curve], marks: Sequence[str], colors: Sequence[str], axis: AxisName, width: int
) -> list[str]:
    """Return a row for each curve: its mark, what it is, its last value and, of a loss, the lowest."""
    ends = [describe_end(curve, axis) for curve in curves]
    room = max(width - len("  a   ") - max(map(len, ends)), MIN_NAME)
    names = [shorten(name, room) for name in name_curves(curves)]
    column = max(map(cell_len, names))
    return [
        f"  {paint(mark or '─', color)} {name}{' ' * (column - cell_len(name))}  {end}"
        for mark, color, name, end in zip(marks, colors, names, ends, strict=True)
    ]


def describe_end(curve: Curve, axis: AxisName) -> str:
    """Return the last value of a curve and, of a loss, the lowest and where it is."""
    if not is_loss(curve.quantity):
        return format_count(curve.ys[-1])
    lowest = int(curve.ys.argmin())
    place = format_duration(curve.xs[lowest]) if axis == "time" else format_count(curve.xs[lowest])
    return f"{curve.ys[-1]:.4f}, lowest {curve.ys[lowest]:.4f} at {place}"
