"""What a corpus is made of, to be looked at before training: its characters, its lines, and what there is to beat."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charlstm.data.baselines import Baseline, TextPrefix, XzBaseline, entropy
from charlstm.data.lines import LineCounter, Lines
from charlstm.data.scripts import find_scripts
from charlstm.errors import CharlstmError
from charlstm.vocabulary import code_points

STEP = 1 << 20
"""Characters that are counted at a time."""

RAREST = 10

CODE_POINTS = 0x110000

CLASSES = {
    "L": "letters",
    "M": "marks",
    "N": "numbers",
    "P": "punctuation",
    "S": "symbols",
    "Z": "spaces",
    "C": "control and other",
}
"""The major classes of Unicode's general categories; a line's end is a control character."""


@dataclass(frozen=True)
class Group:
    """Characters that have something in common."""

    name: str
    distinct: int
    count: int


@dataclass(frozen=True, eq=False)
class Profile:
    """A text's distinct characters, ascending, how often each occurs, and the rest that is found in one reading."""

    points: NDArray[np.uint32]
    counts: NDArray[np.int64]
    lines: Lines
    order3: Baseline | None  # None where the text is too short to tell
    xz: Baseline

    @classmethod
    def from_chunks(cls, chunks: Iterable[str]) -> Profile:
        """Of a text whose chunks may be cut anywhere; they are read once, and some 250 MB of memory are enough for any.

        Raises CharlstmError for an empty text.
        """
        counts = np.zeros(CODE_POINTS, np.int64)
        lines, beginning, xz = LineCounter(), TextPrefix(), XzBaseline()
        for piece in split_chunks(chunks):
            points = code_points(piece)
            found = np.bincount(points)
            counts[: len(found)] += found
            lines.add(piece, points)
            beginning.add(points)
            xz.add(piece)
        seen = np.flatnonzero(counts)
        if not len(seen):
            raise CharlstmError("the corpus is empty")
        order3 = beginning.context_entropy()
        return cls(seen.astype(np.uint32), counts[seen], lines.finish(), order3, xz.finish())

    @property
    def characters(self) -> int:
        return int(self.counts.sum())

    @property
    def bytes(self) -> int:
        """Of the text in UTF-8."""
        return int((self.counts * (1 + np.searchsorted([0x80, 0x800, 0x10000], self.points, side="right"))).sum())

    @property
    def distinct(self) -> int:
        return len(self.points)

    @property
    def order0(self) -> float:
        """Entropy of a character by itself, in bits."""
        return entropy(self.counts)

    @property
    def scripts(self) -> list[Group]:
        """The characters by script, the most frequent first."""
        return self.group_by(find_scripts(self.points))

    @property
    def categories(self) -> list[Group]:
        """The characters by major class, the most frequent first."""
        return self.group_by([CLASSES[unicodedata.category(chr(point))[0]] for point in self.points.tolist()])

    @property
    def rarest(self) -> list[tuple[str, int]]:
        """The ten rarest characters and how often each occurs, the rarest first."""
        order = np.argsort(self.counts, kind="stable")[:RAREST]
        return [(chr(self.points[i]), int(self.counts[i])) for i in order]

    def count_of(self, *characters: str) -> int:
        """How often these occur, together."""
        return int(self.counts[np.isin(self.points, [ord(character) for character in characters])].sum())

    def rarer_than(self, count: int) -> Group:
        """The characters that occur fewer times than that."""
        rare = self.counts < count
        return Group(f"fewer than {count} times", int(rare.sum()), int(self.counts[rare].sum()))

    def group_by(self, names: list[str]) -> list[Group]:
        found, group = np.unique(names, return_inverse=True)
        distinct, counts = np.bincount(group), np.bincount(group, self.counts)
        rows = zip(found.tolist(), distinct.tolist(), counts.astype(np.int64).tolist(), strict=True)
        return sorted((Group(*row) for row in rows), key=lambda group: -group.count)

    def to_dict(self) -> dict[str, Any]:
        """All of it, fit for JSON."""
        return {
            "characters": self.characters,
            "bytes": self.bytes,
            "lines": self.lines.count,
            "blank_lines": self.lines.blank,
            "longest_line": self.lines.longest,
            "duplicate_lines_share": self.lines.duplicates,
            "lines_compared": self.lines.compared,
            "distinct_characters": self.distinct,
            "seen_once": self.rarer_than(2).distinct,
            "rarest": [
                {"character": character, "code_point": f"U+{ord(character):04X}", "count": count}
                for character, count in self.rarest
            ],
            "scripts": [asdict(group) for group in self.scripts],
            "categories": [asdict(group) for group in self.categories],
            "order0_bpc": self.order0,
            "order3_bpc": self.order3.bpc if self.order3 else None,
            "order3_characters": self.order3.characters if self.order3 else None,
            "xz_bpc": self.xz.bpc,
            "xz_characters": self.xz.characters,
        }


def split_chunks(chunks: Iterable[str]) -> Iterator[str]:
    """The text in pieces of a size that is good to work with, however large the chunks are."""
    return (chunk[first : first + STEP] for chunk in chunks for first in range(0, len(chunk), STEP))
