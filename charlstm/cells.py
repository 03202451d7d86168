"""One step of every recurrent cell in NumPy: the readable reference, which sampling runs and the torch kernels match.

A cell is a function `state, gates = step(x, state, w, act)`:

x: contribution of the input, x = W_ih u_t + b_ih, with u_t the layer's input.
state: the layer's state after the last character, a tuple whose first array is the output of the layer. The initial
    state is zeros.
w: weights of the layer by name, laid out as in `torch.nn`: one block of H rows per gate.
act: activation of the candidate, tanh or softsign.
gates: the gates of this step by name, for inspection.

Shapes: N sequences, H hidden units, G blocks (gates and candidate), I inputs. `x` is [N, G*H]; every array of a state
and every gate is [N, H]. A step modifies none of its arguments.

In the equations `*` is element-wise and x_k is block k of `x`. `charlstm show cells` prints the docstring of each cell.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from charlstm.matrices import Array, matvec

State = tuple[Array, ...]
Gates = dict[str, Array]
Weights = Mapping[str, Any]
"""Arrays by name. Matrices that a step multiplies may be `QuantizedMatrix`."""
Activation = Callable[[Array], Array]
Step = Callable[[Array, State, Weights, Activation], tuple[State, Gates]]


def rnn(x: Array, state: State, w: Weights, act: Activation) -> tuple[State, Gates]:
    """Elman network, the simple recurrent network: the hidden state feeds back (Elman 1990).

    h_t = act(W_hh h_{t-1} + b_hh + x)
    """
    (h,) = state
    h = act(matvec(w["weight_hh"], h) + w["bias_hh"] + x)
    return (h,), {}


def jordan(x: Array, state: State, w: Weights, act: Activation) -> tuple[State, Gates]:
    """Jordan network: the output feeds back instead of the hidden state (Jordan 1986).

    h_t = act(W_hh y_{t-1} + x)
    y_t = tanh(W_hy h_t + b_hy)
    """
    (y,) = state
    h = act(matvec(w["weight_hh"], y) + x)
    y = np.tanh(matvec(w["weight_hy"], h) + w["bias_hy"])
    return (y,), {"hidden": h}


def lstm(x: Array, state: State, w: Weights, act: Activation) -> tuple[State, Gates]:
    """Long short-term memory with a forget gate (Hochreiter & Schmidhuber 1997; Gers et al. 2000).

    i = sigmoid(W_hi h_{t-1} + b_hi + x_i)      c_t = f * c_{t-1} + i * g
    f = sigmoid(W_hf h_{t-1} + b_hf + x_f)      h_t = o * tanh(c_t)
    g =     act(W_hg h_{t-1} + b_hg + x_g)
    o = sigmoid(W_ho h_{t-1} + b_ho + x_o)
    """
    h, c = state
    a = matvec(w["weight_hh"], h)
    a += w["bias_hh"]
    a += x
    return combine_gates(a, c, w, act)


def lstm_peephole(x: Array, state: State, w: Weights, act: Activation) -> tuple[State, Gates]:
    """LSTM with peepholes: the gates of a unit also read its cell state (Gers & Schmidhuber 2000).

    i = sigmoid(W_hi h_{t-1} + p_i * c_{t-1} + x_i)      c_t = f * c_{t-1} + i * g
    f = sigmoid(W_hf h_{t-1} + p_f * c_{t-1} + x_f)      h_t = o * tanh(c_t)
    g =     act(W_hg h_{t-1} + x_g)
    o = sigmoid(W_ho h_{t-1} + p_o * c_t + x_o)
    """
    h, c = state
    peepholes: Array = w["weight_peephole"]
    p_i, p_f, p_o = np.split(peepholes, 3)
    a_i, a_f, a_g, a_o = split_blocks(matvec(w["weight_hh"], h) + x, 4)
    i, f, g = sigmoid(a_i + p_i * c), sigmoid(a_f + p_f * c), act(a_g)
    c = f * c + i * g
    o = sigmoid(a_o + p_o * c)
    return (read_tanh(o, c, w), c), {"input": i, "forget": f, "candidate": g, "output": o}


def lstm_simple(x: Array, state: State, w: Weights, act: Activation) -> tuple[State, Gates]:
    """LSTM whose gates read only the input: QRNN with ifo-pooling and width 1 (Bradbury et al. 2016).

    i = sigmoid(x_i)      g = act(x_g)        c_t = f * c_{t-1} + i * g
    f = sigmoid(x_f)      o = sigmoid(x_o)    h_t = o * c_t
    """
    _, c = state
    x_i, x_f, x_g, x_o = split_blocks(x, 4)
    i, f, g, o = sigmoid(x_i), sigmoid(x_f), act(x_g), sigmoid(x_o)
    c = f * c + i * g
    return (read_linear(o, c, w), c), {"input": i, "forget": f, "candidate": g, "output": o}


def lstm_norm(x: Array, state: State, w: Weights, act: Activation) -> tuple[State, Gates]:
    """LSTM with layer normalization over the units of a layer (Ba et al. 2016, eqs. 20-22).

    LN(a) = (a - mean(a)) / sqrt(var(a) + 1e-5)
    a = gain_h * LN(W_hh h_{t-1}) + gain_x * LN(x) + b_hh      in four blocks:
    i = sigmoid(a_i)      g = act(a_g)          c_t = f * c_{t-1} + i * g
    f = sigmoid(a_f)      o = sigmoid(a_o)      h_t = o * tanh(gain_c * LN(c_t) + b_c)
    """
    h, c = state
    a = w["gain_hh"] * normalize_rows(matvec(w["weight_hh"], h)) + w["gain_ih"] * normalize_rows(x) + w["bias_hh"]
    (_, c), gates = combine_gates(a, c, w, act)
    return (read_normalized(gates["output"], c, w), c), gates


def mlstm(x: Array, state: State, w: Weights, act: Activation) -> tuple[State, Gates]:
    """Multiplicative LSTM: every input has its own transition matrix (Krause et al. 2016).

    m = x_m * (W_mh h_{t-1})              then the equations of the LSTM, with m for h_{t-1}:
    i = sigmoid(W_im m + x_i)             c_t = f * c_{t-1} + i * g
    f = sigmoid(W_fm m + x_f)             h_t = o * tanh(c_t)
    g =     act(W_gm m + x_g)
    o = sigmoid(W_om m + x_o)
    """
    h, c = state
    gate_rows = 4 * h.shape[1]
    m = x[:, gate_rows:] * matvec(w["weight_hh"][gate_rows:], h)
    (h, c), gates = combine_gates(matvec(w["weight_hh"][:gate_rows], m) + x[:, :gate_rows], c, w, act)
    return (h, c), {**gates, "intermediate": m}


def gru(x: Array, state: State, w: Weights, act: Activation) -> tuple[State, Gates]:
    """Gated recurrent unit of torch and cuDNN: reset gate after the matrix product.

    r = sigmoid(W_hr h_{t-1} + b_hr + x_r)      n   = act(r * (W_hn h_{t-1} + b_hn) + x_n)
    z = sigmoid(W_hz h_{t-1} + b_hz + x_z)      h_t = (1 - z) * n + z * h_{t-1}
    """
    (h,) = state
    x_r, x_z, x_n = split_blocks(x, 3)
    h_r, h_z, h_n = split_blocks(matvec(w["weight_hh"], h) + w["bias_hh"], 3)
    r, z = sigmoid(x_r + h_r), sigmoid(x_z + h_z)
    n = act(x_n + r * h_n)
    h = n + z * (h - n)
    return (h,), {"reset": r, "update": z, "candidate": n}


def gru_cho(x: Array, state: State, w: Weights, act: Activation) -> tuple[State, Gates]:
    """Gated recurrent unit as first published: reset gate before the matrix product (Cho et al. 2014, eqs. 5-8).

    r = sigmoid(W_hr h_{t-1} + x_r)      n   = act(W_hn (r * h_{t-1}) + x_n)
    z = sigmoid(W_hz h_{t-1} + x_z)      h_t = (1 - z) * n + z * h_{t-1}
    """
    (h,) = state
    gate_rows = 2 * h.shape[1]
    r, z = split_blocks(sigmoid(matvec(w["weight_hh"][:gate_rows], h) + x[:, :gate_rows]), 2)
    n = act(matvec(w["weight_hh"][gate_rows:], r * h) + x[:, gate_rows:])
    h = n + z * (h - n)
    return (h,), {"reset": r, "update": z, "candidate": n}


def read_tanh(o: Array, c: Array, w: Weights) -> Array:
    """Return h_t = o * tanh(c_t)."""
    h: Array = o * np.tanh(c)
    return h


def read_linear(o: Array, c: Array, w: Weights) -> Array:
    """Return h_t = o * c_t."""
    return o * c


def read_normalized(o: Array, c: Array, w: Weights) -> Array:
    """Return h_t = o * tanh(gain_c * LN(c_t) + b_c)."""
    h: Array = o * np.tanh(w["gain_c"] * normalize_rows(c) + w["bias_c"])
    return h


class Cell(NamedTuple):
    """A cell: its step, and the names of its state and shapes of its weights."""

    step: Step
    blocks: int  # G, the blocks of H rows in the input weights
    state: tuple[str, ...]  # names of the arrays of a state
    recurrent: Mapping[str, tuple[int, ...]]  # shapes of all weights except the input's, in units of H
    forget_bias: str = ""  # the bias whose second block is a forget gate's, initially 1
    is_bounded: bool = True  # whether the output, and all that the recurrent weights multiply, is between -1 and 1
    read_cell: Callable[[Array, Array, Weights], Array] | None = None  # h_t, from the output gate and the cell state

    def shapes(self, inputs: int, hidden: int) -> dict[str, tuple[int, ...]]:
        """Return the name and shape of every weight of a layer of this cell."""
        recurrent = {name: tuple(units * hidden for units in shape) for name, shape in self.recurrent.items()}
        return {"weight_ih": (self.blocks * hidden, inputs), "bias_ih": (self.blocks * hidden,), **recurrent}


CELLS = {
    "lstm": Cell(
        lstm,
        blocks=4,
        state=("hidden", "cell"),
        recurrent={"weight_hh": (4, 1), "bias_hh": (4,)},
        forget_bias="bias_ih",
        read_cell=read_tanh,
    ),
    "lstm-peephole": Cell(
        lstm_peephole,
        blocks=4,
        state=("hidden", "cell"),
        recurrent={"weight_hh": (4, 1), "weight_peephole": (3,)},
        forget_bias="bias_ih",
        read_cell=read_tanh,
    ),
    "lstm-simple": Cell(
        lstm_simple,
        blocks=4,
        state=("hidden", "cell"),
        recurrent={},
        forget_bias="bias_ih",
        is_bounded=False,
        read_cell=read_linear,
    ),
    "lstm-norm": Cell(
        lstm_norm,
        blocks=4,
        state=("hidden", "cell"),
        recurrent={
            "weight_hh": (4, 1),
            "bias_hh": (4,),
            "gain_ih": (4,),
            "gain_hh": (4,),
            "gain_c": (1,),
            "bias_c": (1,),
        },
        forget_bias="bias_hh",
        read_cell=read_normalized,
    ),
    "mlstm": Cell(
        mlstm,
        blocks=5,
        state=("hidden", "cell"),
        recurrent={"weight_hh": (5, 1)},
        forget_bias="bias_ih",
        is_bounded=False,
        read_cell=read_tanh,
    ),
    "gru": Cell(gru, blocks=3, state=("hidden",), recurrent={"weight_hh": (3, 1), "bias_hh": (3,)}),
    "gru-cho": Cell(gru_cho, blocks=3, state=("hidden",), recurrent={"weight_hh": (3, 1)}),
    "rnn": Cell(rnn, blocks=1, state=("hidden",), recurrent={"weight_hh": (1, 1), "bias_hh": (1,)}),
    "jordan": Cell(
        jordan, blocks=1, state=("output",), recurrent={"weight_hh": (1, 1), "weight_hy": (1, 1), "bias_hy": (1,)}
    ),
}
"""The cells by name. A new one also needs its name in `config.CELL_NAMES` and a kernel in `model/kernels`."""


HALF = np.float32(0.5)


def combine_gates(a: Array, c: Array, w: Weights, act: Activation) -> tuple[State, Gates]:
    """Return the state and gates of an LSTM, given the sums `a` [N, 4*H] under its gates and the cell state."""
    g = act(split_blocks(a, 4)[2])
    i, f, _, o = split_blocks(sigmoid(a), 4)  # one call is faster than three, though a block is unused
    c = f * c + i * g
    return (read_tanh(o, c, w), c), {"input": i, "forget": f, "candidate": g, "output": o}


def split_blocks(a: Array, count: int) -> list[Array]:
    """Split [N, count*H] into `count` arrays [N, H]: views, not copies."""
    width = a.shape[1] // count
    return [a[:, k * width : (k + 1) * width] for k in range(count)]


EPSILON = np.float32(1e-5)
"""Added to the variance in layer normalization, as in `torch.nn.LayerNorm`."""


def normalize_rows(a: Array) -> Array:
    """Shift and scale each row of a [N, M] to mean 0 and variance 1."""
    centered = a - a.mean(1, keepdims=True)
    normalized: Array = centered / np.sqrt(np.square(centered).mean(1, keepdims=True) + EPSILON)
    return normalized


def sigmoid(a: Array) -> Array:
    """Return 1 / (1 + e^-a), computed with tanh, which does not overflow."""
    s: Array = a * HALF
    np.tanh(s, out=s)
    s *= HALF
    s += HALF
    return s


def softsign(a: Array) -> Array:
    """Return a / (1 + |a|) (Bergstra et al. 2009): bounded by -1 and 1 like tanh, but saturates more slowly."""
    s: Array = a / (1 + np.abs(a))
    return s


ACTIVATIONS: dict[str, Activation] = {"tanh": np.tanh, "softsign": softsign}
