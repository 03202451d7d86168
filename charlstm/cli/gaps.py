"""`charlstm eval --gaps`: how much of what is hidden in a text a model finds again."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from charlstm.console import Console
from charlstm.errors import CharlstmError, UsageError

if TYPE_CHECKING:
    from charlstm.data.tokens import Tokens
    from charlstm.modelfile import ModelFile

LONGEST = 100


def gap_figures(
    console: Console, file: ModelFile, tokens: Tokens, share: float, lengths: str, seed: int, about: dict[str, Any]
) -> dict[str, Any]:
    """The share of the gaps and of the characters in them that each method restores, and what they were of."""
    shortest, longest = bounds(lengths)

    import numpy as np

    from charlstm.sampling.readings import Sides
    from charlstm.sampling.restoring import Hidden, Restored, restore

    ids, sides, random = tokens.span(0, len(tokens)).astype(np.int64), Sides.of(file), np.random.default_rng(seed)
    try:
        hidden = Hidden.drawn(ids, sides.never, share, shortest, longest, random)
    except ValueError:
        raise CharlstmError(
            f"the text has {len(ids):,} characters, too few to hide {share:g} of them in gaps of {lengths}",
            "raise --gaps or give it more text",
        ) from None
    restored = Restored()
    with console.progress() as bar:
        for restored in restore(sides, ids, file.vocabulary.start, hidden, random):
            bar.update(restored.gaps / len(hidden.begins), f"filling {len(hidden.begins):,} gaps")
    figures = {name: value for name, value in about.items() if name in ("model", "text")}
    return {**figures, "seed": seed, "gap_length": lengths, **restored.to_dict()}


def bounds(lengths: str) -> tuple[int, int]:
    """Of "1..8", or of "3". Raises UsageError."""
    match = re.fullmatch(r"(\d{1,4})(?:\.\.(\d{1,4}))?", lengths)
    first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
    if not 1 <= first <= last <= LONGEST:
        raise UsageError(f"--gap-length must be a length as 3, or two as 1..8, from 1 to {LONGEST}, not {lengths!r}")
    return first, last
