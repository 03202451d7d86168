"""How often what was hidden in a text is found again: each gap on its own, with all the rest of the text in place."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from math import ceil

import numpy as np

from charlstm.errors import CharlstmError
from charlstm.sampling.fill import Random, Rows, fill
from charlstm.sampling.filters import greedy
from charlstm.sampling.network import Ids, Network
from charlstm.sampling.proposals import METHODS, SCORED
from charlstm.sampling.readings import Reading, Sides, fresh

STREAMS, WARMUP = 128, 256
"""Streams that a text is cut into to be read, and characters that each reads before its own."""

ATTEMPTS = {"candidates": 64, "gibbs": 16}
"""At each gap. `charlstm fill` makes more, as it has one text to fill."""

ROWS = 2048
"""Attempts that advance together."""


MOST = 5000
"""Gaps that are filled of a text, however long it is: the share restored is then sure to within 0.014."""


def enough(share: float, shortest: int, longest: int) -> int:
    """Characters of a text of which this share is in as many gaps as are filled at most."""
    return int(MOST * (shortest + longest) / 2 / share) + 2 * SCORED


@dataclass
class Restored:
    """Gaps and characters, of so many, that are found again by each method."""

    gaps: int = 0
    characters: int = 0
    whole: dict[str, int] = field(default_factory=dict)
    right: dict[str, int] = field(default_factory=dict)

    def add(self, method: str, found: Ids, truth: Ids) -> None:
        """Takes in what a method found, [gaps, length], and what had stood there."""
        same = found == truth
        self.whole[method] = self.whole.get(method, 0) + int(same.all(1).sum())
        self.right[method] = self.right.get(method, 0) + int(same.sum())

    def to_dict(self) -> dict[str, float]:
        """Shares of gaps that are as they were, and of characters, under the names that JSON output gives them."""
        return {
            "gaps": self.gaps,
            "gap_characters": self.characters,
            **{f"gaps_restored_{method}": count / self.gaps for method, count in self.whole.items()},
            **{f"gap_characters_restored_{method}": count / self.characters for method, count in self.right.items()},
        }


@dataclass(frozen=True)
class Hidden:
    """Where gaps are, [gaps], and how long."""

    begins: Ids
    lengths: Ids

    @classmethod
    def drawn(cls, ids: Ids, never: Ids, share: float, shortest: int, longest: int, random: Random) -> Hidden:
        """So many that this share of a text [length] is in gaps whose lengths are all as likely; no two overlap.

        None has an id in it that is `never` filled in. Raises CharlstmError for a text with no room for one.
        """
        room = len(ids) - 2 * SCORED
        count = int(room * share / ((shortest + longest) / 2))
        if count < 1 or room // count < longest:
            raise CharlstmError(
                f"the text has {len(ids):,} characters, too few to hide {share:g} of them in gaps of up to {longest}",
                "raise --gaps or give it more text",
            )
        lengths = random.integers(shortest, longest + 1, count)
        each = room // count
        begins = SCORED + np.arange(count) * each + (random.random(count) * (each - lengths + 1)).astype(np.int64)
        barred = np.cumsum([0, *np.isin(ids, never)])
        clear = barred[begins] == barred[begins + lengths]
        if not clear.any():
            raise CharlstmError(
                f"every gap of {shortest} to {longest} characters would reach beyond the end of a document",
                "lower --gap-length",
            )
        return cls(begins[clear], lengths[clear])


def restore(sides: Sides, ids: Ids, start: int, hidden: Hidden, random: Random) -> Iterator[Restored]:
    """Fills the gaps of a text given as ids [length], and tells after each lot of them how many are as they were."""
    left = readings(sides.forward, ids, start, hidden.begins)
    right = None
    if sides.backward is not None:
        right = readings(sides.backward, ids[::-1], start, len(ids) - hidden.begins - hidden.lengths)
    restored = Restored()
    for length in np.unique(hidden.lengths).tolist():
        same = np.flatnonzero(hidden.lengths == length)
        most = max(ROWS // max(ATTEMPTS.values()), 1)
        for first in range(0, len(same), most):
            lot = same[first : first + most]
            rows = rows_of(ids, hidden.begins[lot], length, left.rows(lot), right.rows(lot) if right else None)
            restore_lot(sides, rows, restored, random)
            yield restored


def restore_lot(sides: Sides, rows: Rows, restored: Restored, random: Random) -> None:
    """Fills gaps of one length by every method there is for the model."""
    restored.gaps += len(rows.ids)
    restored.characters += rows.ids.size
    restored.add("forward", likeliest(sides, rows), rows.ids)
    alone = replace(sides, backward=None, joint=None)
    for method, with_sides in {METHODS[False]: alone, METHODS[sides.backward is not None]: sides}.items():
        attempts = np.repeat(np.arange(len(rows.ids)), ATTEMPTS[method])
        found = fill(with_sides, rows.rows(attempts), random).rows
        best = np.unique(found.problem, return_index=True)[1]
        restored.add(method, found.ids[best], rows.ids)


def likeliest(sides: Sides, rows: Rows) -> Ids:
    """What the forward network would write, the likeliest character after each other, [N, n]: the rest is not seen."""
    ids, reading = rows.ids.copy(), rows.left
    for t in range(ids.shape[1]):
        ids[:, t] = greedy(sides.character(sides.forward.head.predict(reading.read)))
        reading = reading.on(sides.forward, ids[:, t])
    return ids


def rows_of(ids: Ids, begins: Ids, length: int, left: Reading, right: Reading | None) -> Rows:
    """A row for each of these gaps, with the truth in it."""
    around = np.arange(SCORED)
    return Rows(
        problem=np.arange(len(begins)),
        ids=ids[begins[:, None] + np.arange(length)],
        hidden=np.ones(length, np.bool_),
        absent=np.zeros((len(begins), length), np.bool_),
        before=ids[begins[:, None] - SCORED + around],
        after=ids[begins[:, None] + length + around],
        left=left,
        right=right,
    )


def readings(network: Network, ids: Ids, start: int, places: Ids) -> Reading:
    """What a network that reads a text [length] from its beginning has come to before each of these places.

    The text is cut into streams, each warmed on what comes before it.
    """
    each = ceil(len(ids) / STREAMS)
    begins = np.arange(STREAMS) * each
    number = np.full(len(ids), -1)
    number[places] = np.arange(len(places))
    reading, found, order = fresh(network, STREAMS), [], []
    for t in range(-WARMUP, each):
        at = begins + t
        inside = (at >= 0) & (at < len(ids))
        read = np.where(at > 0, ids[np.clip(at - 1, 0, len(ids) - 1)], start)
        reading = reading.on(network, read, ~inside)
        wanted = np.where(inside & (t >= 0), number[np.where(inside, at, 0)], -1)
        rows = np.flatnonzero(wanted >= 0)
        if len(rows):
            found.append(reading.rows(rows))
            order.append(wanted[rows])
    return Reading.joined(found).rows(np.argsort(np.concatenate(order)))
