"""From a template to proposals for its gaps: which are filled together, and what is read on either side of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from heapq import nlargest

import numpy as np

from charlstm.config import UnknownPolicy
from charlstm.data.normalize import normalize_text
from charlstm.infilling.context import Context, Mask, Predictors
from charlstm.infilling.gibbs import GapBatch, Random, fill_gaps
from charlstm.infilling.template import Template
from charlstm.sampling.network import Ids, prefill
from charlstm.storage.model import ModelFile

MIN_APART = 40
"""Fixed characters between two gaps that make them independent of each other: twice as many as have a say."""

MAX_GROUP = 500
"""Characters that are filled together, where there is a choice: what is kept of each sweep takes memory."""

MAX_CONTEXT = 1000
"""Characters read on either side of gaps that are filled together."""

SCORED_CONTEXT = 20
"""Of these, the nearest, whose likelihood has a say in what fills the gaps."""

SWEPT, FORWARD = 96, 256
"""Attempts at a text: where sweeps follow, and where they do not."""

METHODS = {True: "gibbs", False: "candidates"}
"""What fills the gaps where the model has both directions, and where it has one."""


@dataclass(frozen=True)
class Filling:
    """What to put into the gaps, and the natural log-probability of that with the text around it."""

    fills: tuple[bytes, ...]
    log_probability: float


@dataclass(frozen=True)
class GapGroup:
    """Gaps that are filled together, from the first one's first character to the last one's last."""

    before: Ids  # the fixed text up to it
    after: Ids
    ids: Ids  # [n]
    gap: Ids  # [n], which of its gaps a character is of; -1 for a fixed one
    open: bool

    @classmethod
    def from_parts(cls, fixed: Sequence[Ids], widths: Sequence[int], open: bool) -> GapGroup:
        """Of what stands before, between and after gaps of these widths."""
        inner = [*fixed[1:-1], fixed[0][:0]]
        ids = [part for width, text in zip(widths, inner, strict=True) for part in (np.zeros(width, np.int64), text)]
        gap = [
            part
            for k, (width, text) in enumerate(zip(widths, inner, strict=True))
            for part in (np.full(width, k), np.full(len(text), -1))
        ]
        return cls(fixed[0][-MAX_CONTEXT:], fixed[-1][:MAX_CONTEXT], np.concatenate(ids), np.concatenate(gap), open)

    def batch(self, sides: Predictors, count: int, random: Random) -> GapBatch:
        """So many attempts at it, of which nothing has been drawn yet but how long open gaps are."""
        one = np.zeros(count, np.int64)
        return GapBatch(
            problem=one,
            ids=np.tile(self.ids, (count, 1)),
            hidden=self.gap >= 0,
            absent=self.draw_absent(count, random),
            before=np.tile(self.before[-SCORED_CONTEXT:], (count, 1)),
            after=np.tile(self.after[:SCORED_CONTEXT], (count, 1)),
            left=Context(*prefill(sides.forward, self.before)).select(one),
            right=Context(*prefill(sides.backward, self.after[::-1])).select(one) if sides.backward else None,
        )

    def draw_absent(self, count: int, random: Random) -> Mask:
        """Where attempts have no character, [count, n]: the ends of open gaps, all of whose lengths are as likely."""
        absent = np.zeros((count, len(self.ids)), np.bool_)
        for k in range(self.gap.max() + 1) if self.open else ():
            places = np.flatnonzero(self.gap == k)
            absent[:, places] = np.arange(len(places)) >= random.integers(1, len(places) + 1, (count, 1))
        return absent


class Filler:
    """A model that fills gaps. Its seed and the text decide what it proposes."""

    def __init__(self, file: ModelFile, seed: int) -> None:
        self.file, self.vocabulary, self.seed = file, file.vocabulary, seed
        self.predictors = Predictors.from_file(file)
        self.method = METHODS[self.predictors.backward is not None]

    def encode(self, template: Template, unknown: UnknownPolicy = "error") -> list[Ids]:
        """The ids of the fixed texts. The whole is taken to stand between two ends: those of a document where the
        model knows such, else of a line.

        Raises UsageError for a character that the model has never seen, unless `unknown` says what to read in its
        place.
        """
        found, at = [], 0
        for text, gap in zip(template.fixed, (*template.gaps, 0), strict=True):
            codes = self.vocabulary.codes(normalize_text(text, self.file.config.data))
            found.append(self.vocabulary.encode_codes(codes, unknown, at))
            at += len(codes) + gap
        end = [self.vocabulary.bos]
        found[0] = np.concatenate([end, found[0]])
        found[-1] = np.concatenate([found[-1], end])
        return found

    def fill(
        self, template: Template, fixed: list[Ids], n: int, heard: Callable[[float], None] = lambda done: None
    ) -> list[Filling]:
        """The `n` likeliest fillings of those found, or all of them if there are fewer. `fixed` is what `read` gave.

        Gaps near each other are filled together, from left to right; what was likeliest so far is read before those
        to come. `heard` is told the share that is done.
        """
        best, before = [Filling((), 0.0)], fixed[0]
        for first, last in group_gaps(fixed, template.gaps) if template.gaps else ():
            stretch = GapGroup.from_parts(
                [before, *fixed[first + 1 : last + 1]], template.gaps[first:last], template.open
            )
            found = self.fill_group(stretch, n, first)
            best = best_pairs(best, [proposal for proposal, _ in found], n)
            before = np.concatenate([before, found[0][1], fixed[last]])[-MAX_CONTEXT:]
            heard(last / len(template.gaps))
        return best

    def fill_group(self, stretch: GapGroup, n: int, number: int) -> list[tuple[Filling, Ids]]:
        """The `n` likeliest found for the gaps of a stretch, and its text with them; `number` tells the stretches of a
        text apart."""
        random = np.random.default_rng([self.seed, number])
        found = fill_gaps(
            self.predictors,
            stretch.batch(self.predictors, SWEPT if self.predictors.backward else FORWARD, random),
            random,
        )
        proposals = []
        for row, log_p in zip(found.rows.known[:n], found.log_probability.tolist(), strict=False):
            gaps = (row[(stretch.gap == k) & (row >= 0)] for k in range(stretch.gap.max() + 1))
            proposals.append((Filling(tuple(map(self.vocabulary.decode, gaps)), log_p), row[row >= 0]))
        return proposals


def best_pairs(ones: list[Filling], others: list[Filling], n: int) -> list[Filling]:
    """The `n` likeliest of each of the one kind followed by each of the other; both have the likeliest first.

    Of the k-th of the ones with the m-th of the others, k times m pairs are at least as likely: itself among them.
    """
    pairs = ((one, other) for k, one in enumerate(ones, 1) for other in others[: n // k])
    joined = (Filling(a.fills + b.fills, a.log_probability + b.log_probability) for a, b in pairs)
    return nlargest(n, joined, key=lambda proposal: proposal.log_probability)


def group_gaps(fixed: Sequence[Ids], widths: Sequence[int]) -> Iterator[tuple[int, int]]:
    """The gaps that are filled together, as spans of their numbers: gap k lies between fixed texts k and k+1."""
    first, length = 0, widths[0]
    for k in range(1, len(widths)):
        length += len(fixed[k]) + widths[k]
        if len(fixed[k]) >= MIN_APART or (length > MAX_GROUP and len(fixed[k])):
            yield first, k
            first, length = k, widths[k]
    yield first, len(widths)
