"""The scatter plot of saturated gates of Karpathy, Johnson and Fei-Fei (2015, figure 3), as SVG."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape

from charlstm.inspection.gates import GateStatistics

PANEL, PLOT_MARGIN, PANEL_GAP = 240, 50, 64
"""Width of a panel, of the margins around all, and between two, in pixels."""

COLORS = ("#2166ac", "#c85000", "#1b7837", "#762a83", "#8c510a", "#4d4d4d")
"""One per layer: blue, orange, green, purple, brown, gray."""

TICKS = (0, 0.5, 1)


def draw_scatter(statistics: Sequence[GateStatistics]) -> str:
    """Return an SVG with a panel per gate, and in it a circle per unit: how often it is left- and right-saturated."""
    gates = list(dict.fromkeys(each.series.quantity for each in statistics))
    layers = list(dict.fromkeys(layer_name(each) for each in statistics))
    width, height = (
        2 * PLOT_MARGIN + len(gates) * PANEL + (len(gates) - 1) * PANEL_GAP,
        2 * PLOT_MARGIN + PANEL + 20 * len(layers),
    )
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
    ]
    for k, gate in enumerate(gates):
        own = [each for each in statistics if each.series.quantity == gate]
        lines += [
            f'<g transform="translate({PLOT_MARGIN + k * (PANEL + PANEL_GAP)} {PLOT_MARGIN})">',
            *draw_panel(gate, own, layers),
            "</g>",
        ]
    for k, layer in enumerate(layers):
        y = 2 * PLOT_MARGIN + PANEL + 20 * k
        lines.append(f'<circle cx="{PLOT_MARGIN}" cy="{y}" r="4" fill="{color_of(k)}"/>')
        lines.append(f'<text x="{PLOT_MARGIN + 10}" y="{y + 4}">{escape(layer)}</text>')
    return "\n".join([*lines, "</svg>", ""])


def draw_panel(gate: str, statistics: Sequence[GateStatistics], layers: Sequence[str]) -> Iterator[str]:
    """Yield the elements of the panel of a gate."""
    yield f'<rect width="{PANEL}" height="{PANEL}" fill="none" stroke="#999999"/>'
    # no unit is above this line: both shares add up to 1 at most
    yield f'<line x1="0" y1="0" x2="{PANEL}" y2="{PANEL}" stroke="#cccccc"/>'
    yield f'<text x="{PANEL / 2:g}" y="-12" text-anchor="middle" font-size="14">{escape(gate)} gate</text>'
    yield f'<text x="{PANEL / 2:g}" y="{PANEL + 32}" text-anchor="middle">share of the text below 0.1</text>'
    left = f'transform="translate(-30 {PANEL / 2:g}) rotate(-90)"'
    yield f'<text {left} text-anchor="middle">share of the text above 0.9</text>'
    for tick in TICKS:
        yield f'<text x="{tick * PANEL:g}" y="{PANEL + 15}" text-anchor="middle">{tick:g}</text>'
        yield f'<text x="-6" y="{(1 - tick) * PANEL + 4:g}" text-anchor="end">{tick:g}</text>'
    for each in statistics:
        color = color_of(layers.index(layer_name(each)))
        for number, (closed, opened) in enumerate(zip(each.left.tolist(), each.right.tolist(), strict=True)):
            yield (
                f'<circle cx="{closed * PANEL:.1f}" cy="{(1 - opened) * PANEL:.1f}" r="3" fill="{color}" '
                f'fill-opacity="0.5"><title>unit {number}</title></circle>'
            )


def layer_name(statistics: GateStatistics) -> str:
    """Return the name of a layer, with its direction unless that is forward."""
    series = statistics.series
    return f"layer {series.layer}" + (", backward" if series.direction == "backward" else "")


def color_of(index: int) -> str:
    return COLORS[index % len(COLORS)]
