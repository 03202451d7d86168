"""One step of every recurrent cell, as the equations on the page. This is what the torch kernels must agree with.

A cell takes what the layer's input contributes (`x` = W_ih x_t + b_ih), the layer's state after the last
character, its weights and the activation of its candidate, and returns the state after this one with the gates
it passed through. The first entry of a state is the layer's output. Nothing is changed in place.

Shapes: N sequences, H hidden units, G blocks, I inputs. `x` is [N, G*H]; every state and gate is [N, H].
In the equations `*` is element by element, x_k is block k of `x`, and `act` is the activation: tanh unless
softsign was asked for. Weights are laid out as in torch.nn: one block of H rows for each gate.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
State = tuple[Array, ...]
Gates = dict[str, Array]
Weights = Mapping[str, Array]
Activation = Callable[[Array], Array]
Step = Callable[[Array, State, Weights, Activation], tuple[State, Gates]]


def rnn(x: Array, state: State, w: Weights, act: Activation) -> tuple[State, Gates]:
    """Simple recurrent network: the hidden state feeds back (Elman 1990).

    h_t = act(W_hh h_{t-1} + b_hh + x)
    """
    (h,) = state
    h = act(matvec(w["weight_hh"], h) + w["bias_hh"] + x)
    return (h,), {}


def jordan(x: Array, state: State, w: Weights, act: Activation) -> tuple[State, Gates]:
    """Jordan network: the layer's output feeds back in place of the hidden state (Jordan 1986).

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
    return combine_gates(a, c, act)


def lstm_peephole(x: Array, state: State, w: Weights, act: Activation) -> tuple[State, Gates]:
    """LSTM whose gates also see the cell state, each unit its own (Gers & Schmidhuber 2000; the rest as in `lstm`).

    i = sigmoid(W_hi h_{t-1} + p_i * c_{t-1} + x_i)      c_t = f * c_{t-1} + i * g
    f = sigmoid(W_hf h_{t-1} + p_f * c_{t-1} + x_f)      h_t = o * tanh(c_t)
    g =     act(W_hg h_{t-1} + x_g)
    o = sigmoid(W_ho h_{t-1} + p_o * c_t + x_o)
    """
    h, c = state
    p_i, p_f, p_o = np.split(w["weight_peephole"], 3)
    a_i, a_f, a_g, a_o = split_blocks(matvec(w["weight_hh"], h) + x, 4)
    i, f, g = sigmoid(a_i + p_i * c), sigmoid(a_f + p_f * c), act(a_g)
    c = f * c + i * g
    o = sigmoid(a_o + p_o * c)
    h = o * np.tanh(c)
    return (h, c), {"input": i, "forget": f, "candidate": g, "output": o}


def lstm_simple(x: Array, state: State, w: Weights, act: Activation) -> tuple[State, Gates]:
    """LSTM whose gates see the input only: the cell state is the memory (QRNN with ifo-pooling, Bradbury et al. 2016).

    No weight is multiplied with the past, so that a sequence is a scan; SRU and minLSTM (Feng et al. 2024) are its kin.

    i = sigmoid(x_i)      g = act(x_g)        c_t = f * c_{t-1} + i * g
    f = sigmoid(x_f)      o = sigmoid(x_o)    h_t = o * c_t
    """
    _, c = state
    x_i, x_f, x_g, x_o = split_blocks(x, 4)
    i, f, g, o = sigmoid(x_i), sigmoid(x_f), act(x_g), sigmoid(x_o)
    c = f * c + i * g
    return (o * c, c), {"input": i, "forget": f, "candidate": g, "output": o}


def lstm_norm(x: Array, state: State, w: Weights, act: Activation) -> tuple[State, Gates]:
    """LSTM with layer normalisation (Ba et al. 2016, eqs. 20-22): LN(a) has mean 0 and variance 1 over its units.

    a = gain_h * LN(W_hh h_{t-1}) + gain_x * LN(x) + b_hh      in four blocks:
    i = sigmoid(a_i)      g = act(a_g)          c_t = f * c_{t-1} + i * g
    f = sigmoid(a_f)      o = sigmoid(a_o)      h_t = o * tanh(gain_c * LN(c_t) + b_c)
    """
    h, c = state
    a = w["gain_hh"] * normalize_rows(matvec(w["weight_hh"], h)) + w["gain_ih"] * normalize_rows(x) + w["bias_hh"]
    (_, c), gates = combine_gates(a, c, act)
    h = gates["output"] * np.tanh(w["gain_c"] * normalize_rows(c) + w["bias_c"])
    return (h, c), gates


def mlstm(x: Array, state: State, w: Weights, act: Activation) -> tuple[State, Gates]:
    """Multiplicative LSTM: each input has a transition of its own (m: Krause et al. 2016; the rest as in `lstm`).

    m = x_m * (W_mh h_{t-1})              then the LSTM's equations with m in place of h_{t-1}:
    i = sigmoid(W_im m + x_i)             c_t = f * c_{t-1} + i * g
    f = sigmoid(W_fm m + x_f)             h_t = o * tanh(c_t)
    g =     act(W_gm m + x_g)
    o = sigmoid(W_om m + x_o)
    """
    h, c = state
    gates = 4 * h.shape[1]
    m = x[:, gates:] * matvec(w["weight_hh"][gates:], h)
    (h, c), passed = combine_gates(matvec(w["weight_hh"][:gates], m) + x[:, :gates], c, act)
    return (h, c), {**passed, "intermediate": m}


