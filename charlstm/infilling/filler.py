"""Fill the gaps of a template: choose the gaps to fill together, fill them, keep the most likely fillings."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from copy import copy
from dataclasses import dataclass
from functools import partial
from heapq import nlargest

import numpy as np

from charlstm.config import UnknownPolicy
from charlstm.data.normalize import normalize_text
from charlstm.infilling.context import Context, Mask, Predictors
from charlstm.infilling.gaps import GapBatch
from charlstm.infilling.ranking import fill_gaps
from charlstm.infilling.template import Template
from charlstm.sampling.network import prefill
from charlstm.storage.model import ModelFile
from charlstm.vocabulary import Ids

SCORED_CONTEXT = 20
"""Fixed characters on either side of a gap whose likelihood ranks its fillings."""

MIN_APART = 2 * SCORED_CONTEXT
"""Fixed characters between two gaps from which on they are filled independently: no character ranks both."""

MAX_GROUP = 500
"""Characters filled together where they can be divided: the memory of a sweep grows with them."""

MAX_CONTEXT = 1000
"""Characters read on either side of gaps that are filled together."""

GIBBS_ATTEMPTS = 96
"""Attempts at a group of gaps with a bidirectional model. Each of the sweeps ranks as many fillings."""

CANDIDATES = 256
"""Attempts at a group of gaps with a unidirectional model."""

METHODS = {True: "gibbs", False: "candidates"}
"""The method of a bidirectional model, and that of a unidirectional one."""


@dataclass(frozen=True)
class Filling:
    """One way of filling the gaps of a text, and its natural log-probability together with the text around them."""

    fills: tuple[bytes, ...]
    log_probability: float


class Filler:
    """A model that fills gaps. Its fillings depend on the seed and the text only."""

    def __init__(self, file: ModelFile, seed: int) -> None:
        self.file, self.vocabulary, self.seed = file, file.vocabulary, seed
        self.predictors = Predictors.from_file(file)
        self.method = METHODS[self.predictors.backward is not None]

    def with_seed(self, seed: int) -> Filler:
        """Return a filler with the same networks and another seed."""
        other = copy(self)
        other.seed = seed
        return other

    def encode(self, template: Template, unknown: UnknownPolicy = "error") -> list[Ids]:
        """Return the ids of the fixed texts.

        BOS is put before the first and after the last, as if the text were a document or came between two line ends.
        Raises UsageError for a character that the model does not know, unless `unknown` is "skip" or "replace".
        """
        fixed, place = [], 0
        for text, gap in zip(template.fixed, (*template.gaps, 0), strict=True):
            codes = self.vocabulary.codes(normalize_text(text, self.file.config.data))
            fixed.append(self.vocabulary.encode_codes(codes, unknown, place))
            place += len(codes) + gap
        bos = [self.vocabulary.bos]
        fixed[0] = np.concatenate([bos, fixed[0]])
        fixed[-1] = np.concatenate([fixed[-1], bos])
        return fixed

    def fill(
        self, template: Template, fixed: list[Ids], n: int, on_progress: Callable[[float], None] = lambda share: None
    ) -> list[Filling]:
        """Return the `n` most likely fillings that were found, or all if there are fewer.

        `fixed` is the result of `encode`. Gaps near each other are filled together. Groups are filled from left to
        right, each after the most likely filling of those before it. `on_progress` receives the share of the gaps that
        are filled, also after each character drawn or ranked and after each sweep; what it raises ends the work.
        """
        best, before = [Filling((), 0.0)], fixed[0]
        for first, last in group_gaps(fixed, template.gaps) if template.gaps else ():
            parts = [before, *fixed[first + 1 : last + 1]]
            group = GapGroup.from_parts(parts, template.gaps[first:last], template.open)
            fillings = self.fill_group(group, n, first, partial(on_progress, first / len(template.gaps)))
            best = best_pairs(best, [filling for filling, _ in fillings], n)
            before = np.concatenate([before, fillings[0][1], fixed[last]])[-MAX_CONTEXT:]
            on_progress(last / len(template.gaps))
        return best

    def fill_group(
        self, group: GapGroup, n: int, number: int, on_step: Callable[[], None]
    ) -> list[tuple[Filling, Ids]]:
        """Return the `n` most likely fillings of a group.

        Each comes with its ids from the first gap to the last, including the fixed text between them. `number` is the
        index of the group in its text; it seeds the random numbers of the group.
        """
        random = np.random.default_rng([self.seed, number])
        attempts = GIBBS_ATTEMPTS if self.predictors.backward else CANDIDATES
        ranked = fill_gaps(self.predictors, group.make_batch(self.predictors, attempts, random), random, on_step)
        fillings = []
        for row, log_p in zip(ranked.rows.present_ids[:n], ranked.log_probability.tolist(), strict=False):
            gaps = (row[(group.gap == k) & (row >= 0)] for k in range(group.gap.max() + 1))
            fillings.append((Filling(tuple(map(self.vocabulary.decode, gaps)), log_p), row[row >= 0]))
        return fillings


@dataclass(frozen=True)
class GapGroup:
    """Gaps that are filled together: the n places from the first gap's first to the last gap's last."""

    before: Ids  # the fixed text before them
    after: Ids
    ids: Ids  # [n]
    gap: Ids  # [n], the number of the gap that a place is in; -1 between gaps
    open: bool

    @classmethod
    def from_parts(cls, fixed: Sequence[Ids], widths: Sequence[int], open: bool) -> GapGroup:
        """Build a group from the fixed texts before, between and after its gaps, and the widths of the gaps."""
        between = [*fixed[1:-1], fixed[0][:0]]
        ids, gap = [], []
        for k, (width, text) in enumerate(zip(widths, between, strict=True)):
            ids += [np.zeros(width, np.int64), text]
            gap += [np.full(width, k), np.full(len(text), -1)]
        return cls(fixed[0][-MAX_CONTEXT:], fixed[-1][:MAX_CONTEXT], np.concatenate(ids), np.concatenate(gap), open)

    def make_batch(self, predictors: Predictors, count: int, random: np.random.Generator) -> GapBatch:
        """Return `count` attempts, in which only the lengths of open gaps are drawn yet."""
        backward = predictors.backward
        left = Context(*prefill(predictors.forward, self.before))
        right = Context(*prefill(backward, self.after[::-1])) if backward else None
        return self.repeat(left, right, count, random)

    def repeat(self, left: Context, right: Context | None, count: int, random: np.random.Generator) -> GapBatch:
        """Return `count` attempts, given what the networks have read of the text on either side, one row each."""
        one = np.zeros(count, np.int64)
        return GapBatch(
            problem=one,
            ids=np.tile(self.ids, (count, 1)),
            hidden=self.gap >= 0,
            absent=self.draw_absent(count, random),
            before=np.tile(self.before[-SCORED_CONTEXT:], (count, 1)),
            after=np.tile(self.after[:SCORED_CONTEXT], (count, 1)),
            left=left.select(one),
            right=right.select(one) if right else None,
        )

    def draw_absent(self, count: int, random: np.random.Generator) -> Mask:
        """Draw the length of each gap of unknown length in each attempt, uniformly from 1 to its width.

        Returns a mask [count, n] that is true for the places beyond that length.
        """
        absent = np.zeros((count, len(self.ids)), np.bool_)
        for k in range(self.gap.max() + 1) if self.open else ():
            places = np.flatnonzero(self.gap == k)
            absent[:, places] = np.arange(len(places)) >= random.integers(1, len(places) + 1, (count, 1))
        return absent


def group_gaps(fixed: Sequence[Ids], widths: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Yield spans of gaps that are filled together, as pairs (first, last + 1).

    Gap k lies between the fixed texts k and k + 1.
    """
    first, length = 0, widths[0]
    for k in range(1, len(widths)):
        length += len(fixed[k]) + widths[k]
        if len(fixed[k]) >= MIN_APART or (length > MAX_GROUP and len(fixed[k])):
            yield first, k
            first, length = k, widths[k]
    yield first, len(widths)


def best_pairs(left: list[Filling], right: list[Filling], n: int) -> list[Filling]:
    """Return the `n` most likely fillings that join one of `left` and one of `right`, which are sorted.

    The pair of the k-th and the m-th is no more likely than any pair of at most the k-th and at most the m-th. There
    are k * m of those, so only pairs with k * m <= n can be among the best n.
    """
    pairs = ((a, b) for k, a in enumerate(left, 1) for b in right[: n // k])
    joined = (Filling(a.fills + b.fills, a.log_probability + b.log_probability) for a, b in pairs)
    return nlargest(n, joined, key=lambda filling: filling.log_probability)
