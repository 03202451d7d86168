"""Candidates: gaps filled from left to right by the forward network."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from charlstm.infilling.context import Predictors
from charlstm.infilling.gaps import GapBatch, draw_ids
from charlstm.sampling.filters import log_softmax
from charlstm.vocabulary import Ids


def draw_candidates(
    predictors: Predictors, batch: GapBatch, random: np.random.Generator, on_step: Callable[[], None] = lambda: None
) -> GapBatch:
    """Fill the gaps from left to right (sequential importance resampling, Gordon et al. 1993).

    At the start of each gap but the first, rows are resampled by the likelihood of the fixed text since the gap before:
    the rows whose fillings the text contradicts die out. `on_step` is called after each place.
    """
    forward, context = predictors.forward, batch.left
    ids, ancestors = batch.ids.copy(), np.arange(len(batch.ids))  # ancestors: the row of `batch` that each row is from
    log_weights = np.zeros(len(ids))
    for t, hidden in enumerate(batch.hidden.tolist()):
        logits = forward.head.logits(context.head_input)
        if hidden:
            if t and not batch.hidden[t - 1]:
                rows = resample(batch.problem, log_weights, random)
                ids, ancestors, context, logits = ids[rows], ancestors[rows], context.select(rows), logits[rows]
                log_weights = np.zeros(len(ids))
            ids[:, t] = draw_ids(predictors.mask_non_characters(logits), 1.0, random)
        else:
            log_weights = log_weights + log_softmax(logits)[np.arange(len(logits)), ids[:, t]]
        context = context.advance(forward, ids[:, t], batch.absent[ancestors, t])
        on_step()
    return batch.select(ancestors).with_ids(ids)


def resample(problem: Ids, log_weights: NDArray[np.float64], random: np.random.Generator) -> Ids:
    """Draw as many rows of each problem as it has, in proportion to e^log_weights (systematic, Kitagawa 1996)."""
    rows = np.empty(len(problem), np.int64)
    for number in np.unique(problem):
        own = np.flatnonzero(problem == number)
        edges = np.cumsum(np.exp(log_weights[own] - log_weights[own].max()))
        points = (np.arange(len(own)) + random.random()) / len(own) * edges[-1]
        rows[own] = own[np.minimum(np.searchsorted(edges, points, "right"), len(own) - 1)]
    return rows
