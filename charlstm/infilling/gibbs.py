"""Filling gaps: what could have stood where a text has a hole.

From both sides: the forward network proposes, then the gaps are drawn again and again, each character given all the
others, from the joint head (Gibbs sampling, Geman & Geman 1984), at temperatures that fall to 0. With a unidirectional
model: candidates are drawn forwards, and those that what follows speaks against die out (sequential importance
resampling, Gordon et al. 1993). Either way what was found is ranked by the model's own likelihood of the text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from charlstm.cells import Array
from charlstm.infilling.context import Context, Mask, Predictors, log_likelihood
from charlstm.sampling.filters import greedy, log_softmax, logits_to_weights, sample_categorical
from charlstm.sampling.network import Ids, Network

Random = np.random.Generator

TEMPERATURES = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.0)
"""Of the sweeps, one after the other."""


@dataclass(frozen=True)
class GapBatch:
    """N texts with the same places hidden. Each is a stretch from its first gap to its last, and what lies around it.

    `problem` says which of several texts a row is an attempt at. Where `absent`, a row has no character at all.
    """

    problem: Ids  # [N]
    ids: Ids  # [N, n]; where hidden, anything
    hidden: Mask  # [n]
    absent: Mask  # [N, n]
    before: Ids  # [N, ...], what stands there, as much as has a say
    after: Ids
    left: Context  # the forward network's before the stretch
    right: Context | None  # and the backward network's, where there is one

    def select(self, chosen: Ids) -> GapBatch:
        """These of the rows, each as often as it is named."""
        parts = {name: getattr(self, name)[chosen] for name in ("problem", "ids", "absent", "before", "after")}
        right = self.right.select(chosen) if self.right else None
        return replace(self, **parts, left=self.left.select(chosen), right=right)

    def with_ids(self, ids: Ids) -> GapBatch:
        return replace(self, ids=ids)

    @property
    def known(self) -> Ids:
        """The ids, -1 where a row has no character: equal for rows of the same text."""
        return np.where(self.absent, -1, self.ids)


@dataclass(frozen=True)
class RankedFills:
    """Distinct ways of filling the gaps of some texts, the likeliest of each text first."""

    rows: GapBatch
    log_probability: NDArray[np.float64]  # [N], natural


def fill_gaps(sides: Predictors, rows: GapBatch, random: Random) -> RankedFills:
    """Fills the gaps of some texts, of which there are as many rows as attempts are to be made."""
    proposed = draw_candidates(sides, rows, random)
    attempts = [proposed]
    if sides.backward is not None:
        attempts += [proposed.with_ids(ids) for ids in run_sweeps(sides, proposed, random)]
    return rank(sides, deduplicate(attempts))


def draw_candidates(sides: Predictors, rows: GapBatch, random: Random) -> GapBatch:
    """The gaps filled left to right by the forward network.

    Wherever another gap begins, rows are drawn anew, by how likely what stands before it is after how they filled the
    one before.
    """
    reading, weight = rows.left, np.zeros(len(rows.ids))
    rows = rows.with_ids(rows.ids.copy())
    for t, hidden in enumerate(rows.hidden.tolist()):
        logits = sides.forward.head.logits(reading.head_input)
        if hidden:
            if t and not rows.hidden[t - 1]:
                chosen = resample(rows.problem, weight, random)
                rows, reading, logits, weight = rows.select(chosen), reading.select(chosen), logits[chosen], 0 * weight
            rows.ids[:, t] = draw_ids(sides.mask_non_characters(logits), 1.0, random)
        else:
            weight += log_softmax(logits)[np.arange(len(logits)), rows.ids[:, t]]
        reading = reading.advance(sides.forward, rows.ids[:, t], rows.absent[:, t])
    return rows


def resample(problem: Ids, weight: NDArray[np.float64], random: Random) -> Ids:
    """As many rows of each text as there are, drawn in proportion to e^weight, evenly (Kitagawa 1996)."""
    chosen = np.empty(len(problem), np.int64)
    for which in np.unique(problem):
        own = np.flatnonzero(problem == which)
        p = np.cumsum(np.exp(weight[own] - weight[own].max()))
        points = (np.arange(len(own)) + random.random()) / len(own) * p[-1]
        chosen[own] = own[np.minimum(np.searchsorted(p, points, "right"), len(own) - 1)]
    return chosen


def run_sweeps(sides: Predictors, rows: GapBatch, random: Random) -> Iterator[Ids]:
    """The ids [N, n] after each sweep over the hidden places: the first from right to left, the next the other way.

    On its way a sweep leaves what its network makes of what lies behind each place. That is what the next one, from
    the other end, finds there: what that draws changes nothing that is still before it.
    """
    assert sides.backward is not None and rows.right is not None
    ids, places = rows.ids.copy(), range(len(rows.hidden))
    behind = sweep(sides.forward, rows.left, rows, ids, places, None)
    for number, temperature in enumerate(TEMPERATURES):
        backwards = number % 2 == 0
        draw = partial(draw_joint, sides, behind, backwards, temperature, random)
        if backwards:
            behind = sweep(sides.backward, rows.right, rows, ids, reversed(places), draw)
        else:
            behind = sweep(sides.forward, rows.left, rows, ids, places, draw)
        yield ids.copy()


def sweep(
    network: Network,
    reading: Context,
    rows: GapBatch,
    ids: Ids,
    order: Iterable[int],
    draw: Callable[[int, Array], Ids] | None,
) -> dict[int, Array]:
    """Reads the rows in this order and draws anew what is hidden, in place. Gives what the network's head could read
    at each hidden place, [N, R], before it read what stands there."""
    heads: dict[int, Array] = {}
    for t in order:
        if rows.hidden[t]:
            heads[t] = reading.head_input
            if draw is not None:
                ids[:, t] = draw(t, reading.head_input)
        reading = reading.advance(network, ids[:, t], rows.absent[:, t])
    return heads


def draw_joint(
    sides: Predictors,
    behind: dict[int, Array],
    backwards: bool,
    temperature: float,
    random: Random,
    t: int,
    read: Array,
) -> Ids:
    """Ids for place t, [N], by the joint head, of what the one network reads there and the other did."""
    assert sides.joint is not None
    pair = (behind[t], read) if backwards else (read, behind[t])
    return draw_ids(sides.mask_non_characters(sides.joint.logits(np.concatenate(pair, 1))), temperature, random)


def draw_ids(logits: Array, temperature: float, random: Random) -> Ids:
    """One id for each row; the likeliest at temperature 0."""
    if temperature == 0:
        return greedy(logits)
    return sample_categorical(logits_to_weights(logits, temperature), random.random(len(logits)))


def deduplicate(attempts: list[GapBatch]) -> GapBatch:
    """Each filling of each text once."""
    keys = np.concatenate([np.concatenate([rows.problem[:, None], rows.known], 1) for rows in attempts])
    _, first = np.unique(keys, axis=0, return_index=True)
    attempt, row = np.divmod(first, len(attempts[0].ids))
    ids = np.stack([rows.ids for rows in attempts])[attempt, row]
    absent = np.stack([rows.absent for rows in attempts])[attempt, row]
    return replace(attempts[0].select(row), ids=ids, absent=absent)


def rank(sides: Predictors, rows: GapBatch) -> RankedFills:
    """The rows by text and, within it, by their log-probability, the highest first."""
    score = log_probability(sides, rows)
    order = np.lexsort((-score, rows.problem))
    return RankedFills(rows.select(order), score[order])


def log_probability(sides: Predictors, rows: GapBatch) -> NDArray[np.float64]:
    """Of each row's stretch with what comes after it, given what comes before, [N]; in a bidirectional model the mean
    of that and of the stretch with what comes before it, given what comes after."""
    stretch = list(zip(rows.ids.T, rows.absent.T, strict=True))
    forward = log_likelihood(sides.forward, rows.left, [*stretch, *((column, None) for column in rows.after.T)])
    if sides.backward is None or rows.right is None:
        return forward
    others = [*reversed(stretch), *((column, None) for column in rows.before.T[::-1])]
    return (forward + log_likelihood(sides.backward, rows.right, others)) / 2
