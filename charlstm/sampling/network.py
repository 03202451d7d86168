"""The whole network one character at a time, in NumPy: ids in, logits out, state carried by the caller."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from charlstm.architecture import EMBEDDING, HEAD, HeadNames, highway_name, layer_weight_name
from charlstm.cells import ACTIVATIONS, CELLS, Array, State, Weights, matvec, sigmoid
from charlstm.config import ModelConfig

Ids = NDArray[np.int64]
States = list[State]

MAX_TABLE = 2**25
"""Numbers in the table of what each character adds to the first layer; with more, they are computed each time."""


class OutputHead(NamedTuple):
    """What predicts: weight [V, M] and bias [V], and what comes before them, if anything does."""

    weight: Array
    bias: Array
    projection: Array | None
    mix: tuple[Array, Array] | None = None

    @classmethod
    def from_weights(cls, weights: Mapping[str, Array], names: HeadNames, tied: bool) -> OutputHead:
        """Return the head whose weights have these names: `HEAD`, or `JOINT_HEAD` of a bidirectional model."""
        mix = (weights[names.mix_weight], weights[names.mix_bias]) if names.mix_weight else None
        weight = weights[EMBEDDING if tied else names.weight]
        return cls(weight, weights[names.bias], weights.get(names.projection), mix)

    def logits(self, read: Array) -> Array:
        """Logits [N, V] of what it reads, [N, R]."""
        if self.mix is not None:
            weight, bias = self.mix
            read = np.tanh(matvec(weight, read) + bias)
        return matvec(self.weight, read if self.projection is None else matvec(self.projection, read)) + self.bias


class Network:
    """Embedding, layers and head of a model file, ready to step N sequences at once.

    A sequence that reads the id `boundary`, if there is one, starts afresh before it reads it.
    """

    def __init__(self, config: ModelConfig, weights: Mapping[str, Array], end_of_document: int | None = None) -> None:
        self.config, self.end_of_document = config, end_of_document
        self.cell = CELLS[config.cell]
        self.activation = ACTIVATIONS[config.activation]
        self.embedding = weights[EMBEDDING]
        self.layers = [layer_weights(weights, config.cell, k) for k in range(config.layers)]
        self.highways = highway_weights(weights, config)
        self.head = OutputHead.from_weights(weights, HEAD, config.head == "tied")
        # What a character adds to the first layer never changes: computed when it is first read, then looked up.
        width = len(self.layers[0]["bias_ih"])
        self.uses_table = len(self.embedding) * width <= MAX_TABLE
        self.projections = np.empty((len(self.embedding) if self.uses_table else 0, width), np.float32)
        self.known: set[int] = set()

    def initial_state(self, n: int) -> States:
        """The state of `n` sequences that have read nothing: zeros, [N, H] each."""
        zeros = np.zeros((n, self.config.hidden), np.float32)
        return [(zeros,) * self.cell.state_arrays for _ in self.layers]

    def step(self, ids: Ids, states: States) -> tuple[Array, States]:
        """Reads one id a sequence, [N]. Gives the logits of what comes next, [N, V], and the states after it."""
        read, after = self.advance(ids, states)
        return self.head.logits(read), after

    def advance(self, ids: Ids, states: States) -> tuple[Array, States]:
        """Reads one more id a sequence, with no prediction made: all that a prompt needs.

        Gives what the head would read, [N, R], and the states after it.
        """
        x = self.project_ids(ids)
        if self.end_of_document is not None:
            states = reset_rows(states, ids == self.end_of_document)
        outputs: list[Array] = []
        after: States = []
        for k, (layer, old) in enumerate(zip(self.layers, states, strict=True)):
            if k:
                x = matvec(layer["weight_ih"], outputs[-1]) + layer["bias_ih"]
            state, _ = self.cell.step(x, old, layer, self.activation)
            if zoneout := np.float32(self.config.zoneout):
                state = tuple(new + zoneout * (before - new) for before, new in zip(old, state, strict=True))
            outputs.append(self.combine(k, outputs[-1], state[0]) if k else state[0])
            after.append(state)
        return (np.concatenate(outputs, 1) if self.config.head == "all" else outputs[-1]), after

    def combine(self, k: int, u: Array, y: Array) -> Array:
        """What goes up from layer k, of its input and its output (`charlstm.model.stack`)."""
        if self.config.between == "highway":
            weight, bias = self.highways[k]
            return u + sigmoid(matvec(weight, u) + bias) * (y - u)
        return u + y if self.config.between == "residual" else y

    def project_ids(self, ids: Ids) -> Array:
        """W_ih e + b_ih of the first layer for these ids, [N, G*H]."""
        if not self.uses_table:
            return self.compute_projection(ids)
        if not self.known.issuperset(ids.tolist()):
            self.projections[ids] = self.compute_projection(ids)
            self.known.update(ids.tolist())
        return self.projections[ids]

    def compute_projection(self, ids: Ids) -> Array:
        first = self.layers[0]
        return matvec(first["weight_ih"], self.embedding[ids]) + first["bias_ih"]


def reset_rows(states: States, fresh: NDArray[np.bool_]) -> States:
    """The states with zeros where a sequence starts afresh, [N]."""
    if not fresh.any():
        return states
    keep = ~fresh[:, None]
    return [tuple(part * keep for part in state) for state in states]


def prefill(network: Network, ids: Ids) -> tuple[Array, States]:
    """What the head reads, [1, R], and the state, once one sequence has read these characters, of which there must be
    one."""
    states = network.initial_state(1)
    for i in range(len(ids)):
        read, states = network.advance(ids[i : i + 1], states)
    return read, states


def select_rows(states: States, rows: Ids) -> States:
    """These rows of every array of the state."""
    return [tuple(array[rows] for array in state) for state in states]


def highway_weights(weights: Mapping[str, Array], config: ModelConfig) -> dict[int, tuple[Array, Array]]:
    """The weight and bias of the highway around each layer that has one."""
    around = range(1, config.layers) if config.between == "highway" else ()
    return {k: (weights[highway_name(k, "weight")], weights[highway_name(k, "bias")]) for k in around}


def layer_weights(weights: Mapping[str, Array], cell: str, k: int) -> Weights:
    """The weights of layer k, by their names in `Cell.shapes`."""
    return {name: weights[layer_weight_name(k, name)] for name in CELLS[cell].shapes(1, 1)}
