"""A model as an ONNX file: the graph, with the description of the model in its metadata. Needs onnx."""

from __future__ import annotations

import json
from dataclasses import dataclass

from onnx import helper

import charlstm
from charlstm.config import Direction
from charlstm.errors import CharlstmError, UsageError
from charlstm.export.description import describe_model, list_graph_rules
from charlstm.export.graph import OPSET, Graph
from charlstm.export.rounding import Precision
from charlstm.export.sequence_graph import build_both_sides_graph, build_sequence_graph, check_sequence
from charlstm.export.step_graph import build_step_graph
from charlstm.storage.model import ModelFile

ONNX_METADATA_KEY = "charlstm"

MAX_ONNX_BYTES = 2**31 - 2**20
"""Bytes of weights in one file, which Protocol Buffers limit to 2 GB."""


@dataclass(frozen=True)
class OnnxOptions:
    """Which graph to write.

    direction: None predicts each character from both of its sides.
    sequence: read a whole text at once, not one id per sequence.
    precision: how the weights are stored.
    """

    direction: Direction | None = "forward"
    sequence: bool = False
    precision: Precision = "fp32"

    def check(self, file: ModelFile) -> None:
        """Raise UsageError for a graph that this model does not have."""
        if self.direction != "forward" and not file.config.model.bidirectional:
            raise UsageError(
                f"--direction {self.direction or 'both'} needs a bidirectional model, and this one reads forward only",
                "train one with charlstm train --bidirectional",
            )
        if self.direction is None and not self.sequence:
            raise UsageError("--direction both reads a whole text", "add --sequence")
        if self.sequence:
            check_sequence(file)


def build_onnx(file: ModelFile, options: OnnxOptions, loss_nats: float = 0.0) -> bytes:
    """Return the contents of an ONNX file.

    loss_nats: what the model loses by the precision of its weights, for the metadata.

    Raises UsageError for a graph that this model does not have, CharlstmError for a model of more than 2 GB.
    """
    options.check(file)
    graph, inputs = build_graph(file, options), {"ids": "symbols of N sequences"}
    if sum(len(each.raw_data) for each in graph.initializers.values()) > MAX_ONNX_BYTES:
        raise CharlstmError("the weights have more than 2 GB, which an ONNX file cannot hold", "use --weights fp16")
    name = "both-sides" if options.direction is None else "sequence" if options.sequence else "step"
    model = helper.make_model(
        graph.build(name, inputs),
        opset_imports=[opset := helper.make_opsetid("", OPSET)],
        ir_version=helper.find_min_ir_version_for([opset]),
        producer_name="charlstm",
        producer_version=charlstm.__version__,
        doc_string=file.config.card.about,
    )
    description = describe_model(file) | {
        "graph": name,
        "direction": options.direction or "both",
        "weights": options.precision,
        "weights_loss_nats": loss_nats,
    }
    description["rules"] += list_graph_rules(file, options.direction, sequence=options.sequence)
    helper.set_model_props(model, {ONNX_METADATA_KEY: json.dumps(description, ensure_ascii=False)})
    return bytes(model.SerializeToString())


def build_graph(file: ModelFile, options: OnnxOptions) -> Graph:
    if options.direction is None:
        return build_both_sides_graph(file, options.precision)
    build = build_sequence_graph if options.sequence else build_step_graph
    return build(file, options.direction, options.precision)
