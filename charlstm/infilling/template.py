"""A text with gaps."""

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
    """Fixed texts, and between each two of them a gap of this many characters, or of 1 to this many if `open`."""

    fixed: tuple[str, ...]
    gaps: tuple[int, ...]
    open: bool

    @classmethod
    def parse(cls, text: str, marker: str, most: int | None = None) -> Template:
        """Read a text in which a run of `marker` is a gap of as many characters or, with `most`, of 1 to `most`.

        Raises UsageError if the marker is not one character, or for a gap that is too long.
        """
        if len(marker) != 1:
            raise UsageError(f"--gap must be one character, not {marker!r}")
        runs = f"(?:{re.escape(marker)})+"
        gaps = tuple(len(run) if most is None else most for run in re.findall(runs, text))
        if not all(1 <= gap <= MAX_GAP for gap in gaps):
            raise UsageError(f"a gap of {max(gaps):,} characters is too long: a gap has 1 to {MAX_GAP:,} characters")
        return cls(tuple(re.split(runs, text)), gaps, most is not None)

    def render(self, fills: Sequence[bytes]) -> bytes:
        """Return the text with its gaps filled."""
        return b"".join(piece for piece, _ in self.pieces(fills))

    def pieces(self, fills: Sequence[bytes]) -> list[tuple[bytes, bool]]:
        """Return the text in pieces, each with whether it fills a gap."""
        fixed = [(text.encode("utf-8", "surrogateescape"), False) for text in self.fixed]
        return list(chain.from_iterable(zip_longest(fixed, [(fill, True) for fill in fills], fillvalue=(b"", False))))


def parse_templates(texts: Sequence[str], marker: str, most: int | None = None) -> list[Template]:
    """Read the template of each text. Raises UsageError if none of them has a gap."""
    templates = [Template.parse(text, marker, most) for text in texts]
    if not any(template.gaps for template in templates):
        raise UsageError(
            f"the text has no gap: it does not contain {marker!r}",
            f"write {marker!r} for each unknown character, or choose another sign with --gap",
        )
    return templates
