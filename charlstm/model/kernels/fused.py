"""What an LSTM and a GRU do between two products, in one pass over the memory; compiled by numba where there is one.

The equations are those of `lstm.py` and `gru.py`, whose tensor operations this stands in for on a CPU. Each of theirs
is quick, but there are ten a step, and in narrow layers and small batches calling them costs more than the products.
Numbers are read and written in the arrays' type and calculated in float32.
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

F = np.float32
Array = Any  # float32, or uint16 with the bits of bfloat16, which NumPy does not know


def to_numba_array(a: Tensor) -> Array:
    """The tensor's memory."""
    a = a.detach()
    return (a.view(uint16) if a.dtype == bfloat16 else a).numpy()


def compile_cached(function: Any) -> Any:
    """Compiled when it is first called, and kept on disk for the next process where a folder can be written to."""
    try:
        return numba.njit(cache=True, **numba_options("contract"))(function)
    except RuntimeError:  # numba's for: no such folder
        return numba.njit(**numba_options("contract"))(function)


def compile_inline(function: Any, freedom: str = "contract") -> Any:
    """Compiled into what calls it, always.

    As a function of its own it would be there twice, optimised otherwise each time, and the process that compiles it
    would run another one, to the last bit, than those that find it on the disk.
    """
    return numba.njit(forceinline=True, **numba_options(freedom))(function)


def numba_options(freedom: str) -> dict[str, Any]:
    """`freedom` is what LLVM may do to floats' arithmetic: as a rule, multiply and add without rounding in between."""
    return {"nogil": True, "fastmath": {freedom}, "error_model": "numpy"}


@intrinsic
def float_of_bits(context: Any, bits: Any) -> Any:
    """The float32 of these 32 bits."""
    return types.float32(types.uint32), lambda _context, builder, _signature, arguments: builder.bitcast(
        arguments[0], ir.FloatType()
    )


@intrinsic
def bits_of_float(context: Any, number: Any) -> Any:
    """The 32 bits of a float32."""
    return types.uint32(types.float32), lambda _context, builder, _signature, arguments: builder.bitcast(
        arguments[0], ir.IntType(32)
    )


def get(a: Array, k: int) -> Any:
    """a[k] as float32."""


@overload(get, inline="always", strict=False)
def _get(a: Any, k: Any) -> Any:
    if a.dtype == types.uint16:
        return lambda a, k: float_of_bits(np.uint32(a[k]) << np.uint32(16))
    return lambda a, k: a[k]


def put(a: Array, k: int, number: Any) -> None:
    """a[k] = number, to the nearest, of two to the even one."""


@overload(put, inline="always", strict=False)
def _put(a: Any, k: Any, number: Any) -> Any:
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
    """exp(-x) to 3e-7 of itself for |x| <= 87, and beyond as there; in arithmetic that vector instructions have.

    exp(-x) = 2^n exp(r), with n the whole number nearest to -x / ln 2 and |r| <= ln(2)/2, where seven terms of the
    series do. Adding 1.5 * 2^23 leaves n in the last bits of a float32; a float32 of the bits (n + 127) << 23 is 2^n.
    """
    x = F(87) if x > F(87) else x  # and what is no number stays none
    x = F(-87) if x < F(-87) else x
    shifted = x * F(-1.4426950408889634) + F(12582912)
    n = shifted - F(12582912)
    r = (-x - n * F(0.693359375)) + n * F(2.12194440e-4)  # ln 2, in two parts: the first times n is exact
    e = r * F(1 / 720) + F(1 / 120)
    e = e * r + F(1 / 24)
    e = e * r + F(1 / 6)
    e = e * r + F(0.5)
    e = e * r + F(1)
    e = e * r + F(1)
    power = float_of_bits((bits_of_float(shifted) << np.uint32(23)) + np.uint32(127 << 23))
    return e * power


@numba.njit(inline="always")
def fast_sigmoid(x: Any) -> Any:
    return F(1) / (F(1) + exp_minus(x))


@numba.njit(inline="always")
def fast_tanh(x: Any) -> Any:
    return F(2) * fast_sigmoid(F(2) * x) - F(1)


# One row each: the blocks of a row are arrays of their own, and the compiler can see that they do not overlap.


@compile_inline
def lstm_row(
    a_i: Array,
    a_f: Array,
    a_g: Array,
    a_o: Array,
    c: Array,
    tanh_c: Array,
    h: Array,
    carry: Array,
) -> None:
    for k in range(len(carry)):
        i, f, g, o = (
            fast_sigmoid(get(a_i, k)),
            fast_sigmoid(get(a_f, k)),
            fast_tanh(get(a_g, k)),
            fast_sigmoid(get(a_o, k)),
        )
        after = f * carry[k] + i * g
        bounded = fast_tanh(after)
        put(a_i, k, i)
        put(a_f, k, f)
        put(a_g, k, g)
        put(a_o, k, o)
        carry[k] = after
        put(c, k, after)
        put(tanh_c, k, bounded)
        put(h, k, o * bounded)


