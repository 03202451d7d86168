"""Embedding, stack and heads of a model as nodes of an ONNX graph, around the layers, which the caller adds."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from charlstm.architecture import (
    BIGRAM_FACTOR,
    BIGRAMS,
    EMBEDDING,
    HEAD,
    HeadNames,
    highway_name,
    layer_weight_name,
    qualify_name,
)
from charlstm.cells import CELLS
from charlstm.config import Direction
from charlstm.export.cell_nodes import LayerValues, ValueState
from charlstm.export.graph import Graph, GraphValue
from charlstm.storage.model import ModelFile

AddLayer = Callable[[int, GraphValue, ValueState], tuple[GraphValue, ValueState]]
"""Adds layer k, given its input and its state before. Returns its output and its state after."""


class NetworkNodes:
    """Adds the network of one direction to a graph, as `charlstm.sampling.network.Network` computes it."""

    def __init__(self, graph: Graph, file: ModelFile, direction: Direction) -> None:
        self.graph, self.weights, self.direction = graph, file.weights, direction
        self.config = file.config.model

    def weight(self, name: str) -> GraphValue:
        qualified = qualify_name(name, self.direction)
        return self.graph.weight(qualified, self.weights[qualified])

    def layer(self, k: int) -> LayerValues:
        """Return the weights of layer k by their names in `Cell.shapes`."""
        prefix = qualify_name(layer_weight_name(k, ""), self.direction)
        names = CELLS[self.config.cell].shapes(1, 1)
        return LayerValues(self.graph, {name: self.weights[prefix + name] for name in names}, prefix)

    def embed(self, ids: GraphValue, last: GraphValue | None) -> GraphValue:
        """Return the embeddings of ids, with those of pairs. `last` has the symbols before them, plus 1; 0 for none."""
        embedded = self.weight(EMBEDDING).rows(ids)
        if last is None:
            return embedded
        factor, rows = (self.graph.constant(number) for number in (BIGRAM_FACTOR, self.config.bigrams))
        pairs = self.weight(BIGRAMS).rows((last * factor + ids).apply("Mod", rows))
        return embedded + pairs * last.apply("Greater", self.graph.constant(0)).cast("float32").unsqueeze(-1)

    def add_stack(
        self, x: GraphValue, states: Sequence[ValueState], add_layer: AddLayer
    ) -> tuple[GraphValue, list[ValueState]]:
        """Add all layers. Returns the input of the head, and the states after."""
        outputs: list[GraphValue] = []
        after: list[ValueState] = []
        for k, state in enumerate(states):
            y, state_after = add_layer(k, outputs[-1] if k else x, state)
            outputs.append(self.combine(k, outputs[-1], y) if k else y)
            after.append(state_after)
        if self.config.head == "all" and len(outputs) > 1:
            return self.graph.add("Concat", *outputs, axis=-1), after
        return outputs[-1], after

    def combine(self, k: int, u: GraphValue, y: GraphValue) -> GraphValue:
        """Return the input of layer k + 1 from layer k's input and output."""
        if self.config.between == "highway":
            weight, bias = self.weight(highway_name(k, "weight")), self.weight(highway_name(k, "bias"))
            return u + u.linear(weight, bias).sigmoid() * (y - u)
        return u + y if self.config.between == "residual" else y

    def add_head(self, x: GraphValue, names: HeadNames = HEAD) -> GraphValue:
        """Return the logits of the head of this direction, or of the joint head."""
        if names.mix_weight:
            x = x.linear(self.weight(names.mix_weight), self.weight(names.mix_bias)).tanh()
        if qualify_name(names.projection, self.direction) in self.weights:
            x = x.linear(self.weight(names.projection))
        return x.linear(self.weight(EMBEDDING if self.config.head == "tied" else names.weight), self.weight(names.bias))


def state_names(file: ModelFile) -> list[list[str]]:
    """Return the names of the arrays of each layer's state in a graph, as `cell_0`."""
    model = file.config.model
    return [[f"{name}_{k}" for name in CELLS[model.cell].state] for k in range(model.layers)]


def add_states(graph: Graph, file: ModelFile) -> list[ValueState]:
    """Add the state of every layer to the inputs [N, H]."""
    shape = ("sequences", file.config.model.hidden)
    return [tuple(graph.add_input(name, shape) for name in names) for names in state_names(file)]


def add_states_after(graph: Graph, file: ModelFile, states: Sequence[ValueState]) -> None:
    """Add the states after the last symbol to the outputs, under the names of the inputs with `next_` before them."""
    shape = ("sequences", file.config.model.hidden)
    for names, state in zip(state_names(file), states, strict=True):
        for name, value in zip(names, state, strict=True):
            graph.add_output(f"next_{name}", value, shape)
