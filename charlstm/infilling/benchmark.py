"""The gap benchmark: hide gaps in a text, fill each with the rest of the text in place, compare with the original."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from charlstm.errors import CharlstmError
from charlstm.evaluation.streams import Streams, preceding_ids
from charlstm.infilling.context import Context, Predictors, initial_context
from charlstm.infilling.filler import METHODS, SCORED_CONTEXT
from charlstm.infilling.gaps import GapBatch
from charlstm.infilling.ranking import fill_gaps
from charlstm.sampling.filters import greedy
from charlstm.sampling.network import Network
from charlstm.vocabulary import Ids
from charlstm.wording import quantity

BENCHMARK_STREAMS = 128
"""Streams in which the text is read."""

BENCHMARK_WARMUP = 256
"""Characters that a stream reads before its own."""

BENCHMARK_ATTEMPTS = {"candidates": 64, "gibbs": 16}
"""Attempts at each gap: fewer than `charlstm fill` makes at the gaps of one text."""

MAX_ROWS = 2048
"""Attempts that advance together, which bounds the memory."""

MAX_GAPS = 5000
"""Gaps that are filled of a long text: the 95 % confidence interval of a share is then at most 0.014 on either side."""


def characters_needed(share: float, shortest: int, longest: int) -> int:
    """Return how many characters have MAX_GAPS gaps with this share of them in gaps."""
    return int(MAX_GAPS * (shortest + longest) / 2 / share) + 2 * SCORED_CONTEXT


@dataclass(frozen=True)
class GapResults:
    """Gaps and their characters, and how many of either each method recovered exactly."""

    gaps: int = 0
    characters: int = 0
    exact_gaps: Mapping[str, int] = field(default_factory=dict)
    correct_characters: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def compare(cls, fills: Mapping[str, Ids], original: Ids) -> GapResults:
        """Compare what each method filled in with the original, [gaps, length] each."""
        same = {method: ids == original for method, ids in fills.items()}
        return cls(
            len(original),
            original.size,
            {method: int(mask.all(1).sum()) for method, mask in same.items()},
            {method: int(mask.sum()) for method, mask in same.items()},
        )

    def __add__(self, other: GapResults) -> GapResults:
        return GapResults(
            self.gaps + other.gaps,
            self.characters + other.characters,
            add_counts(self.exact_gaps, other.exact_gaps),
            add_counts(self.correct_characters, other.correct_characters),
        )

    def to_dict(self) -> dict[str, float]:
        """Return the counts, and the shares of gaps and of characters recovered, by their JSON keys."""
        exact = {f"gap_exact_match_{method}": count / self.gaps for method, count in self.exact_gaps.items()}
        correct = {
            f"gap_character_accuracy_{method}": count / self.characters
            for method, count in self.correct_characters.items()
        }
        return {"gaps": self.gaps, "gap_characters": self.characters, **exact, **correct}


def add_counts(a: Mapping[str, int], b: Mapping[str, int]) -> dict[str, int]:
    """Add counts by key, and keep those that are 0."""
    return {key: a.get(key, 0) + b.get(key, 0) for key in {**a, **b}}


@dataclass(frozen=True)
class HiddenGaps:
    """The places where gaps start, [gaps], and their lengths."""

    starts: Ids
    lengths: Ids

    @classmethod
    def draw(
        cls, ids: Ids, excluded: Ids, share: float, shortest: int, longest: int, random: np.random.Generator
    ) -> HiddenGaps:
        """Draw gaps that hide this share of a text, ids [length].

        Their lengths are uniform between `shortest` and `longest`. They do not overlap, and none contains an id of
        `excluded`. Raises CharlstmError if the text is too short for one.
        """
        room = len(ids) - 2 * SCORED_CONTEXT
        count = int(room * share / ((shortest + longest) / 2))
        if count < 1 or room // count < longest:
            raise CharlstmError(
                f"the text has {quantity(len(ids), 'character')}, too few to hide {share:g} of them in gaps of up to "
                f"{longest}",
                "raise --gaps, or evaluate a longer text",
            )
        lengths = random.integers(shortest, longest + 1, count)
        slot = room // count
        offsets = (random.random(count) * (slot - lengths + 1)).astype(np.int64)
        starts = SCORED_CONTEXT + np.arange(count) * slot + offsets
        excluded_before = np.cumsum([0, *np.isin(ids, excluded)])
        clear = excluded_before[starts] == excluded_before[starts + lengths]
        if not clear.any():
            raise CharlstmError(
                f"no document has room for a gap of {shortest} to {longest} characters", "lower --gap-length"
            )
        return cls(starts[clear], lengths[clear])


def fill_hidden_gaps(
    predictors: Predictors, ids: Ids, bos: int, hidden: HiddenGaps, random: np.random.Generator
) -> Iterator[GapResults]:
    """Fill the gaps of a text, ids [length]. Yield the results of all gaps so far after each batch."""
    left = contexts_at(predictors.forward, ids, bos, hidden.starts)
    right = None
    if predictors.backward is not None:
        right = contexts_at(predictors.backward, ids[::-1], bos, len(ids) - hidden.starts - hidden.lengths)
    results = GapResults()
    batch_size = max(MAX_ROWS // max(BENCHMARK_ATTEMPTS.values()), 1)
    for length in np.unique(hidden.lengths).tolist():
        same_length = np.flatnonzero(hidden.lengths == length)
        for first in range(0, len(same_length), batch_size):
            rows = same_length[first : first + batch_size]
            right_rows = right.select(rows) if right else None
            batch = make_batch(ids, hidden.starts[rows], length, left.select(rows), right_rows)
            results = results + GapResults.compare(fill_by_each_method(predictors, batch, random), batch.ids)
            yield results


def fill_by_each_method(predictors: Predictors, batch: GapBatch, random: np.random.Generator) -> dict[str, Ids]:
    """Fill gaps of one length by every method that the model has. Return the ids, [gaps, length], by method."""
    fills = {"forward": fill_greedily(predictors, batch)}
    forward_only = replace(predictors, backward=None, joint=None)
    methods = {METHODS[False]: forward_only, METHODS[predictors.backward is not None]: predictors}
    for method, used in methods.items():
        attempts = np.repeat(np.arange(len(batch.ids)), BENCHMARK_ATTEMPTS[method])
        ranked = fill_gaps(used, batch.select(attempts), random).rows
        best = np.unique(ranked.problem, return_index=True)[1]
        fills[method] = ranked.ids[best]
    return fills


def fill_greedily(predictors: Predictors, batch: GapBatch) -> Ids:
    """Fill each gap with the most likely next character, again and again, [N, n]. The text after it is not read."""
    columns, context = [], batch.left
    for _ in range(batch.ids.shape[1]):
        logits = predictors.forward.head.logits(context.head_input)
        columns.append(greedy(predictors.mask_non_characters(logits)))
        context = context.advance(predictors.forward, columns[-1])
    return np.stack(columns, 1)


def make_batch(ids: Ids, starts: Ids, length: int, left: Context, right: Context | None) -> GapBatch:
    """Return one row per gap, with the original characters in it."""
    around = np.arange(SCORED_CONTEXT)
    return GapBatch(
        problem=np.arange(len(starts)),
        ids=ids[starts[:, None] + np.arange(length)],
        hidden=np.ones(length, np.bool_),
        absent=np.zeros((len(starts), length), np.bool_),
        before=ids[starts[:, None] - SCORED_CONTEXT + around],
        after=ids[starts[:, None] + length + around],
        left=left,
        right=right,
    )


def contexts_at(network: Network, ids: Ids, bos: int, places: Ids) -> Context:
    """Return the context before each of these places of a text, ids [length], that is read in warmed streams.

    A warm-up begins with BOS, as that of `charlstm.evaluation.forward` does.
    """
    streams = Streams.cut(len(ids), BENCHMARK_STREAMS)
    row_of_place = np.full(len(ids), -1)
    row_of_place[places] = np.arange(len(places))
    context, found, order = initial_context(network, BENCHMARK_STREAMS), [], []
    for step in range(-BENCHMARK_WARMUP, streams.steps):
        (at,) = streams.places(step, step + 1)
        inside = (at >= 0) & (at < len(ids))
        within = np.clip(at, 0, len(ids) - 1)
        read = np.full(len(at), bos) if step == -BENCHMARK_WARMUP else preceding_ids(ids, within, bos)
        context = context.advance(network, read, ~inside)
        wanted = np.where(inside & (step >= 0), row_of_place[within], -1)
        rows = np.flatnonzero(wanted >= 0)
        if len(rows):
            found.append(context.select(rows))
            order.append(wanted[rows])
    return Context.concatenate(found).select(np.argsort(np.concatenate(order)))
