"""`charlstm eval --gaps`: how much of what is hidden in a text a model finds again."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

import typer

from charlstm.console import Console
from charlstm.errors import UsageError

if TYPE_CHECKING:
    from charlstm.data.split import Tokens
    from charlstm.storage.model import ModelFile

LONGEST = 100


class Lengths(NamedTuple):
    """Of the gaps: from the shortest to the longest."""

    first: int
    last: int

    def __str__(self) -> str:
        return f"{self.first}..{self.last}"


def gap_figures(
    console: Console, file: ModelFile, tokens: Tokens, share: float, lengths: Lengths, seed: int, about: dict[str, Any]
) -> dict[str, Any]:
    """The share of the gaps and of the characters in them that each method restores, and what they were of."""
    import numpy as np

    from charlstm.infilling.benchmark import GapResults, HiddenGaps, characters_needed, fill_hidden_gaps
    from charlstm.infilling.context import Predictors

    read = min(len(tokens), characters_needed(share, *lengths))
    if read < len(tokens):
        console.note(f"the first {read:,} of {len(tokens):,} characters are enough to hide {share:g} of")
    ids, sides, random = tokens.span(0, read).astype(np.int64), Predictors.from_file(file), np.random.default_rng(seed)
    hidden = HiddenGaps.draw(ids, sides.non_characters, share, *lengths, random)
    restored = GapResults()
    with console.progress() as bar:
        for restored in fill_hidden_gaps(sides, ids, file.vocabulary.bos, hidden, random):
            bar.update(restored.gaps / len(hidden.starts), f"filling {len(hidden.starts):,} gaps")
    figures = {name: value for name, value in about.items() if name in ("model", "text")}
    return {**figures, "seed": seed, "gap_length": str(lengths), **restored.to_dict()}


def bounds(lengths: str) -> Lengths:
    """Of "1..8", or of "3". Raises UsageError."""
    match = re.fullmatch(r"(\d{1,4})(?:\.\.(\d{1,4}))?", lengths)
    first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
    if not 1 <= first <= last <= LONGEST:
        raise UsageError(f"--gap-length must be a length as 3, or two as 1..8, from 1 to {LONGEST}, not {lengths!r}")
    return Lengths(first, last)


def share(value: float | None) -> float | None:
    """The --gaps of a command line. Raises typer.BadParameter for what is no share that can be hidden."""
    if value is None or 0 < value <= 0.5:
        return value
    raise typer.BadParameter(f"{value} is not a share above 0 and up to 0.5.")