@compile_cached
def fused_lstm(a: Array, c: Array, tanh_c: Array, h: Array, carry: Array) -> None:
    """From a_t [B, 4*H]: turns it into the gates and `carry` from c_{t-1} into c_t, and fills c_t, tanh(c_t), h_t."""
    n = carry.shape[1]
    for b in range(len(carry)):
        x = a[b]
        lstm_row(x[:n], x[n : 2 * n], x[2 * n : 3 * n], x[3 * n :], c[b], tanh_c[b], h[b], carry[b])


@compile_inline
def lstm_row_backward(
    dy: Array, gate_i: Array, gate_f: Array, gate_g: Array, gate_o: Array, before: Array, tanh_c: Array,
    da_i: Array, da_f: Array, da_g: Array, da_o: Array, dh: Array, dc: Array,
) -> None:  # fmt: skip
    for k in range(len(dc)):
        i, f, g, o, t = get(gate_i, k), get(gate_f, k), get(gate_g, k), get(gate_o, k), get(tanh_c, k)
        error_h = get(dh, k) + get(dy, k)
        error_c = dc[k] + error_h * o * (F(1) - t * t)
        put(da_i, k, error_c * g * i * (F(1) - i))
        put(da_f, k, error_c * get(before, k) * f * (F(1) - f))
        put(da_g, k, error_c * i * (F(1) - g * g))
        put(da_o, k, error_h * t * o * (F(1) - o))
        dc[k] = error_c * f


@compile_cached
def fused_lstm_backward(
    dy: Array,
    gates: Array,
    before: Array,
    tanh_c: Array,
    da: Array,
    dh: Array,
    dc: Array,
) -> None:
    """From the errors on h_t (that of the next step in `dh`) and c_t: fills da_t, turns `dc` into that on c_{t-1}."""
    n = dc.shape[1]
    for b in range(len(dc)):
        x, d = gates[b], da[b]
        lstm_row_backward(
            dy[b], x[:n], x[n : 2 * n], x[2 * n : 3 * n], x[3 * n :], before[b], tanh_c[b],
            d[:n], d[n : 2 * n], d[2 * n : 3 * n], d[3 * n :], dh[b], dc[b],
        )  # fmt: skip


@compile_inline
def gru_row(
    x_r: Array,
    x_z: Array,
    x_n: Array,
    m_r: Array,
    m_z: Array,
    m_n: Array,
    kept: Array,
    h: Array,
    carry: Array,
) -> None:
    for k in range(len(carry)):
        product = get(m_n, k)
        r, z = fast_sigmoid(get(x_r, k) + get(m_r, k)), fast_sigmoid(get(x_z, k) + get(m_z, k))
        n = fast_tanh(get(x_n, k) + r * product)
        after = n + z * (carry[k] - n)
        put(x_r, k, r)
        put(x_z, k, z)
        put(x_n, k, n)
        put(kept, k, product)
        put(h, k, after)
        carry[k] = after


@compile_cached
def fused_gru(x: Array, kept: Array, h: Array, m: Array, carry: Array) -> None:
    """From x_t and m_t [B, 3*H]: turns x_t into the gates and `carry` from h_{t-1} into h_t, keeps m_n, fills h_t."""
    n = carry.shape[1]
    for b in range(len(carry)):
        x_b, m_b = x[b], m[b]
        gru_row(
            x_b[:n], x_b[n : 2 * n], x_b[2 * n :], m_b[:n], m_b[n : 2 * n], m_b[2 * n :], kept[b], h[b], carry[b]
        )  # fmt: skip


@compile_inline
def gru_row_backward(
    dy: Array, gate_r: Array, gate_z: Array, gate_n: Array, before: Array, m_n: Array,
    dm_r: Array, dm_z: Array, dm_n: Array, dx_n: Array, dh: Array,
) -> None:  # fmt: skip
    for k in range(len(dh)):
        r, z, n = get(gate_r, k), get(gate_z, k), get(gate_n, k)
        error = dh[k] + get(dy, k)
        error_n = error * (F(1) - z) * (F(1) - n * n)
        put(dm_r, k, error_n * get(m_n, k) * r * (F(1) - r))
        put(dm_z, k, error * (get(before, k) - n) * z * (F(1) - z))
        put(dm_n, k, error_n * r)
        put(dx_n, k, error_n)
        dh[k] = error * z


@compile_cached
def fused_gru_backward(
    dy: Array,
    gates: Array,
    before: Array,
    m_n: Array,
    dm: Array,
    dx_n: Array,
    dh: Array,
) -> None:
    """From the error on h_t: fills dm_t and the candidate's block of dx_t; `dh` becomes what z lets through of it."""
    n = dh.shape[1]
    for b in range(len(dh)):
        x, d = gates[b], dm[b]
        gru_row_backward(
            dy[b], x[:n], x[n : 2 * n], x[2 * n :], before[b], m_n[b], d[:n], d[n : 2 * n], d[2 * n :], dx_n[b], dh[b]
        )  # fmt: skip
