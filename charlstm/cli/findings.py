"""Tables of what was found in a model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from rich.cells import cell_len

from charlstm.cli.heatmap import Glyph, color_depth, color_glyphs, show_character
from charlstm.console import Console, escape_controls
from charlstm.inspection.intervention import Ablation
from charlstm.inspection.levels import to_levels
from charlstm.inspection.ranking import Finding
from charlstm.inspection.trace import Trace
from charlstm.wording import quantity

EXCERPT, EXCERPTS = 70, 2
"""Characters of an excerpt, and how many of a unit are shown."""

GAP = "  "

Row = Sequence[str]


def format_table(rows: Sequence[Row], below: Mapping[int, Sequence[str]] | None = None) -> Iterator[str]:
    """Yield the lines of a table, of which the first row is the header: the first column to the left, others too.

    below: lines that follow a row.
    """
    widths = [max(map(cell_len, column)) for column in zip(*rows, strict=True)]
    for k, row in enumerate(rows):
        cells = (text + " " * (width - cell_len(text)) for text, width in zip(row, widths, strict=True))
        yield GAP.join(cells).rstrip()
        yield from (below or {}).get(k, ())


def finding_rows(findings: Sequence[Finding]) -> list[Row]:
    """Return the rows of the table of findings."""
    header = ("detector", "unit", "quantity", "second half", "character", "noise", "")
    return [header, *map(finding_row, findings)]


def finding_row(finding: Finding) -> Row:
    best = finding.best
    return (
        escape_controls(finding.detector.name),
        str(best.unit),
        best.quantity,
        f"{finding.measure} {best.score:.3f}",
        f"{finding.character_score:.3f}",
        f"{finding.noise:.3f}",
        finding.remark,
    )


def excerpt_rows(console: Console, text: str, trace: Trace, findings: Sequence[Finding]) -> dict[int, list[str]]:
    """Return two excerpts of the text for each unit that knows more than the character, by the row of the table."""
    width = min(EXCERPT, console.width(console.stdout) - len(GAP))
    depth = color_depth(console.environ)
    rows = {}
    for k, each in enumerate(findings):
        if each.remark:
            continue
        values = trace.of_unit(each.best.unit, each.best.quantity)
        levels = to_levels(each.best.quantity, values[:, None])[:, 0].tolist()
        rows[k + 1] = [
            GAP + color_glyphs(excerpt_glyphs(text, levels, start, width), depth)
            for start in choose_excerpts(each.detector.values, width)
        ]
    return rows


def excerpt_glyphs(text: str, levels: Sequence[float], start: int, width: int) -> list[Glyph]:
    """Return the glyphs from a position on that fit into this many columns."""
    glyphs: list[Glyph] = []
    column = 0
    for character, level in zip(text[start:], levels[start:], strict=True):
        shown = show_character(character, column)
        column += cell_len(shown)
        if column > width:
            break
        glyphs.append(Glyph(shown, cell_len(shown), level))
    return glyphs


def choose_excerpts(values: np.ndarray[Any, Any], width: int) -> list[int]:
    """Return where the excerpts begin: the pieces of the second half in which the detector varies most."""
    starts = range(len(values) // 2, max(len(values) - width, len(values) // 2) + 1, width)
    spread = [float(values[start : start + width].std()) for start in starts]
    best = sorted(range(len(spread)), key=lambda k: -spread[k])[:EXCERPTS]
    return sorted(starts[k] for k in best)


def gate_rows(statistics: Sequence[dict[str, Any]]) -> list[Row]:
    """Return the rows of the table of gates."""
    rows: list[Row] = [
        ("gate", "below 0.1", "above 0.9", "always open", "always closed", "time constant: median, longest")
    ]
    for each in statistics:
        constants = each.get("time_constants")
        rows.append(
            (
                each["series"],
                f"{each['left_saturated']:.1%}",
                f"{each['right_saturated']:.1%}",
                quantity(len(each["units_nearly_always_open"]), "unit"),
                quantity(len(each["units_nearly_always_closed"]), "unit"),
                f"{constants['p50']:,.1f}, {each['longest_time_constant']:,.0f} characters" if constants else "",
            )
        )
    return rows


def ablation_rows(ablations: Sequence[Ablation]) -> list[Row]:
    """Return the rows of the table of fixed units: what each costs by category, and how many random units cost less."""
    names = list(ablations[0].effects)
    rows: list[Row] = [("fixed unit", *names)]
    for each in ablations:
        effects = (each.effects[name] for name in names)
        rows.append(
            (
                str(each.unit),
                *(f"{effect.change:+.3f} {effect.exceeded:3}" for effect in effects),
            )
        )
    return rows


def write_lines(console: Console, lines: Iterable[str]) -> None:
    """Write lines whose text is already escaped."""
    for line in lines:
        console.write(line.encode("utf-8", "backslashreplace") + b"\n", escaped=True)
