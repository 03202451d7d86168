"""A whole text at once as an ONNX graph, by the recurrent operators of ONNX: for scoring, and to read a prompt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from charlstm.architecture import JOINT_HEAD
from charlstm.cells import CELLS
from charlstm.config import Direction
from charlstm.errors import UsageError
from charlstm.export.cell_nodes import LayerValues, ValueState
from charlstm.export.graph import Graph, GraphValue
from charlstm.export.network_nodes import NetworkNodes, add_states, add_states_after
from charlstm.export.rounding import Precision
from charlstm.export.step_graph import keep_mask
from charlstm.matrices import Array
from charlstm.storage.model import ModelFile


class SequenceOperator(NamedTuple):
    """The ONNX operator of a cell, and the order in which it has the cell's blocks."""

    name: str
    order: tuple[int, ...]  # of the blocks of gates
    activations: tuple[str, ...]  # "" is that of the candidate
    peepholes: tuple[int, ...] = ()
    attributes: dict[str, Any] = {}  # noqa: RUF012 - never changed


LSTM_ORDER, LSTM_ACTIVATIONS = (0, 3, 1, 2), ("Sigmoid", "", "Tanh")  # input, output, forget, candidate

OPERATORS = {
    "lstm": SequenceOperator("LSTM", LSTM_ORDER, LSTM_ACTIVATIONS),
    "lstm-peephole": SequenceOperator("LSTM", LSTM_ORDER, LSTM_ACTIVATIONS, peepholes=(0, 2, 1)),
    "gru": SequenceOperator("GRU", (1, 0, 2), ("Sigmoid", ""), attributes={"linear_before_reset": 1}),
    "gru-cho": SequenceOperator("GRU", (1, 0, 2), ("Sigmoid", "")),
    "rnn": SequenceOperator("RNN", (0,), ("",)),
}
"""The cells that ONNX has an operator for."""

LENGTH = "characters"


def check_sequence(file: ModelFile) -> None:
    """Raise UsageError for a model that ONNX's recurrent operators cannot compute."""
    model = file.config.model
    hint = "leave out --sequence: a graph of one step serves every model"
    if model.cell not in OPERATORS:
        raise UsageError(f"--sequence: ONNX has no operator for the cell {model.cell}, only for {list_cells()}", hint)
    if model.zoneout:
        raise UsageError(f"--sequence: ONNX's operators have no zoneout, and this model has {model.zoneout:g}", hint)


def list_cells() -> str:
    *others, last = OPERATORS
    return f"{', '.join(others)} and {last}"


def build_sequence_graph(file: ModelFile, direction: Direction, precision: Precision) -> Graph:
    """Return a graph that reads ids [T, N], with the inputs and outputs of the step graph.

    ONNX's operators cannot reset a state on the way. The end of a document does so only as the first id of a sequence:
    a document is one sequence.
    """
    graph = Graph(precision)
    network = NetworkNodes(graph, file, direction)
    ids = graph.add_input("ids", [LENGTH, "sequences"], "int64")
    states = add_states(graph, file)
    last = graph.add_input("last_symbol", ["sequences"], "int64") if file.config.model.bigrams else None
    if file.vocabulary.end_of_document is not None:
        keep = keep_mask(ids.slice(0, 1), file.vocabulary.end_of_document)  # [1, N]
        mask = keep.cast("float32").squeeze(0).unsqueeze(-1)
        states = [tuple(part * mask for part in state) for state in states]
    head_input, after = read_sequence(network, file, ids, last, states)
    graph.add_output("logits", network.add_head(head_input), [LENGTH, "sequences", file.vocabulary.size])
    add_states_after(graph, file, after)
    if last is not None:
        graph.add_output("next_last_symbol", final_symbols(ids).squeeze(0), ["sequences"], "int64")
    return graph


