"""One step of a model as an ONNX graph: ids and states in, logits and states out. It serves sampling."""

from __future__ import annotations

import numpy as np

from charlstm.config import Direction
from charlstm.export.cell_nodes import NODE_ACTIVATIONS, NODE_STEPS, ValueState
from charlstm.export.graph import Graph, GraphValue
from charlstm.export.network_nodes import NetworkNodes, add_states, add_states_after
from charlstm.export.rounding import Precision
from charlstm.storage.model import ModelFile


def build_step_graph(file: ModelFile, direction: Direction, precision: Precision) -> Graph:
    """Return a graph that reads one id of each of N sequences. The end of a document resets the state of a sequence."""
    graph, config = Graph(precision), file.config.model
    network = NetworkNodes(graph, file, direction)
    act, step = NODE_ACTIVATIONS[config.activation], NODE_STEPS[config.cell]
    ids = graph.add_input("ids", ["sequences"], "int64")
    states = add_states(graph, file)
    last = graph.add_input("last_symbol", ["sequences"], "int64") if config.bigrams else None
    if file.vocabulary.end_of_document is not None:
        keep = keep_mask(ids, file.vocabulary.end_of_document)
        mask = keep.cast("float32").unsqueeze(-1)
        states = [tuple(part * mask for part in state) for state in states]
        last = last and last * keep

    def add_layer(k: int, u: GraphValue, old: ValueState) -> tuple[GraphValue, ValueState]:
        w = network.layer(k)
        new = step(u.linear(w["weight_ih"], w["bias_ih"]), old, w, act)
        if config.zoneout:
            kept = graph.add_initializer("zoneout", np.array([config.zoneout], np.float32))
            new = tuple(after + kept * (before - after) for before, after in zip(old, new, strict=True))
        return new[0], new

    head_input, after = network.add_stack(network.embed(ids, last), states, add_layer)
    graph.add_output("logits", network.add_head(head_input), ["sequences", file.vocabulary.size])
    add_states_after(graph, file, after)
    if last is not None:
        graph.add_output("next_last_symbol", ids + graph.constant(1), ["sequences"], "int64")
    return graph


def keep_mask(ids: GraphValue, end_of_document: int) -> GraphValue:
    """Return 0 for each id that ends a document and 1 for the others, as integers of the shape of `ids`."""
    return ids.apply("Equal", ids.graph.constant(end_of_document)).apply("Not").cast("int64")
