"""Gibbs sampling of gaps with a bidirectional model (Geman & Geman 1984).

Each hidden character is drawn again and again from the joint head, given all the other characters as they are now, at
temperatures that fall to 0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial

import numpy as np

from charlstm.infilling.context import Context, Predictors
from charlstm.infilling.gaps import GapBatch, draw_ids
from charlstm.matrices import Array
from charlstm.sampling.network import Network
from charlstm.vocabulary import Ids

SWEEP_TEMPERATURES = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.0)
"""The temperature of each sweep."""

HeadInputs = dict[int, Array]
"""What one network's head reads at each hidden place, [N, R]: its side of the place, without the place itself."""


def run_sweeps(predictors: Predictors, batch: GapBatch, random: np.random.Generator) -> Iterator[Ids]:
    """Yield the ids [N, n] after each sweep over the hidden places: right to left, then left to right, and so on.

    A sweep stores its network's head inputs at each place. They stay valid throughout the next sweep, which comes from
    the other end: what it draws lies behind it, and the stored inputs of the places ahead do not depend on that.
    """
    assert predictors.backward is not None and batch.right is not None
    places = range(len(batch.hidden))
    ids, head_inputs = sweep(predictors.forward, batch.left, batch, batch.ids, places, None)
    for number, temperature in enumerate(SWEEP_TEMPERATURES):
        leftward = number % 2 == 0
        draw = partial(draw_joint, predictors, head_inputs, leftward, temperature, random)
        if leftward:
            ids, head_inputs = sweep(predictors.backward, batch.right, batch, ids, reversed(places), draw)
        else:
            ids, head_inputs = sweep(predictors.forward, batch.left, batch, ids, places, draw)
        yield ids


def sweep(
    network: Network,
    context: Context,
    batch: GapBatch,
    ids: Ids,
    order: Iterable[int],
    draw: Callable[[int, Array], Ids] | None,
) -> tuple[Ids, HeadInputs]:
    """Read the rows in this order and draw each hidden place again. Return the new ids and the head inputs."""
    ids, head_inputs = ids.copy(), {}
    for t in order:
        if batch.hidden[t]:
            head_inputs[t] = context.head_input
            if draw is not None:
                ids[:, t] = draw(t, context.head_input)
        context = context.advance(network, ids[:, t], batch.absent[:, t])
    return ids, head_inputs


def draw_joint(
    predictors: Predictors,
    other_side: HeadInputs,
    leftward: bool,
    temperature: float,
    random: np.random.Generator,
    t: int,
    head_input: Array,
) -> Ids:
    """Draw ids for place t, [N], from the joint head, which reads both networks' head inputs there."""
    assert predictors.joint is not None
    both = (other_side[t], head_input) if leftward else (head_input, other_side[t])
    logits = predictors.joint.logits(np.concatenate(both, 1))
    return draw_ids(predictors.mask_non_characters(logits), temperature, random)
