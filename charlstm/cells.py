"""One step of every recurrent cell, as the equations on the page. This is what the torch kernels must agree with.

A cell takes what the layer's input contributes (`x` = W_ih x_t + b_ih), the layer's state after the last
character, and its weights, and returns the state after this one with the gates it passed through. The first
entry of a state is h_t, the layer's output. Nothing is changed in place.

Shapes: N sequences, H hidden units, G gates, I inputs. `x` is [N, G*H]; every state and gate is [N, H].
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
State = tuple[Array, ...]
Gates = dict[str, Array]


class Weights(NamedTuple):
    """The parameters of one layer, laid out as in torch.nn: one block of H rows for each gate."""

    ih: Array  # [G*H, I]
    hh: Array  # [G*H, H]
    b_ih: Array  # [G*H]
    b_hh: Array  # [G*H]


def lstm(x: Array, state: State, w: Weights) -> tuple[State, Gates]:
    """Long short-term memory with a forget gate (Hochreiter & Schmidhuber 1997; Gers et al. 2000, eqs. 3-8).

    i = sigmoid(W_hi h + x_i)      c_t = f * c_{t-1} + i * g
    f = sigmoid(W_hf h + x_f)      h_t = o * tanh(c_t)
    g = tanh(W_hg h + x_g)
    o = sigmoid(W_ho h + x_o)
    """
    h, c = state
    a = product(w.hh, h)
    a += w.b_hh
    a += x
    g = np.tanh(blocks(a, 4)[2])
    i, f, _, o = blocks(sigmoid(a), 4)  # all at once: a call costs more than the block that is not used
    c = f * c + i * g
    h = o * np.tanh(c)
    return (h, c), {"input": i, "forget": f, "candidate": g, "output": o}


def gru(x: Array, state: State, w: Weights) -> tuple[State, Gates]:
    """Gated recurrent unit (Cho et al. 2014, eqs. 5-8), the reset gate after the product as in cuDNN and torch.

    r = sigmoid(W_hr h + x_r)      n   = tanh(r * (W_hn h) + x_n)
    z = sigmoid(W_hz h + x_z)      h_t = (1 - z) * n + z * h_{t-1}
    """
    (h,) = state
    x_r, x_z, x_n = blocks(x, 3)
    h_r, h_z, h_n = blocks(product(w.hh, h) + w.b_hh, 3)
    r, z = sigmoid(x_r + h_r), sigmoid(x_z + h_z)
    n = np.tanh(x_n + r * h_n)
    h = n + z * (h - n)
    return (h,), {"reset": r, "update": z, "candidate": n}


def rnn(x: Array, state: State, w: Weights) -> tuple[State, Gates]:
    """The simple recurrent network (Elman 1990): h_t = tanh(W_hh h_{t-1} + x)."""
    (h,) = state
    h = np.tanh(product(w.hh, h) + w.b_hh + x)
    return (h,), {}


class Cell(NamedTuple):
    """What a layer needs to know of its cell."""

    step: Callable[[Array, State, Weights], tuple[State, Gates]]
    gates: int  # blocks of rows in its weights
    states: int  # arrays in its state


CELLS = {
    "lstm": Cell(lstm, gates=4, states=2),
    "gru": Cell(gru, gates=3, states=1),
    "rnn": Cell(rnn, gates=1, states=1),
}


HALF = np.float32(0.5)


def product(matrix: Array, x: Array) -> Array:
    """`matrix @ x` for each of N vectors: [R, C] and [N, C] give [N, R]. All weights are reached through here."""
    y: Array = x @ matrix.T
    return y


def blocks(a: Array, count: int) -> list[Array]:
    """[N, count*H] cut into `count` arrays [N, H]; views, not copies."""
    width = a.shape[1] // count
    return [a[:, k * width : (k + 1) * width] for k in range(count)]


def sigmoid(a: Array) -> Array:
    """1 / (1 + e^-a), by way of tanh, which does not overflow."""
    s: Array = a * HALF
    np.tanh(s, out=s)
    s *= HALF
    s += HALF
    return s
