"""What was found in a model as a page of HTML: one file, which asks nothing of the network."""

from __future__ import annotations

import html
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charlstm.architecture import BACKWARD_PREFIX
from charlstm.inspection.levels import extents, middle
from charlstm.inspection.palette import BLACK, PALETTES, WHITE, Color, contrast, mix_palette
from charlstm.inspection.ranking import Finding
from charlstm.inspection.trace import Series, Trace
from charlstm.matrices import Array
from charlstm.pages import compress_bytes, escape_json, fill_template

LEVELS = 15
"""Colors of the palette. With an odd number, the middle of the range has a color of its own."""

RANKED_UNITS = 64
"""Units whose gates are in the page; the states of all units are."""

TEMPLATE = Path(__file__).with_name("page.html")


def render_page(
    title: str, about: str, text: str, trace: Trace, findings: Sequence[Finding], *, all_units: bool = False
) -> str:
    """Return the page.

    title: the name of the model.
    about: what was read.
    text: the text, of C characters.
    trace: of the model, with one place per character.
    findings: the ranking.
    all_units: put the gates of all units in the page, not only those of the best 64.
    """
    ranked = rank_numbers(findings)
    series: list[dict[str, Any]] = []
    blobs = []
    for name, values in trace.series.items():
        is_state = name.quantity in trace.state
        chosen = ranked.get((name.direction, name.layer), [])
        numbers = list(range(values.shape[1])) if is_state or all_units else chosen
        if not numbers:
            continue
        shown = values[:, numbers]
        center = middle(name.quantity, values)
        reach = extents(shown, center)
        series.append(describe_series(name, numbers, center, reach.tolist()))
        blobs.append(compress_levels(quantize(shown, center, reach)))
    data = {
        "levels": LEVELS,
        "characters": text.encode("utf-8", "replace").decode("utf-8"),
        "series": series,
        "findings": [{**each.to_dict(), "remark": each.remark} for each in findings],
    }
    parts = {
        "title": html.escape(title),
        "about": html.escape(about),
        "palette": "\n".join(style_levels()),
        "data": escape_json(data),
        "series": "\n".join(
            f'<script type="text/plain" id="series-{k}">{blob}</script>' for k, blob in enumerate(blobs)
        ),
    }
    return fill_template(TEMPLATE.read_text("utf-8"), parts)


def rank_numbers(findings: Sequence[Finding]) -> dict[tuple[str, int], list[int]]:
    """Return the best units of each direction and layer in the order of their numbers, `RANKED_UNITS` in all."""
    depth = 1 + max((len(each.others) for each in findings), default=0)
    by_rank = [(each.best, *each.others)[k] for k in range(depth) for each in findings if k <= len(each.others)]
    units = list(dict.fromkeys(match.unit for match in by_rank))[:RANKED_UNITS]
    ranked: dict[tuple[str, int], list[int]] = {}
    for unit in sorted(units):
        ranked.setdefault((unit.direction, unit.layer), []).append(unit.number)
    return ranked


def describe_series(name: Series, numbers: Sequence[int], center: float, reach: Sequence[float]) -> dict[str, Any]:
    """Return what the page needs to know of a series, of which it has these units."""
    return {
        "layer": f"{BACKWARD_PREFIX if name.direction == 'backward' else ''}{name.layer}",
        "quantity": name.quantity,
        "units": list(numbers),
        "center": center,
        "extent": [float(f"{value:.4g}") for value in reach],
    }


def quantize(values: Array, center: float, reach: Array) -> NDArray[np.uint8]:
    """Return the levels 0 to `LEVELS` - 1 of units, [T, n]: the middle one is the center."""
    half = (LEVELS - 1) / 2
    return np.asarray(np.rint(np.clip((values - center) / reach, -1, 1) * half + half), np.uint8)


def compress_levels(levels: NDArray[np.uint8]) -> str:
    """Return levels [T, n] as base64: unit after unit, two places in a byte, compressed by zlib."""
    by_unit = np.ascontiguousarray(levels.T)
    if by_unit.shape[1] % 2:
        by_unit = np.pad(by_unit, ((0, 0), (0, 1)))
    packed = by_unit[:, ::2] | by_unit[:, 1::2] << 4
    return compress_bytes(packed.tobytes())


def style_levels() -> Iterator[str]:
    """Yield the rules of the palette, light and dark. Text is black or white, whichever has the higher contrast."""
    for theme, palette in PALETTES.items():
        for level in range(LEVELS):
            background = mix_palette(palette, 2 * level / (LEVELS - 1) - 1)
            text = max((BLACK, WHITE), key=lambda color: contrast(color, background))
            selector = f':root[data-theme="{theme}"] .l{level}'
            yield f"{selector} {{ background: {to_css(background)}; color: {to_css(text)}; }}"


def to_css(color: Color) -> str:
    return "#" + "".join(f"{value:02x}" for value in color)
