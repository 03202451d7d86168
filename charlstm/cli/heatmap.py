"""Text with a value under each character: as background colors on a terminal, as rows of digits elsewhere."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import groupby
from typing import NamedTuple

from rich.cells import cell_len

from charlstm.console import Console, escape_character, escape_text
from charlstm.inspection.palette import BLACK, PALETTES, WHITE, Color, contrast, mix_palette

STEPS = 7
"""Steps between no color and the strongest, in either direction."""

TAB = 4
"""Columns of a tab."""

NEWLINE_SHOWN = "↵"

SHOWN_GUESSES = {"\n": NEWLINE_SHOWN, " ": "␣", "\t": "→", "": "∎"}
"""Visible characters for white space and for the end of a document."""

TOO_WIDE = "□"
"""Shown for a next character that takes more columns than the one above it, or that cannot be shown."""

LIKELY, UNLIKELY = 0.5, 0.1

OVERRIDE, END_OVERRIDE = "\u202d", "\u202c"
"""Controls that make a terminal keep the order of the characters in a line, right-to-left ones included."""

RIGHT_TO_LEFT = ("R", "AL", "AN")


class Guess(NamedTuple):
    """A character that may be next, and its probability."""

    character: str
    probability: float


@dataclass(frozen=True)
class Glyph:
    """A character as it is shown, the columns that it takes, its level, from -1 to 1, and what may be next."""

    shown: str
    width: int
    level: float
    guesses: Sequence[Guess] = ()


def make_glyphs(text: str, levels: Sequence[float], guesses: Sequence[Sequence[Guess]]) -> Iterator[list[Glyph]]:
    """Yield the lines of a text, each ended by its newline, as glyphs."""
    line: list[Glyph] = []
    column = 0
    for character, level, next_ones in zip(text, levels, guesses or [()] * len(text), strict=True):
        shown = show_character(character, column)
        line.append(Glyph(shown, cell_len(shown), level, next_ones))
        column += line[-1].width
        if character == "\n":
            yield line
            line, column = [], 0
    if line:
        yield line


def show_character(character: str, column: int) -> str:
    """Return a character in visible form: control characters escaped, a tab as spaces, a newline as an arrow."""
    if character == "\n":
        return NEWLINE_SHOWN
    if character == "\t":
        return " " * (TAB - column % TAB)
    if escape_text(character) != character or unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp"):
        return escape_character(character)
    return character


def wrap_glyphs(line: Sequence[Glyph], width: int) -> Iterator[list[Glyph]]:
    """Yield the parts of a line of at most this many columns. A combining mark stays with its character."""
    part: list[Glyph] = []
    used = 0
    for glyph in line:
        if part and used + glyph.width > width:
            yield part
            part, used = [], 0
        part.append(glyph)
        used += glyph.width
    yield part


def draw_text(
    console: Console, text: str, levels: Sequence[float], guesses: Sequence[Sequence[Guess]] = ()
) -> Iterator[str]:
    """Yield the rows of a text of C characters with these levels, from -1 to 1, as stdout can show them.

    guesses: K characters that may follow each of the C characters, in K rows below; empty for none.
    """
    colored, width = console.uses_color(console.stdout), console.width(console.stdout)
    depth = color_depth(console.environ)
    for line in make_glyphs(text, levels, guesses):
        for part in wrap_glyphs(line, width):
            if colored:
                yield color_glyphs(part, depth)
            else:
                yield from digit_rows(part)
            for k in range(len(guesses[0]) if guesses else 0):
                yield guess_row(part, k, colored=colored)


def guess_row(glyphs: Sequence[Glyph], k: int, *, colored: bool) -> str:
    """Return the k-th most likely next character under each glyph: in color, bold if it is likely and dim if not."""
    row = ""
    for glyph in glyphs:
        if not glyph.width:
            continue
        shown = SHOWN_GUESSES.get(glyph.guesses[k].character, glyph.guesses[k].character)
        if not 1 <= cell_len(shown) <= glyph.width or escape_text(shown) != shown:
            shown = TOO_WIDE
        p = glyph.guesses[k].probability
        weight = "1" if p > LIKELY else "2" if p < UNLIKELY else ""
        row += f"\x1b[{weight}m{shown}\x1b[0m" if colored and weight else shown
        row += " " * (glyph.width - cell_len(shown))
    return row.rstrip()


def color_depth(environ: Mapping[str, str]) -> int:
    """Return how many bits a color of this terminal has: 24, or 8."""
    return 24 if environ.get("COLORTERM") in ("truecolor", "24bit") else 8


def color_glyphs(glyphs: Sequence[Glyph], depth: int) -> str:
    """Return glyphs with their background colors, as a row."""
    runs = groupby(glyphs, lambda glyph: style(round(glyph.level * STEPS), depth))
    row = "".join(f"\x1b[{codes}m{''.join(glyph.shown for glyph in run)}" for codes, run in runs)
    return protect_order(glyphs, f"{row}\x1b[0m")


def digit_rows(glyphs: Sequence[Glyph]) -> tuple[str, str]:
    """Return the text of glyphs, and a digit under each: 0 for -1, 9 for 1. A combining mark has none."""
    text = "".join(glyph.shown for glyph in glyphs)
    digits = "".join(str(digit(glyph.level)).ljust(glyph.width) for glyph in glyphs if glyph.width)
    return protect_order(glyphs, text), digits


def digit(level: float) -> int:
    return min(max(int((level + 1) * 5), 0), 9)


def protect_order(glyphs: Sequence[Glyph], row: str) -> str:
    """Return a row in which the characters keep their order, if some are written from right to left."""
    bidirectional = any(unicodedata.bidirectional(c) in RIGHT_TO_LEFT for glyph in glyphs for c in glyph.shown)
    return f"{OVERRIDE}{row}{END_OVERRIDE}" if bidirectional else row


@cache
def style(step: int, depth: int) -> str:
    """Return the SGR codes of the background color of a level, counted in steps from 0, and of readable text on it."""
    background = mix_palette(PALETTES["light"], step / STEPS)
    text = max((BLACK, WHITE), key=lambda color: contrast(color, background))
    if depth == 24:
        return ";".join(map(str, (48, 2, *background, 38, 2, *text)))
    return f"48;5;{nearest_of_256(background)};38;5;{nearest_of_256(text)}"


def nearest_of_256(color: Color) -> int:
    """Return the number of the nearest color of the 6 x 6 x 6 cube of xterm."""
    steps = (0, 95, 135, 175, 215, 255)
    red, green, blue = (min(range(6), key=lambda k: abs(steps[k] - value)) for value in color)
    return 16 + 36 * red + 6 * green + blue
