"""Fill gaps by every method that the model has, and rank what was found by the likelihood of the text."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from threading import Event

import numpy as np
from numpy.typing import NDArray

from charlstm.infilling.candidates import draw_candidates
from charlstm.infilling.context import Context, Mask, Predictors, log_likelihood
from charlstm.infilling.gaps import GapBatch
from charlstm.infilling.gibbs import run_sweeps
from charlstm.sampling.network import Network
from charlstm.vocabulary import Ids


@dataclass(frozen=True)
class RankedFillings:
    """Distinct fillings of some texts, sorted by text and within a text by their log-probability, highest first."""

    rows: GapBatch
    log_probability: NDArray[np.float64]  # [N], natural


def fill_gaps(
    predictors: Predictors, batch: GapBatch, random: np.random.Generator, on_step: Callable[[], None] = lambda: None
) -> RankedFillings:
    """Fill the gaps of some texts. The batch has one row per attempt.

    Candidates are drawn first. With a bidirectional model Gibbs sampling starts from them, and the fillings after each
    sweep are ranked too. `on_step` is called after each sweep, and after each character that is drawn or ranked.
    """
    candidates = draw_candidates(predictors, batch, random, on_step)
    attempts = [candidates]
    if predictors.backward is not None:
        for ids in run_sweeps(predictors, candidates, random):
            attempts.append(candidates.with_ids(ids))
            on_step()
    return rank(predictors, deduplicate(attempts), on_step)


def deduplicate(attempts: list[GapBatch]) -> GapBatch:
    """Return each filling of each text once."""
    keys = np.concatenate([np.concatenate([batch.problem[:, None], batch.present_ids], 1) for batch in attempts])
    _, first = np.unique(keys, axis=0, return_index=True)
    attempt, row = np.divmod(first, len(attempts[0].ids))
    ids = np.stack([batch.ids for batch in attempts])[attempt, row]
    absent = np.stack([batch.absent for batch in attempts])[attempt, row]
    return replace(attempts[0].select(row), ids=ids, absent=absent)


def rank(predictors: Predictors, batch: GapBatch, on_step: Callable[[], None]) -> RankedFillings:
    """Sort the rows by text and log-probability."""
    log_p = log_probability(predictors, batch, on_step)
    order = np.lexsort((-log_p, batch.problem))
    return RankedFillings(batch.select(order), log_p[order])


def log_probability(
    predictors: Predictors, batch: GapBatch, on_step: Callable[[], None] = lambda: None
) -> NDArray[np.float64]:
    """Return the natural log-probability of each row with the fixed text after it, given the text before, [N].

    With a bidirectional model it is the mean of that and of the row with the text before it, given the text after.
    """
    columns = list(zip(batch.ids.T, batch.absent.T, strict=True))
    after = [(ids, None) for ids in batch.after.T]
    if predictors.backward is None or batch.right is None:
        return log_likelihood(predictors.forward, batch.left, [*columns, *after], on_step)
    before = [(ids, None) for ids in batch.before.T[::-1]]
    with score_alongside(predictors.backward, batch.right, [*reversed(columns), *before]) as backward:
        forward = log_likelihood(predictors.forward, batch.left, [*columns, *after], on_step)
        return (forward + backward.result()) / 2


@contextmanager
def score_alongside(
    network: Network, context: Context, columns: Iterable[tuple[Ids, Mask | None]]
) -> Iterator[Future[NDArray[np.float64]]]:
    """Compute `log_likelihood` on a thread of its own, which ends early if the context is left by an exception.

    The two networks need nothing from each other, so that two threads use two cores without waiting for each other.
    """
    is_abandoned = Event()

    def check() -> None:
        if is_abandoned.is_set():
            raise CancelledError

    with ThreadPoolExecutor(1) as pool:
        try:
            yield pool.submit(log_likelihood, network, context, columns, check)
        except BaseException:
            is_abandoned.set()
            raise
