"""The element-wise part of a step of the LSTM and the GRU, compiled by numba into one pass over memory.

The equations are those of `lstm.py` and `gru.py`; on a CPU this replaces their tensor operations. Each tensor operation
is fast, but a step has ten of them, and in narrow layers and small batches calling them costs more than the matrix
products. Arrays are read and written in their own type; the arithmetic is in float32.
"""

# mypy: disable-error-code=untyped-decorator

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic, overload
from torch import Tensor, bfloat16, uint16

from charlstm.storage.jit import compile_cached, compile_inline

f32 = np.float32
NumbaArray = Any
"""A NumPy array of float32, or of uint16 that holds the bits of bfloat16, a type that NumPy lacks."""


def to_numba_array(a: Tensor) -> NumbaArray:
    """Return the tensor's memory as a NumPy array, without a copy."""
    a = a.detach()
    return (a.view(uint16) if a.dtype == bfloat16 else a).numpy()


@intrinsic
def float_of_bits(context: Any, bits: Any) -> Any:
    """Reinterpret 32 bits as a float32."""
    return types.float32(types.uint32), lambda _context, builder, _signature, arguments: builder.bitcast(
        arguments[0], ir.FloatType()
    )


@intrinsic
def bits_of_float(context: Any, number: Any) -> Any:
    """Reinterpret a float32 as 32 bits."""
    return types.uint32(types.float32), lambda _context, builder, _signature, arguments: builder.bitcast(
        arguments[0], ir.IntType(32)
    )


def load_float(a: NumbaArray, k: int) -> Any:
    """Return a[k] as float32."""


@overload(load_float, inline="always", strict=False)
def _load_float(a: Any, k: Any) -> Any:
    if a.dtype == types.uint16:
        return lambda a, k: float_of_bits(np.uint32(a[k]) << np.uint32(16))
    return lambda a, k: a[k]


def store_float(a: NumbaArray, k: int, number: Any) -> None:
    """Set a[k] to the number, rounded to the nearest, ties to even."""


@overload(store_float, inline="always", strict=False)
def _store_float(a: Any, k: Any, number: Any) -> Any:
    if a.dtype == types.uint16:

        def rounded(a: Any, k: Any, number: Any) -> None:
            bits = bits_of_float(number)
            a[k] = np.uint16((bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16))

        return rounded

    def exact(a: Any, k: Any, number: Any) -> None:
        a[k] = number

    return exact


@numba.njit(inline="always")
def exp_minus(x: Any) -> Any:
    """Return exp(-x) with relative error 3e-7. x is clamped to [-87, 87]; NaN stays NaN.

    It uses only arithmetic for which there are vector instructions. exp(-x) = 2^n exp(r), with n the integer nearest to
    -x / ln 2 and |r| <= ln(2)/2, for which seven terms of the series are enough. Adding 1.5 * 2^23 leaves n in the last
    bits of a float32, and the float32 with the bits (n + 127) << 23 is 2^n.
    """
    x = f32(87) if x > f32(87) else x
    x = f32(-87) if x < f32(-87) else x
    shifted = x * f32(-1.4426950408889634) + f32(12582912)
    n = shifted - f32(12582912)
    r = (-x - n * f32(0.693359375)) + n * f32(2.12194440e-4)  # ln 2 in two parts; the product with the first is exact
    e = r * f32(1 / 720) + f32(1 / 120)
    e = e * r + f32(1 / 24)
    e = e * r + f32(1 / 6)
    e = e * r + f32(0.5)
    e = e * r + f32(1)
    e = e * r + f32(1)
    power = float_of_bits((bits_of_float(shifted) << np.uint32(23)) + np.uint32(127 << 23))
    return e * power


@numba.njit(inline="always")
def fast_sigmoid(x: Any) -> Any:
    return f32(1) / (f32(1) + exp_minus(x))


@numba.njit(inline="always")
def fast_tanh(x: Any) -> Any:
    return f32(2) * fast_sigmoid(f32(2) * x) - f32(1)


# Functions of one row: its blocks are separate arguments, so that the compiler sees that they do not overlap.


@compile_inline
def lstm_row(
    a_i: NumbaArray, a_f: NumbaArray, a_g: NumbaArray, a_o: NumbaArray,
    c: NumbaArray, tanh_c: NumbaArray, h: NumbaArray, cell_state: NumbaArray,
) -> None:  # fmt: skip
    for k in range(len(cell_state)):
        i, f = fast_sigmoid(load_float(a_i, k)), fast_sigmoid(load_float(a_f, k))
        g, o = fast_tanh(load_float(a_g, k)), fast_sigmoid(load_float(a_o, k))
        c_k = f * cell_state[k] + i * g
        tanh_c_k = fast_tanh(c_k)
        store_float(a_i, k, i)
        store_float(a_f, k, f)
        store_float(a_g, k, g)
        store_float(a_o, k, o)
        cell_state[k] = c_k
        store_float(c, k, c_k)
        store_float(tanh_c, k, tanh_c_k)
        store_float(h, k, o * tanh_c_k)


@compile_cached
def fused_lstm(a: NumbaArray, c: NumbaArray, tanh_c: NumbaArray, h: NumbaArray, cell_state: NumbaArray) -> None:
    """Compute `lstm.apply_gates`."""
    n = cell_state.shape[1]
    for b in range(len(cell_state)):
        x = a[b]
        lstm_row(x[:n], x[n : 2 * n], x[2 * n : 3 * n], x[3 * n :], c[b], tanh_c[b], h[b], cell_state[b])


