"""One step of every recurrent cell as nodes of an ONNX graph. The equations are those of `charlstm.cells`.

A cell is a function `state = step(x, state, w, act)` as there, of values of a graph: x [N, G*H], states [N, H].
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from charlstm.export.graph import Graph, GraphValue
from charlstm.matrices import Array

ValueState = tuple[GraphValue, ...]
ValueActivation = Callable[[GraphValue], GraphValue]


class LayerValues:
    """The weights of a layer as values of a graph; a part of a weight is stored as a weight of its own.

    weights: the arrays by their names in `Cell.shapes`.
    prefix: before these names in the file.
    """

    def __init__(self, graph: Graph, weights: Mapping[str, Array], prefix: str) -> None:
        self.graph, self.weights, self.prefix = graph, weights, prefix

    def __getitem__(self, name: str) -> GraphValue:
        return self.graph.weight(f"{self.prefix}{name}", self.weights[name])

    def part(self, name: str, first: int, stop: int, of: int) -> GraphValue:
        """Return the blocks of rows from `first` to before `stop`, out of `of`."""
        block = len(self.weights[name]) // of
        rows = self.weights[name][first * block : stop * block]
        return self.graph.weight(f"{self.prefix}{name}.{first}-{stop}", rows)


NodeStep = Callable[[GraphValue, ValueState, LayerValues, ValueActivation], ValueState]


def add_rnn(x: GraphValue, state: ValueState, w: LayerValues, act: ValueActivation) -> ValueState:
    return (act(state[0].linear(w["weight_hh"], w["bias_hh"]) + x),)


def add_jordan(x: GraphValue, state: ValueState, w: LayerValues, act: ValueActivation) -> ValueState:
    hidden = act(state[0].linear(w["weight_hh"]) + x)
    return (hidden.linear(w["weight_hy"], w["bias_hy"]).tanh(),)


def add_lstm(x: GraphValue, state: ValueState, w: LayerValues, act: ValueActivation) -> ValueState:
    h, c = state
    return combine_gate_values((h.linear(w["weight_hh"], w["bias_hh"]) + x).split(4), c, act)


def add_lstm_peephole(x: GraphValue, state: ValueState, w: LayerValues, act: ValueActivation) -> ValueState:
    h, c = state
    p_i, p_f, p_o = (w.part("weight_peephole", k, k + 1, of=3) for k in range(3))
    a_i, a_f, a_g, a_o = (h.linear(w["weight_hh"]) + x).split(4)
    c = (a_f + p_f * c).sigmoid() * c + (a_i + p_i * c).sigmoid() * act(a_g)
    return (a_o + p_o * c).sigmoid() * c.tanh(), c


def add_lstm_simple(x: GraphValue, state: ValueState, w: LayerValues, act: ValueActivation) -> ValueState:
    x_i, x_f, x_g, x_o = x.split(4)
    c = x_f.sigmoid() * state[1] + x_i.sigmoid() * act(x_g)
    return x_o.sigmoid() * c, c


def add_lstm_norm(x: GraphValue, state: ValueState, w: LayerValues, act: ValueActivation) -> ValueState:
    h, c = state
    a = h.linear(w["weight_hh"]).normalize(w["gain_hh"]) + x.normalize(w["gain_ih"]) + w["bias_hh"]
    a_i, a_f, a_g, a_o = a.split(4)
    c = a_f.sigmoid() * c + a_i.sigmoid() * act(a_g)
    return a_o.sigmoid() * c.normalize(w["gain_c"], w["bias_c"]).tanh(), c


def add_mlstm(x: GraphValue, state: ValueState, w: LayerValues, act: ValueActivation) -> ValueState:
    h, c = state
    *x_gates, x_m = x.split(5)
    m = x_m * h.linear(w.part("weight_hh", 4, 5, of=5))
    h_gates = m.linear(w.part("weight_hh", 0, 4, of=5)).split(4)
    return combine_gate_values([a + b for a, b in zip(h_gates, x_gates, strict=True)], c, act)


def add_gru(x: GraphValue, state: ValueState, w: LayerValues, act: ValueActivation) -> ValueState:
    (h,) = state
    x_r, x_z, x_n = x.split(3)
    h_r, h_z, h_n = h.linear(w["weight_hh"], w["bias_hh"]).split(3)
    r, z = (x_r + h_r).sigmoid(), (x_z + h_z).sigmoid()
    n = act(x_n + r * h_n)
    return (n + z * (h - n),)


def add_gru_cho(x: GraphValue, state: ValueState, w: LayerValues, act: ValueActivation) -> ValueState:
    (h,) = state
    x_r, x_z, x_n = x.split(3)
    h_r, h_z = h.linear(w.part("weight_hh", 0, 2, of=3)).split(2)
    r, z = (x_r + h_r).sigmoid(), (x_z + h_z).sigmoid()
    n = act((r * h).linear(w.part("weight_hh", 2, 3, of=3)) + x_n)
    return (n + z * (h - n),)


def combine_gate_values(blocks: Sequence[GraphValue], c: GraphValue, act: ValueActivation) -> ValueState:
    """Return the state of an LSTM, given the sums under its gates and the cell state."""
    a_i, a_f, a_g, a_o = blocks
    c = a_f.sigmoid() * c + a_i.sigmoid() * act(a_g)
    return a_o.sigmoid() * c.tanh(), c


NODE_STEPS: dict[str, NodeStep] = {
    "lstm": add_lstm,
    "lstm-peephole": add_lstm_peephole,
    "lstm-simple": add_lstm_simple,
    "lstm-norm": add_lstm_norm,
    "mlstm": add_mlstm,
    "gru": add_gru,
    "gru-cho": add_gru_cho,
    "rnn": add_rnn,
    "jordan": add_jordan,
}
"""The cells by name, as in `charlstm.cells.CELLS`."""

NODE_ACTIVATIONS: dict[str, ValueActivation] = {
    "tanh": GraphValue.tanh,
    "softsign": lambda a: a.apply("Softsign"),
}