def build_both_sides_graph(file: ModelFile, precision: Precision) -> Graph:
    """Return a graph that predicts each of the ids [T, N], except the first and the last, from both of its sides."""
    graph = Graph(precision)
    ids = graph.add_input("ids", [LENGTH, "sequences"], "int64")
    forward = NetworkNodes(graph, file, "forward")
    nothing: list[ValueState] = [()] * file.config.model.layers
    last = graph.add("Mul", ids.slice(0, 1).squeeze(0), graph.constant(0)) if file.config.model.bigrams else None
    before, _ = read_sequence(forward, file, ids, last, nothing)
    after, _ = read_sequence(NetworkNodes(graph, file, "backward"), file, reverse(ids), last, nothing)
    # The character between two is predicted from the state after the left one and that before the right one.
    sides = graph.add("Concat", before.slice(0, -2), reverse(after).slice(2, END), axis=-1)
    graph.add_output(
        "logits", forward.add_head(sides, JOINT_HEAD), ["inner_characters", "sequences", file.vocabulary.size]
    )
    return graph


END = 2**31 - 1
"""A position after the end of every sequence."""


def reverse(sequence: GraphValue) -> GraphValue:
    return sequence.slice(-1, -END, -1)


def final_symbols(ids: GraphValue) -> GraphValue:
    """Return the last id of each sequence, plus 1 [1, N]."""
    return ids.slice(-1, END) + ids.graph.constant(1)


def read_sequence(
    network: NetworkNodes, file: ModelFile, ids: GraphValue, last: GraphValue | None, states: Sequence[ValueState]
) -> tuple[GraphValue, list[ValueState]]:
    """Add all layers over a sequence. A layer whose state is () begins with zeros.

    last: the symbols before the sequence, plus 1, or 0 for none [N]; None without bigrams.
    """
    before = last and symbols_before(ids, last, file.vocabulary.end_of_document)

    def add_layer(k: int, u: GraphValue, old: ValueState) -> tuple[GraphValue, ValueState]:
        return add_operator(network.layer(k), file, u, old)

    return network.add_stack(network.embed(ids, before), states, add_layer)


def symbols_before(ids: GraphValue, last: GraphValue, end_of_document: int | None) -> GraphValue:
    """Return the symbol before each id, plus 1, or 0 where a text or document begins [T, N]."""
    preceding = ids.slice(0, -1) + ids.graph.constant(1)
    before = ids.graph.add("Concat", last.unsqueeze(0), preceding, axis=0)
    return before if end_of_document is None else before * keep_mask(ids, end_of_document)


def add_operator(w: LayerValues, file: ModelFile, x: GraphValue, state: ValueState) -> tuple[GraphValue, ValueState]:
    """Add one layer. Returns its output [T, N, H] and its state."""
    config = file.config.model
    operator, activation = OPERATORS[config.cell], config.activation.capitalize()
    order, arrays = operator.order, w.weights
    biases = [arrays["bias_ih"], arrays.get("bias_hh", np.zeros_like(arrays["bias_ih"]))]
    initial: list[GraphValue | None] = [part.unsqueeze(0) for part in state]
    initial = initial or [None] * len(CELLS[config.cell].state)
    inputs: list[GraphValue | None] = [
        x,
        add_weight(w, "weight_ih", reorder(arrays["weight_ih"], order)),
        add_weight(w, "weight_hh", reorder(arrays["weight_hh"], order)),
        add_weight(w, "bias", np.concatenate([reorder(bias, order) for bias in biases])),
        None,  # the lengths of sequences of different lengths
        *initial,
    ]
    if operator.peepholes:
        inputs.append(add_weight(w, "weight_peephole", reorder(arrays["weight_peephole"], operator.peepholes)))
    y, *after = x.graph.add_all(
        operator.name,
        inputs,
        1 + len(initial),
        hidden_size=config.hidden,
        activations=[name or activation for name in operator.activations],
        **operator.attributes,
    )
    return y.squeeze(1), tuple(part.squeeze(0) for part in after)


def reorder(weight: Array, order: Sequence[int]) -> Array:
    """Return a weight with its blocks of rows in this order."""
    blocks = np.split(weight, len(order))
    return np.concatenate([blocks[k] for k in order])


def add_weight(w: LayerValues, name: str, weight: Array) -> GraphValue:
    """Return a weight of an operator, which has an axis for the directions before its own."""
    return w.graph.weight(f"{w.prefix}{name}", weight).unsqueeze(0)
