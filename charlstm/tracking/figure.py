"""Curves as an image for a page or a paper, drawn by matplotlib."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from io import BytesIO
from typing import Any

import numpy as np
from matplotlib import color_sequences, rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter
from numpy.typing import NDArray

from charlstm.tracking.curves import FEW_POINTS, Curve, find_top, name_curves, sort_by_end
from charlstm.tracking.quantities import is_loss

FIGURE_WIDTH, HEIGHT, LOW_HEIGHT, DPI = 8.0, 4.2, 2.0, 200
"""Inches of the first chart, the height of those below it, and dots per inch of a PNG."""

LEGEND_ROW = 0.19
"""Inches of a row of the legend, which makes the chart higher if there are many."""

MANY = 1e4
"""From here on, numbers on an axis are written as 20k or 1.5M."""

MAX_FIGURE_POINTS = 400
"""Points of a line: of more, several are averaged."""

DASHES, MARKERS = ("-", (0, (4, 2)), (0, (1, 1))), ("o", "s", "^")
"""Of the first ten runs, the next ten and so on. Only curves of few points have markers."""

LABEL_SPACE = 84
"""Width of an axis in characters, by which its labels are chosen."""

LOOK: dict[Any, Any] = {
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e4e4e4",
    "font.size": 10,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "legend.handlelength": 2.6,  # two dashes
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "charlstm",  # the same curves lead to the same bytes
    "pdf.fonttype": 42,
}

NO_DATES = {"svg": {"Date": None}, "pdf": {"CreationDate": None}, "png": {}}
"""Metadata to omit from a file, so that the same curves give the same bytes."""


def draw_figure(
    panels: Sequence[tuple[str, Sequence[Curve]]],
    axis_label: str,
    image_format: str,
    choose_ticks: Callable[[float, float, int], Mapping[float, str]],
) -> bytes:
    """Return an image with a chart for each unit, in a format of matplotlib: svg, png or pdf.

    A run has the same color in all of them; its training loss is paler than its validation loss. A single run is named
    by the title.
    """
    runs = list(dict.fromkeys(curve.run for _, curves in panels for curve in curves))
    heights = [max(LOW_HEIGHT if k else HEIGHT, LEGEND_ROW * (len(curves) + 1)) for k, (_, curves) in enumerate(panels)]
    with rc_context(LOOK):
        figure = Figure(figsize=(FIGURE_WIDTH, sum(heights)), layout="constrained")
        grid = figure.subplots(len(panels), squeeze=False, sharex=True, height_ratios=heights)[:, 0]
        for axes, (label, curves) in zip(grid, panels, strict=True):
            draw_axes(axes, curves, runs)
            axes.set_ylabel(label)
        if len(runs) == 1:
            grid[0].set_title(escape_math(runs[0]))
        first, last = grid[-1].get_xlim()
        ticks = choose_ticks(max(first, 0.0), last, LABEL_SPACE)
        grid[-1].set_xticks(list(ticks), list(ticks.values()))
        grid[-1].set_xlabel(axis_label)
        figure.align_ylabels()
        image = BytesIO()
        figure.savefig(image, format=image_format, dpi=DPI, metadata=NO_DATES[image_format])
    return image.getvalue()


def draw_axes(axes: Axes, curves: Sequence[Curve], runs: Sequence[str]) -> None:
    """Draw the curves of one unit, and a legend in the order in which they end, from the top."""
    colors = color_sequences["petroff10"]
    both = len({curve.quantity for curve in curves}) > 1
    curves = sort_by_end(curves)
    for curve, name in zip(curves, name_curves(curves), strict=True):
        group, place = divmod(runs.index(curve.run), len(colors))
        xs, ys = thin(curve)
        (line,) = axes.plot(xs, ys, color=colors[place], linestyle=DASHES[group % len(DASHES)])
        pale = both and curve.quantity.key == "loss_nats"
        if len(xs) <= FEW_POINTS:
            line.set(marker=MARKERS[group % len(MARKERS)], markersize=4)
        line.set(linewidth=1.0 if pale else 1.8, alpha=0.5 if pale else 1.0)
        end = f"  {curve.ys[-1]:.4f}, lowest {curve.ys.min():.4f}" if is_loss(curve.quantity) else ""
        line.set_label(escape_math(f"{name}{end}"))
    set_limits(axes, curves)
    if len(curves) > 1:
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))


def set_limits(axes: Axes, curves: Sequence[Curve]) -> None:
    """Show the losses that the curves reach after their beginning; everything else from zero on."""
    low, top = min(float(curve.ys.min()) for curve in curves), find_top(curves)
    axes.margins(x=0.01)
    if top is None:
        axes.set_ylim(bottom=0)
    elif top > low:
        axes.set_ylim(low - 0.05 * (top - low), top + 0.05 * (top - low))
    if axes.get_ylim()[1] > MANY:
        axes.yaxis.set_major_formatter(EngFormatter(sep=""))


def thin(curve: Curve) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return at most `MAX_FIGURE_POINTS` points of a curve: means of as many consecutive ones as that takes."""
    group = -(-len(curve.xs) // MAX_FIGURE_POINTS)
    edges = np.arange(0, len(curve.xs), group)
    sizes = np.diff([*edges, len(curve.xs)])
    return np.add.reduceat(curve.xs, edges) / sizes, np.add.reduceat(curve.ys, edges) / sizes


def escape_math(text: str) -> str:
    """Return a label that matplotlib shows as it is: a dollar sign begins a formula, an underscore hides a label."""
    return text.replace("$", r"\$").replace("_", "\u200b_", 1) if text.startswith("_") else text.replace("$", r"\$")