def gru(x: Array, state: State, w: Weights, act: Activation) -> tuple[State, Gates]:
    """Gated recurrent unit as torch and cuDNN have it: the reset gate after the product.

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
    """Gated recurrent unit as first written: the reset gate before the product (Cho et al. 2014, eqs. 5-8).

    r = sigmoid(W_hr h_{t-1} + x_r)      n   = act(W_hn (r * h_{t-1}) + x_n)
    z = sigmoid(W_hz h_{t-1} + x_z)      h_t = (1 - z) * n + z * h_{t-1}
    """
    (h,) = state
    gates = 2 * h.shape[1]
    r, z = split_blocks(sigmoid(matvec(w["weight_hh"][:gates], h) + x[:, :gates]), 2)
    n = act(matvec(w["weight_hh"][gates:], r * h) + x[:, gates:])
    h = n + z * (h - n)
    return (h,), {"reset": r, "update": z, "candidate": n}


class Cell(NamedTuple):
    """What a layer needs to know of its cell."""

    step: Step
    blocks: int  # of H rows in its input weights
    state_arrays: int  # arrays in its state
    recurrent: Mapping[str, tuple[int, ...]]  # the weights beside those of the input, shapes in units of H

    def shapes(self, inputs: int, hidden: int) -> dict[str, tuple[int, ...]]:
        """Name and shape of every weight of a layer of this cell."""
        own = {name: tuple(units * hidden for units in shape) for name, shape in self.recurrent.items()}
        return {"weight_ih": (self.blocks * hidden, inputs), "bias_ih": (self.blocks * hidden,), **own}


CELLS = {
    "lstm": Cell(lstm, 4, 2, {"weight_hh": (4, 1), "bias_hh": (4,)}),
    "lstm-peephole": Cell(lstm_peephole, 4, 2, {"weight_hh": (4, 1), "weight_peephole": (3,)}),
    "lstm-simple": Cell(lstm_simple, 4, 2, {}),
    "lstm-norm": Cell(
        lstm_norm,
        4,
        2,
        {"weight_hh": (4, 1), "bias_hh": (4,), "gain_ih": (4,), "gain_hh": (4,), "gain_c": (1,), "bias_c": (1,)},
    ),
    "mlstm": Cell(mlstm, 5, 2, {"weight_hh": (5, 1)}),
    "gru": Cell(gru, 3, 1, {"weight_hh": (3, 1), "bias_hh": (3,)}),
    "gru-cho": Cell(gru_cho, 3, 1, {"weight_hh": (3, 1)}),
    "rnn": Cell(rnn, 1, 1, {"weight_hh": (1, 1), "bias_hh": (1,)}),
    "jordan": Cell(jordan, 1, 1, {"weight_hh": (1, 1), "weight_hy": (1, 1), "bias_hy": (1,)}),
}


HALF = np.float32(0.5)


def combine_gates(a: Array, c: Array, act: Activation) -> tuple[State, Gates]:
    """What LSTMs do once the four gates have been added up in `a` [N, 4*H]."""
    g = act(split_blocks(a, 4)[2])
    i, f, _, o = split_blocks(sigmoid(a), 4)  # all at once: a call costs more than the block that is not used
    c = f * c + i * g
    h = o * np.tanh(c)
    return (h, c), {"input": i, "forget": f, "candidate": g, "output": o}


MAX_ROWWISE = 64
"""Rows up to which each is multiplied by itself: `charlstm.sampling.generate.LARGEST_BATCH`."""


def matvec(matrix: Array, x: Array) -> Array:
    """`matrix @ x` for each of N vectors: [R, C] and [N, C] give [N, R]. All weights are reached through here.

    Up to as many rows as samples are drawn at once, one matrix-vector product a row: what a row comes to does not
    depend on its neighbours, as it would, in the last bits, if BLAS multiplied them all at once. Up to some ten rows it
    is the faster way, too.
    """
    if len(x) > MAX_ROWWISE:
        return np.asarray(x @ matrix.T, np.float32)
    y: Array = np.matmul(matrix, x[:, :, None])[:, :, 0]
    return y


def split_blocks(a: Array, count: int) -> list[Array]:
    """[N, count*H] cut into `count` arrays [N, H]; views, not copies."""
    width = a.shape[1] // count
    return [a[:, k * width : (k + 1) * width] for k in range(count)]


EPSILON = np.float32(1e-5)


def normalize_rows(a: Array) -> Array:
    """Each row of a [N, M] with mean 0 and variance 1."""
    centred = a - a.mean(1, keepdims=True)
    scaled: Array = centred / np.sqrt(np.square(centred).mean(1, keepdims=True) + EPSILON)
    return scaled


def sigmoid(a: Array) -> Array:
    """1 / (1 + e^-a), by way of tanh, which does not overflow."""
    s: Array = a * HALF
    np.tanh(s, out=s)
    s *= HALF
    s += HALF
    return s


def softsign(a: Array) -> Array:
    """a / (1 + |a|) (Bergstra et al. 2009): like tanh between -1 and 1, but nearing them slowly."""
    s: Array = a / (1 + np.abs(a))
    return s


ACTIVATIONS: dict[str, Activation] = {"tanh": np.tanh, "softsign": softsign}
