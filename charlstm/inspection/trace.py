"""Every state and gate of a model while it reads a text."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from charlstm.architecture import BACKWARD_PREFIX
from charlstm.cells import CELLS
from charlstm.config import Direction, ModelConfig
from charlstm.errors import UsageError
from charlstm.matrices import Array, matvec
from charlstm.sampling.filters import log_softmax
from charlstm.sampling.network import Network
from charlstm.sampling.reading_order import ReadingOrder
from charlstm.sampling.units import Unit
from charlstm.storage.model import ModelFile
from charlstm.vocabulary import Ids, Vocabulary

LOGIT_ROWS = 512
"""Positions whose logits are computed together."""

TICK_STEPS = 200
"""Steps between reports of progress."""

KEPT_PREDICTIONS = 10
"""Most next symbols that are kept at each position."""


class Series(NamedTuple):
    """The name of a recorded quantity of a layer: a part of its state, or a gate."""

    direction: Direction
    layer: int
    quantity: str

    def __str__(self) -> str:
        return f"{BACKWARD_PREFIX if self.direction == 'backward' else ''}layers.{self.layer}.{self.quantity}"


@dataclass(frozen=True)
class PredictionTrace:
    """What one direction of a model predicts at each position of a text.

    log_probabilities: natural log-probability of each symbol given those that were read before it, [T].
    entropies: entropy in nats of the prediction that is made after reading it, [T].
    likeliest: the K symbols that are most likely to be read next, the likeliest first, [T, K].
    probabilities: their probabilities, [T, K].
    """

    log_probabilities: Array
    entropies: Array
    likeliest: Ids
    probabilities: Array


@dataclass(frozen=True)
class Trace:
    """The states and gates of a model while it reads a text, in the order of the text.

    ids: the symbols of the text, [T].
    state: the names of the parts of a state, the cell state first: what a unit remembers.
    series: a state or gate of every unit of a layer after each symbol, [T, H].
    predictions: of each direction.
    """

    ids: Ids
    state: tuple[str, ...]
    series: dict[Series, Array]
    predictions: dict[Direction, PredictionTrace]

    @property
    def quantities(self) -> tuple[str, ...]:
        """The quantities of a layer: its state, the cell state first, then its gates."""
        return tuple(dict.fromkeys(series.quantity for series in self.series))

    def of_unit(self, unit: Unit, quantity: str) -> Array:
        """Return one quantity of one unit, [T]. Raises UsageError if its cell has no such quantity."""
        series = Series(unit.direction, unit.layer, quantity)
        if series not in self.series:
            raise UsageError(f"the cell of this model has no {quantity!r}", f"it has {', '.join(self.quantities)}")
        return self.series[series][:, unit.number]

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """Return everything by name: `ids`, `layers.0.cell`, `log_probabilities`, and so on, [T, ...] each."""
        arrays: dict[str, NDArray[np.generic]] = {"ids": self.ids}
        arrays |= {str(name): values for name, values in self.series.items()}
        for direction, predictions in self.predictions.items():
            prefix = BACKWARD_PREFIX if direction == "backward" else ""
            arrays |= {prefix + name: values for name, values in vars(predictions).items()}
        return arrays


def trace(file: ModelFile, ids: Ids, progress: Callable[[float], None] = lambda share: None) -> Trace:
    """Read a text of T symbols, [T], after BOS, from its beginning, and once more from its end if the model reads both.

    Both directions are recorded in the order of the text: what the backward direction has read at a position is the
    symbol there and all after it. `progress` is called with the share that was read.
    """
    series: dict[Series, Array] = {}
    predictions: dict[Direction, PredictionTrace] = {}
    config = file.config.model
    ticks, done = len(directions(config)) * config.layers * (len(ids) / TICK_STEPS), count(1)

    def tick() -> None:
        progress(min(next(done) / ticks, 1.0))

    for direction in directions(config):
        half, order = file.select_direction(direction), ReadingOrder(direction)
        network = Network(half.config.model, half.weights, file.vocabulary.end_of_document)
        recorded, predicted = trace_network(network, order.convert(ids), file.vocabulary, tick)
        series |= {Series(direction, *key): order.convert(values) for key, values in recorded.items()}
        predictions[direction] = PredictionTrace(*(order.convert(values) for values in vars(predicted).values()))
    return Trace(ids, CELLS[file.config.model.cell].state[::-1], series, predictions)


def directions(config: ModelConfig) -> tuple[Direction, ...]:
    """Return the directions in which a model reads."""
    return ("forward", "backward") if config.bidirectional else ("forward",)


def trace_network(
    network: Network, ids: Ids, vocabulary: Vocabulary, tick: Callable[[], None]
) -> tuple[dict[tuple[int, str], Array], PredictionTrace]:
    """Read a text, [T], after BOS. Return the values of each layer and quantity, [T, H], and the predictions.

    It is read layer by layer, since the input of a layer is then projected in one matrix product. `tick` is called
    after every `TICK_STEPS` steps of a layer.
    """
    read = np.concatenate([[vocabulary.bos], ids])
    series: dict[tuple[int, str], Array] = {}
    u, outputs = network.embed(read, last_symbols(network, read)), []
    for k, layer in enumerate(network.layers):
        values = trace_layer(network, k, matvec(layer["weight_ih"], u) + layer["bias_ih"], read, tick)
        y = values[network.cell.state[0]]
        u = network.combine(k, u, y) if k else y
        outputs.append(u)
        series |= {(k, name): each[1:] for name, each in values.items()}
    head_inputs = np.concatenate(outputs, 1) if network.config.head == "all" else u
    return series, compute_predictions(network, head_inputs, ids)


def last_symbols(network: Network, ids: Ids) -> Ids:
    """Return the symbol before each of these, plus 1, or 0 where the state is reset, [T]."""
    last = np.concatenate([[0], ids[:-1] + 1])
    return last if network.end_of_document is None else np.where(ids == network.end_of_document, 0, last)


def trace_layer(network: Network, k: int, x: Array, ids: Ids, tick: Callable[[], None]) -> dict[str, Array]:
    """Return the states and gates of a layer by name, [T, H] each, given its projected input [T, G*H]."""
    values: dict[str, Array] = {}
    initial = state = network.initial_state(1)[k]
    for t in range(len(ids)):
        if ids[t] == network.end_of_document:
            state = initial
        state, gates = network.step_layer(k, x[t : t + 1], state)
        # the cell state comes first: it is what a unit remembers
        for name, array in (*zip(reversed(network.cell.state), reversed(state), strict=True), *gates.items()):
            if t == 0:
                values[name] = np.empty((len(ids), network.config.hidden), np.float32)
            values[name][t] = array[0]
        if t % TICK_STEPS == TICK_STEPS - 1:
            tick()
    return values


def compute_predictions(network: Network, head_inputs: Array, ids: Ids) -> PredictionTrace:
    """Return the predictions that a head makes from what it reads after BOS and each symbol, [T + 1, R]."""
    kept = min(KEPT_PREDICTIONS, len(network.head.bias))
    log_probabilities, entropies = np.empty(len(ids), np.float32), np.empty(len(ids), np.float32)
    likeliest, probabilities = np.empty((len(ids), kept), np.int64), np.empty((len(ids), kept), np.float32)
    for first in range(0, len(head_inputs), LOGIT_ROWS):
        log_p = log_softmax(network.head.logits(head_inputs[first : first + LOGIT_ROWS]))  # of the symbol at each place
        last = min(first + len(log_p), len(ids))
        log_probabilities[first:last] = log_p[np.arange(last - first), ids[first:last]]
        after = log_p[first == 0 :]  # predictions after BOS belong to no symbol
        read = slice(max(first - 1, 0), max(first - 1, 0) + len(after))
        p = np.exp(after)
        entropies[read] = -(p * after).sum(1)
        likeliest[read] = np.argsort(-after, axis=1, kind="stable")[:, :kept]
        probabilities[read] = np.take_along_axis(p, likeliest[read], 1)
    return PredictionTrace(log_probabilities, entropies, likeliest, probabilities)
