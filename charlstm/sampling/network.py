"""The whole network one character at a time, in NumPy: ids in, logits out, state carried by the caller."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from charlstm.cells import ACTIVATIONS, CELLS, Array, State, Weights, product
from charlstm.config import ModelConfig

Ids = NDArray[np.int64]
States = list[State]


class Network:
    """Embedding, layers and head of a model file, ready to step N sequences at once."""

    def __init__(self, config: ModelConfig, weights: Mapping[str, Array]) -> None:
        self.config = config
        self.cell = CELLS[config.cell]
        self.activation = ACTIVATIONS[config.activation]
        self.embedding = weights["embedding.weight"]
        self.layers = [layer_weights(weights, config.cell, k) for k in range(config.layers)]
        self.head = weights["head.weight"], weights["head.bias"]
        # What a character adds to the first layer never changes: computed when it is first read, then looked up.
        self.first = np.empty((len(self.embedding), len(self.layers[0]["bias_ih"])), np.float32)
        self.known: set[int] = set()

    def start(self, n: int) -> States:
        """The state of `n` sequences that have read nothing: zeros, [N, H] each."""
        zeros = np.zeros((n, self.config.hidden), np.float32)
        return [(zeros,) * self.cell.states for _ in self.layers]

    def step(self, ids: Ids, states: States) -> tuple[Array, States]:
        """Reads one id a sequence, [N]. Gives the logits of what comes next, [N, V], and the states after it."""
        after = self.read(ids, states)
        weight, bias = self.head
        return product(weight, after[-1][0]) + bias, after

    def read(self, ids: Ids, states: States) -> States:
        """The states after one more id a sequence, with no prediction made: all that a prompt needs."""
        x = self.inputs(ids)
        after: States = []
        for layer, state in zip(self.layers, states, strict=True):
            if after:
                x = product(layer["weight_ih"], after[-1][0]) + layer["bias_ih"]
            state, _ = self.cell.step(x, state, layer, self.activation)
            after.append(state)
        return after

    def inputs(self, ids: Ids) -> Array:
        """W_ih e + b_ih of the first layer for these ids, [N, G*H]."""
        if not self.known.issuperset(ids.tolist()):
            first = self.layers[0]
            self.first[ids] = product(first["weight_ih"], self.embedding[ids]) + first["bias_ih"]
            self.known.update(ids.tolist())
        return self.first[ids]


def layer_weights(weights: Mapping[str, Array], cell: str, k: int) -> Weights:
    """The weights of layer k, by their names in `Cell.shapes`."""
    return {name: weights[f"layers.{k}.{name}"] for name in CELLS[cell].shapes(1, 1)}