@compile_inline
def lstm_row_backward(
    dy: NumbaArray, gate_i: NumbaArray, gate_f: NumbaArray, gate_g: NumbaArray, gate_o: NumbaArray,
    c_prev: NumbaArray, tanh_c: NumbaArray,
    da_i: NumbaArray, da_f: NumbaArray, da_g: NumbaArray, da_o: NumbaArray, dh: NumbaArray, dc: NumbaArray,
) -> None:  # fmt: skip
    for k in range(len(dc)):
        i, f, g = load_float(gate_i, k), load_float(gate_f, k), load_float(gate_g, k)
        o, t = load_float(gate_o, k), load_float(tanh_c, k)
        dh_k = load_float(dh, k) + load_float(dy, k)
        dc_k = dc[k] + dh_k * o * (f32(1) - t * t)
        store_float(da_i, k, dc_k * g * i * (f32(1) - i))
        store_float(da_f, k, dc_k * load_float(c_prev, k) * f * (f32(1) - f))
        store_float(da_g, k, dc_k * i * (f32(1) - g * g))
        store_float(da_o, k, dh_k * t * o * (f32(1) - o))
        dc[k] = dc_k * f


@compile_cached
def fused_lstm_backward(
    dy: NumbaArray, gates: NumbaArray, c_prev: NumbaArray, tanh_c: NumbaArray,
    da: NumbaArray, dh: NumbaArray, dc: NumbaArray,
) -> None:  # fmt: skip
    """Compute `lstm.apply_gates_backward`, except that `dh` stays as it is."""
    n = dc.shape[1]
    for b in range(len(dc)):
        x, d = gates[b], da[b]
        lstm_row_backward(
            dy[b], x[:n], x[n : 2 * n], x[2 * n : 3 * n], x[3 * n :], c_prev[b], tanh_c[b],
            d[:n], d[n : 2 * n], d[2 * n : 3 * n], d[3 * n :], dh[b], dc[b],
        )  # fmt: skip


@compile_inline
def gru_row(
    x_r: NumbaArray, x_z: NumbaArray, x_n: NumbaArray, m_r: NumbaArray, m_z: NumbaArray, m_n: NumbaArray,
    saved_m_n: NumbaArray, h: NumbaArray, hidden: NumbaArray,
) -> None:  # fmt: skip
    for k in range(len(hidden)):
        product = load_float(m_n, k)
        r = fast_sigmoid(load_float(x_r, k) + load_float(m_r, k))
        z = fast_sigmoid(load_float(x_z, k) + load_float(m_z, k))
        n = fast_tanh(load_float(x_n, k) + r * product)
        h_k = n + z * (hidden[k] - n)
        store_float(x_r, k, r)
        store_float(x_z, k, z)
        store_float(x_n, k, n)
        store_float(saved_m_n, k, product)
        store_float(h, k, h_k)
        hidden[k] = h_k


@compile_cached
def fused_gru(x: NumbaArray, m_n: NumbaArray, h: NumbaArray, m: NumbaArray, hidden: NumbaArray) -> None:
    """Compute `gru.apply_gates`."""
    n = hidden.shape[1]
    for b in range(len(hidden)):
        x_b, m_b = x[b], m[b]
        gru_row(
            x_b[:n], x_b[n : 2 * n], x_b[2 * n :], m_b[:n], m_b[n : 2 * n], m_b[2 * n :], m_n[b], h[b], hidden[b]
        )  # fmt: skip


@compile_inline
def gru_row_backward(
    dy: NumbaArray, gate_r: NumbaArray, gate_z: NumbaArray, gate_n: NumbaArray, h_prev: NumbaArray, m_n: NumbaArray,
    dm_r: NumbaArray, dm_z: NumbaArray, dm_n: NumbaArray, da_n: NumbaArray, dh: NumbaArray,
) -> None:  # fmt: skip
    for k in range(len(dh)):
        r, z, n = load_float(gate_r, k), load_float(gate_z, k), load_float(gate_n, k)
        dh_k = dh[k] + load_float(dy, k)
        da_n_k = dh_k * (f32(1) - z) * (f32(1) - n * n)
        store_float(dm_r, k, da_n_k * load_float(m_n, k) * r * (f32(1) - r))
        store_float(dm_z, k, dh_k * (load_float(h_prev, k) - n) * z * (f32(1) - z))
        store_float(dm_n, k, da_n_k * r)
        store_float(da_n, k, da_n_k)
        dh[k] = dh_k * z


@compile_cached
def fused_gru_backward(
    dy: NumbaArray, gates: NumbaArray, h_prev: NumbaArray, m_n: NumbaArray,
    dm: NumbaArray, da_n: NumbaArray, dh: NumbaArray,
) -> None:  # fmt: skip
    """Compute `gru.apply_gates_backward`."""
    n = dh.shape[1]
    for b in range(len(dh)):
        x, d = gates[b], dm[b]
        gru_row_backward(
            dy[b], x[:n], x[n : 2 * n], x[2 * n :], h_prev[b], m_n[b], d[:n], d[n : 2 * n], d[2 * n :], da_n[b], dh[b]
        )  # fmt: skip
