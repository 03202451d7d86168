"""A text with gaps: where they are, and what it is once they are filled."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest

from charlstm.errors import UsageError

MAX_GAP = 1000
"""Characters in a gap."""


@dataclass(frozen=True)
class Template:
    """Fixed texts and, between each two of them, a gap of so many characters, or of up to so many if `open`."""

    fixed: tuple[str, ...]
    gaps: tuple[int, ...]
    open: bool

    @classmethod
    def parse(cls, text: str, marker: str, most: int | None = None) -> Template:
        """A gap is a run of the marker, with a character for each; with `most`, of any length from 1 to that.

        Raises UsageError for a marker that is not one character, or a longer gap than can be filled.
        """
        if len(marker) != 1:
            raise UsageError(f"--gap must be one character, not {marker!r}")
        runs = f"(?:{re.escape(marker)})+"
        gaps = tuple(len(run) if most is None else most for run in re.findall(runs, text))
        if not all(1 <= gap <= MAX_GAP for gap in gaps):
            raise UsageError(f"a gap of {max(gaps):,} characters cannot be filled: it must have 1 to {MAX_GAP:,}")
        return cls(tuple(re.split(runs, text)), gaps, most is not None)

    def text(self, fills: Sequence[bytes]) -> bytes:
        """The text with its gaps filled."""
        return b"".join(piece for piece, _ in self.filled(fills))

    def filled(self, fills: Sequence[bytes]) -> list[tuple[bytes, bool]]:
        """The text in pieces, each with whether it was a gap."""
        fixed = [(text.encode("utf-8", "surrogateescape"), False) for text in self.fixed]
        return list(chain.from_iterable(zip_longest(fixed, [(fill, True) for fill in fills], fillvalue=(b"", False))))


def parse_templates(texts: Sequence[str], marker: str, most: int | None = None) -> list[Template]:
    """That of each text. Raises UsageError where none of them has a gap."""
    found = [Template.parse(text, marker, most) for text in texts]
    if not any(template.gaps for template in found):
        raise UsageError(
            f"there is no gap in the text: no {marker!r} stands in it",
            "write one for each unknown character: charlstm fill 'To be, or ___ to be'; --gap names another sign",
        )
    return found
