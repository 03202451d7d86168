"""How often what was hidden in a text is found again: each gap on its own, with all the rest of the text in place."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from math import ceil

import numpy as np

from charlstm.errors import CharlstmError
from charlstm.infilling.context import Context, Predictors, initial_context
from charlstm.infilling.filler import METHODS, SCORED_CONTEXT
from charlstm.infilling.gibbs import GapBatch, Random, fill_gaps
from charlstm.sampling.filters import greedy
from charlstm.sampling.network import Ids, Network

STREAMS, BENCHMARK_WARMUP = 128, 256
"""Streams that a text is cut into to be read, and characters that each reads before its own."""

ATTEMPTS = {"candidates": 64, "gibbs": 16}
"""At each gap. `charlstm fill` makes more, as it has one text to fill."""

MAX_ROWS = 2048
"""Attempts that advance together."""


MAX_GAPS = 5000
"""Gaps that are filled of a text, however long it is: the share restored is then sure to within 0.014."""


def characters_needed(share: float, shortest: int, longest: int) -> int:
    """Characters of a text of which this share is in as many gaps as are filled at most."""
    return int(MAX_GAPS * (shortest + longest) / 2 / share) + 2 * SCORED_CONTEXT


@dataclass
class GapResults:
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
class HiddenGaps:
    """Where gaps are, [gaps], and how long."""

    starts: Ids
    lengths: Ids

    @classmethod
    def draw(cls, ids: Ids, never: Ids, share: float, shortest: int, longest: int, random: Random) -> HiddenGaps:
        """So many that this share of a text [length] is in gaps whose lengths are all as likely; no two overlap.

        None has an id in it that is `never` filled in. Raises CharlstmError for a text with no room for one.
        """
        room = len(ids) - 2 * SCORED_CONTEXT
        count = int(room * share / ((shortest + longest) / 2))
        if count < 1 or room // count < longest:
            raise CharlstmError(
                f"the text has {len(ids):,} characters, too few to hide {share:g} of them in gaps of up to {longest}",
                "raise --gaps or give it more text",
            )
        lengths = random.integers(shortest, longest + 1, count)
        each = room // count
        begins = (
            SCORED_CONTEXT + np.arange(count) * each + (random.random(count) * (each - lengths + 1)).astype(np.int64)
        )
        barred = np.cumsum([0, *np.isin(ids, never)])
        clear = barred[begins] == barred[begins + lengths]
        if not clear.any():
            raise CharlstmError(
                f"every gap of {shortest} to {longest} characters would reach beyond the end of a document",
                "lower --gap-length",
            )
        return cls(begins[clear], lengths[clear])


def fill_hidden_gaps(sides: Predictors, ids: Ids, bos: int, hidden: HiddenGaps, random: Random) -> Iterator[GapResults]:
    """Fills the gaps of a text given as ids [length], and tells after each lot of them how many are as they were."""
    left = contexts_at(sides.forward, ids, bos, hidden.starts)
    right = None
    if sides.backward is not None:
        right = contexts_at(sides.backward, ids[::-1], bos, len(ids) - hidden.starts - hidden.lengths)
    restored = GapResults()
    for length in np.unique(hidden.lengths).tolist():
        same = np.flatnonzero(hidden.lengths == length)
        most = max(MAX_ROWS // max(ATTEMPTS.values()), 1)
        for first in range(0, len(same), most):
            lot = same[first : first + most]
            rows = gap_batch(ids, hidden.starts[lot], length, left.select(lot), right.select(lot) if right else None)
            fill_lot(sides, rows, restored, random)
            yield restored


def fill_lot(sides: Predictors, rows: GapBatch, restored: GapResults, random: Random) -> None:
    """Fills gaps of one length by every method there is for the model."""
    restored.gaps += len(rows.ids)
    restored.characters += rows.ids.size
    restored.add("forward", fill_greedily(sides, rows), rows.ids)
    alone = replace(sides, backward=None, joint=None)
    for method, with_sides in {METHODS[False]: alone, METHODS[sides.backward is not None]: sides}.items():
        attempts = np.repeat(np.arange(len(rows.ids)), ATTEMPTS[method])
        found = fill_gaps(with_sides, rows.select(attempts), random).rows
        best = np.unique(found.problem, return_index=True)[1]
        restored.add(method, found.ids[best], rows.ids)


def fill_greedily(sides: Predictors, rows: GapBatch) -> Ids:
    """What the forward network would write, the likeliest character after each other, [N, n]: the rest is not seen."""
    ids, reading = rows.ids.copy(), rows.left
    for t in range(ids.shape[1]):
        ids[:, t] = greedy(sides.mask_non_characters(sides.forward.head.logits(reading.head_input)))
        reading = reading.advance(sides.forward, ids[:, t])
    return ids


def gap_batch(ids: Ids, begins: Ids, length: int, left: Context, right: Context | None) -> GapBatch:
    """A row for each of these gaps, with the truth in it."""
    around = np.arange(SCORED_CONTEXT)
    return GapBatch(
        problem=np.arange(len(begins)),
        ids=ids[begins[:, None] + np.arange(length)],
        hidden=np.ones(length, np.bool_),
        absent=np.zeros((len(begins), length), np.bool_),
        before=ids[begins[:, None] - SCORED_CONTEXT + around],
        after=ids[begins[:, None] + length + around],
        left=left,
        right=right,
    )


def contexts_at(network: Network, ids: Ids, bos: int, places: Ids) -> Context:
    """What a network that reads a text [length] from its beginning has come to before each of these places.

    The text is cut into streams, each warmed on what comes before it.
    """
    each = ceil(len(ids) / STREAMS)
    begins = np.arange(STREAMS) * each
    number = np.full(len(ids), -1)
    number[places] = np.arange(len(places))
    reading, found, order = initial_context(network, STREAMS), [], []
    for t in range(-BENCHMARK_WARMUP, each):
        at = begins + t
        inside = (at >= 0) & (at < len(ids))
        read = np.where(at > 0, ids[np.clip(at - 1, 0, len(ids) - 1)], bos)
        reading = reading.advance(network, read, ~inside)
        wanted = np.where(inside & (t >= 0), number[np.where(inside, at, 0)], -1)
        rows = np.flatnonzero(wanted >= 0)
        if len(rows):
            found.append(reading.select(rows))
            order.append(wanted[rows])
    return Context.concatenate(found).select(np.argsort(np.concatenate(order)))
