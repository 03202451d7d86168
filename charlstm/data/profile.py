"""Statistics of a corpus before training: its characters, its lines, and the baselines that a model has to beat."""

from __future__ import annotations

import sys
import unicodedata
from collections.abc import Callable, Iterable, Iterator
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
"""Characters counted at a time."""

RAREST = 10
"""Characters in the list of the rarest."""

CLASSES = {
    "L": "letters",
    "M": "marks",
    "N": "numbers",
    "P": "punctuation",
    "S": "symbols",
    "Z": "spaces",
    "C": "control and other",
}
"""The major classes of Unicode's general categories. A newline is a control character."""


@dataclass(frozen=True)
class Group:
    """A group of characters: the number of distinct ones, and how often they occur in total."""

    name: str
    distinct: int
    count: int


@dataclass(frozen=True)
class Documents:
    """The number of documents of a text, and the characters of the longest."""

    count: int
    longest: int


@dataclass(frozen=True, eq=False)
class Profile:
    """The statistics of a text.

    `points` are its distinct code points, ascending, [distinct]; `counts` says how often each occurs, [distinct].
    `order3` and `xz` are baselines.
    """

    points: NDArray[np.uint32]
    counts: NDArray[np.int64]
    lines: Lines
    order3: Baseline | None  # None for a text that is too short for an estimate
    xz: Baseline

    @classmethod
    def from_chunks(
        cls, chunks: Iterable[str], name: str = "the text", explain_empty: Callable[[], str] = lambda: ""
    ) -> Profile:
        """Read a text once, in chunks of any size, in about 250 MB of memory.

        Raises CharlstmError for an empty text, with its name and the hint that `explain_empty` returns.
        """
        counts = np.zeros(sys.maxunicode + 1, np.int64)
        lines, prefix, xz = LineCounter(), TextPrefix(), XzBaseline()
        for chunk in split_chunks(chunks):
            points = code_points(chunk)
            new = np.bincount(points)
            counts[: len(new)] += new
            lines.add(chunk, points)
            prefix.add(points)
            xz.add(chunk)
        seen = np.flatnonzero(counts)
        if not len(seen):
            raise CharlstmError(f"the corpus is empty: {name}", explain_empty())
        order3 = prefix.context_entropy()
        return cls(seen.astype(np.uint32), counts[seen], lines.finish(), order3, xz.finish())

    @property
    def characters(self) -> int:
        return int(self.counts.sum())

    @property
    def bytes(self) -> int:
        """The size of the text in UTF-8."""
        return int((self.counts * (1 + np.searchsorted([0x80, 0x800, 0x10000], self.points, side="right"))).sum())

    @property
    def distinct(self) -> int:
        return len(self.points)

    @property
    def order0(self) -> float:
        """The entropy of single characters in bits per character."""
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
        """The ten rarest characters and their counts, the rarest first."""
        order = np.argsort(self.counts, kind="stable")[:RAREST]
        return [(chr(self.points[i]), int(self.counts[i])) for i in order]

    def count_of(self, *characters: str) -> int:
        """Return how often these characters occur in total."""
        return int(self.counts[np.isin(self.points, [ord(character) for character in characters])].sum())

    def rarer_than(self, count: int) -> Group:
        """Return the characters that occur fewer than `count` times."""
        rare = self.counts < count
        return Group(f"fewer than {count} times", int(rare.sum()), int(self.counts[rare].sum()))

    def group_by(self, names: list[str]) -> list[Group]:
        """Group the characters by the name given for each, the most frequent group first."""
        distinct_names, group = np.unique(names, return_inverse=True)
        distinct, counts = np.bincount(group), np.bincount(group, self.counts)
        rows = zip(distinct_names.tolist(), distinct.tolist(), counts.astype(np.int64).tolist(), strict=True)
        return sorted((Group(*row) for row in rows), key=lambda group: -group.count)

    def to_dict(self) -> dict[str, Any]:
        """Return all statistics as JSON values."""
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
    """Split large chunks into chunks of at most `STEP` characters."""
    return (chunk[first : first + STEP] for chunk in chunks for first in range(0, len(chunk), STEP))
