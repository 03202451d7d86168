"""An ONNX graph under construction: an expression of its values adds a node for each operation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from charlstm.export.rounding import Precision, store_weight
from charlstm.matrices import Array

OPSET = 17
"""The version of ONNX's operators: the first with LayerNormalization, which most programs have had since 2022."""

TYPES = {"int64": TensorProto.INT64, "float32": TensorProto.FLOAT}

Dimension = int | str
"""The size of an array along one axis, or the name of a dimension of any size."""


@dataclass(frozen=True)
class GraphValue:
    """A value of a graph: an input, a weight or the output of a node."""

    graph: Graph
    name: str

    def __add__(self, other: GraphValue) -> GraphValue:
        return self.apply("Add", other)

    def __sub__(self, other: GraphValue) -> GraphValue:
        return self.apply("Sub", other)

    def __mul__(self, other: GraphValue) -> GraphValue:
        return self.apply("Mul", other)

    def apply(self, operator: str, *others: GraphValue, **attributes: Any) -> GraphValue:
        """Return the output of a node of which this value is the first input."""
        return self.graph.add(operator, self, *others, **attributes)

    def sigmoid(self) -> GraphValue:
        return self.apply("Sigmoid")

    def tanh(self) -> GraphValue:
        return self.apply("Tanh")

    def split(self, count: int) -> list[GraphValue]:
        """Split the last axis into `count` blocks of the same size."""
        return self.graph.add_all("Split", [self], count, axis=-1)

    def linear(self, weight: GraphValue, bias: GraphValue | None = None) -> GraphValue:
        """Return W x + b for vectors x in the last axis, given W [R, C]: the layout of `torch.nn.Linear`."""
        product = self.apply("MatMul", weight.apply("Transpose", perm=[1, 0]))
        return product if bias is None else product + bias

    def normalize(self, gain: GraphValue, bias: GraphValue | None = None) -> GraphValue:
        """Return gain * LN(x) + bias over the last axis."""
        return self.graph.add("LayerNormalization", self, gain, bias, axis=-1, epsilon=1e-5)

    def rows(self, ids: GraphValue) -> GraphValue:
        """Return the rows of a matrix at these indices."""
        return self.apply("Gather", ids, axis=0)

    def cast(self, type_name: str) -> GraphValue:
        return self.apply("Cast", to=TYPES[type_name])

    def unsqueeze(self, axis: int) -> GraphValue:
        return self.apply("Unsqueeze", self.graph.constant(axis))

    def squeeze(self, axis: int) -> GraphValue:
        return self.apply("Squeeze", self.graph.constant(axis))

    def slice(self, start: int, stop: int, step: int = 1) -> GraphValue:
        """Return this part of the first axis, as Python's slices do."""
        bounds = (self.graph.constant(each) for each in (start, stop, 0, step))
        return self.apply("Slice", *bounds)


class Graph:
    """Inputs, nodes, weights and outputs, in the order in which they were added.

    precision: how the weights are stored. Every computation is in float32.
    """

    def __init__(self, precision: Precision = "fp32") -> None:
        self.precision = precision
        self.inputs: list[ValueInfoProto] = []
        self.outputs: list[ValueInfoProto] = []
        self.nodes: list[NodeProto] = []
        self.initializers: dict[str, TensorProto] = {}
        self.stored: dict[str, GraphValue] = {}

    def add_input(self, name: str, shape: Sequence[Dimension], type_name: str = "float32") -> GraphValue:
        self.inputs.append(helper.make_tensor_value_info(name, TYPES[type_name], shape))
        return GraphValue(self, name)

    def add_output(self, name: str, value: GraphValue, shape: Sequence[Dimension], type_name: str = "float32") -> None:
        """Make a value an output of the graph, under a name of its own."""
        self.nodes.append(helper.make_node("Identity", [value.name], [name], name))
        self.outputs.append(helper.make_tensor_value_info(name, TYPES[type_name], shape))

    def add(self, operator: str, *inputs: GraphValue | None, **attributes: Any) -> GraphValue:
        """Add a node with one output."""
        return self.add_all(operator, inputs, 1, **attributes)[0]

    def add_all(
        self, operator: str, inputs: Sequence[GraphValue | None], count: int, **attributes: Any
    ) -> list[GraphValue]:
        """Add a node with `count` outputs. An input that is None is left out."""
        name = f"{operator.lower()}_{len(self.nodes)}"
        names = [name] if count == 1 else [f"{name}_{k}" for k in range(count)]
        given = ["" if value is None else value.name for value in inputs]
        while given and not given[-1]:
            given.pop()  # onnxruntime 1.32 crashes on an empty name at the end
        self.nodes.append(helper.make_node(operator, given, names, name, **attributes))
        return [GraphValue(self, each) for each in names]

    def constant(self, number: int) -> GraphValue:
        """Return an array with one integer [1]."""
        return self.add_initializer(f"constant_{number}", np.array([number], np.int64))

    def weight(self, name: str, weight: Array) -> GraphValue:
        """Return a weight as float32, stored once in the precision of the file."""
        if name in self.stored:
            return self.stored[name]
        values, scales = store_weight(name, weight, self.precision)
        value = self.add_initializer(name, values)
        if scales is not None:
            value = value.cast("float32") * self.add_initializer(f"{name}.scale", scales)
        elif values.dtype != np.float32:
            value = value.cast("float32")
        self.stored[name] = value
        return value

    def add_initializer(self, name: str, array: NDArray[Any]) -> GraphValue:
        if name not in self.initializers:
            self.initializers[name] = numpy_helper.from_array(np.ascontiguousarray(array), name)
        return GraphValue(self, name)

    def build(self, name: str, documentation: Mapping[str, str]) -> GraphProto:
        """Return the graph. `documentation` describes its inputs and outputs."""
        for each in (*self.inputs, *self.outputs):
            each.doc_string = documentation.get(each.name, "")
        return helper.make_graph(self.nodes, name, self.inputs, self.outputs, list(self.initializers.values()))
