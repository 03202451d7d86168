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

from charlstm.storage.cache import compiled_folder

f32 = np.float32
NumbaArray = Any  # float32, or uint16 with the bits of bfloat16, which NumPy does not know


def to_numba_array(a: Tensor) -> NumbaArray:
    """The tensor's memory."""
    a = a.detach()
    return (a.view(uint16) if a.dtype == bfloat16 else a).numpy()


def compile_cached(function: Any) -> Any:
    """Compile a function at its first call and keep the result for later processes in the cache folder.

    If the user has set NUMBA_CACHE_DIR, that is the folder. If it cannot be written to, nothing is kept.
    """
    own = numba.config.CACHE_DIR
    folder = own or compiled_folder()
    try:
        numba.config.CACHE_DIR = str(folder)  # read when the function is decorated, and by no other function
        return numba.njit(cache=folder is not None, **numba_options("contract"))(function)
    except RuntimeError:  # numba has found no folder to write to
        return numba.njit(**numba_options("contract"))(function)
    finally:
        numba.config.CACHE_DIR = own


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


def load_float(a: NumbaArray, k: int) -> Any:
    """a[k] as float32."""


@overload(load_float, inline="always", strict=False)
def _get(a: Any, k: Any) -> Any:
    if a.dtype == types.uint16:
        return lambda a, k: float_of_bits(np.uint32(a[k]) << np.uint32(16))
    return lambda a, k: a[k]


def store_float(a: NumbaArray, k: int, number: Any) -> None:
    """a[k] = number, to the nearest, of two to the even one."""


@overload(store_float, inline="always", strict=False)
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
    x = f32(87) if x > f32(87) else x  # and what is no number stays none
    x = f32(-87) if x < f32(-87) else x
    shifted = x * f32(-1.4426950408889634) + f32(12582912)
    n = shifted - f32(12582912)
    r = (-x - n * f32(0.693359375)) + n * f32(2.12194440e-4)  # ln 2, in two parts: the first times n is exact
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


# One row each: the blocks of a row are arrays of their own, and the compiler can see that they do not overlap.


@compile_inline
def lstm_row(
    a_i: NumbaArray,
    a_f: NumbaArray,
    a_g: NumbaArray,
    a_o: NumbaArray,
    c: NumbaArray,
    tanh_c: NumbaArray,
    h: NumbaArray,
    carry: NumbaArray,
) -> None:
    for k in range(len(carry)):
        i, f, g, o = (
            fast_sigmoid(load_float(a_i, k)),
            fast_sigmoid(load_float(a_f, k)),
            fast_tanh(load_float(a_g, k)),
            fast_sigmoid(load_float(a_o, k)),
        )
        after = f * carry[k] + i * g
        bounded = fast_tanh(after)
        store_float(a_i, k, i)
        store_float(a_f, k, f)
        store_float(a_g, k, g)
        store_float(a_o, k, o)
        carry[k] = after
        store_float(c, k, after)
        store_float(tanh_c, k, bounded)
        store_float(h, k, o * bounded)


@compile_cached
def fused_lstm(a: NumbaArray, c: NumbaArray, tanh_c: NumbaArray, h: NumbaArray, carry: NumbaArray) -> None:
    """From a_t [B, 4*H]: turns it into the gates and `carry` from c_{t-1} into c_t, and fills c_t, tanh(c_t), h_t."""
    n = carry.shape[1]
    for b in range(len(carry)):
        x = a[b]
        lstm_row(x[:n], x[n : 2 * n], x[2 * n : 3 * n], x[3 * n :], c[b], tanh_c[b], h[b], carry[b])


@compile_inline
def lstm_row_backward(
    dy: NumbaArray, gate_i: NumbaArray, gate_f: NumbaArray, gate_g: NumbaArray, gate_o: NumbaArray,
    before: NumbaArray, tanh_c: NumbaArray,
    da_i: NumbaArray, da_f: NumbaArray, da_g: NumbaArray, da_o: NumbaArray, dh: NumbaArray, dc: NumbaArray,
) -> None:  # fmt: skip
    for k in range(len(dc)):
        i, f, g, o, t = (
            load_float(gate_i, k),
            load_float(gate_f, k),
            load_float(gate_g, k),
            load_float(gate_o, k),
            load_float(tanh_c, k),
        )
        error_h = load_float(dh, k) + load_float(dy, k)
        error_c = dc[k] + error_h * o * (f32(1) - t * t)
        store_float(da_i, k, error_c * g * i * (f32(1) - i))
        store_float(da_f, k, error_c * load_float(before, k) * f * (f32(1) - f))
        store_float(da_g, k, error_c * i * (f32(1) - g * g))
        store_float(da_o, k, error_h * t * o * (f32(1) - o))
        dc[k] = error_c * f


@compile_cached
def fused_lstm_backward(
    dy: NumbaArray,
    gates: NumbaArray,
    before: NumbaArray,
    tanh_c: NumbaArray,
    da: NumbaArray,
    dh: NumbaArray,
    dc: NumbaArray,
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
    x_r: NumbaArray,
    x_z: NumbaArray,
    x_n: NumbaArray,
    m_r: NumbaArray,
    m_z: NumbaArray,
    m_n: NumbaArray,
    kept: NumbaArray,
    h: NumbaArray,
    carry: NumbaArray,
) -> None:
    for k in range(len(carry)):
        product = load_float(m_n, k)
        r, z = (
            fast_sigmoid(load_float(x_r, k) + load_float(m_r, k)),
            fast_sigmoid(load_float(x_z, k) + load_float(m_z, k)),
        )
        n = fast_tanh(load_float(x_n, k) + r * product)
        after = n + z * (carry[k] - n)
        store_float(x_r, k, r)
        store_float(x_z, k, z)
        store_float(x_n, k, n)
        store_float(kept, k, product)
        store_float(h, k, after)
        carry[k] = after


@compile_cached
def fused_gru(x: NumbaArray, kept: NumbaArray, h: NumbaArray, m: NumbaArray, carry: NumbaArray) -> None:
    """From x_t and m_t [B, 3*H]: turns x_t into the gates and `carry` from h_{t-1} into h_t, keeps m_n, fills h_t."""
    n = carry.shape[1]
    for b in range(len(carry)):
        x_b, m_b = x[b], m[b]
        gru_row(
            x_b[:n], x_b[n : 2 * n], x_b[2 * n :], m_b[:n], m_b[n : 2 * n], m_b[2 * n :], kept[b], h[b], carry[b]
        )  # fmt: skip


@compile_inline
def gru_row_backward(
    dy: NumbaArray, gate_r: NumbaArray, gate_z: NumbaArray, gate_n: NumbaArray, before: NumbaArray, m_n: NumbaArray,
    dm_r: NumbaArray, dm_z: NumbaArray, dm_n: NumbaArray, dx_n: NumbaArray, dh: NumbaArray,
) -> None:  # fmt: skip
    for k in range(len(dh)):
        r, z, n = load_float(gate_r, k), load_float(gate_z, k), load_float(gate_n, k)
        error = dh[k] + load_float(dy, k)
        error_n = error * (f32(1) - z) * (f32(1) - n * n)
        store_float(dm_r, k, error_n * load_float(m_n, k) * r * (f32(1) - r))
        store_float(dm_z, k, error * (load_float(before, k) - n) * z * (f32(1) - z))
        store_float(dm_n, k, error_n * r)
        store_float(dx_n, k, error_n)
        dh[k] = error * z


@compile_cached
def fused_gru_backward(
    dy: NumbaArray,
    gates: NumbaArray,
    before: NumbaArray,
    m_n: NumbaArray,
    dm: NumbaArray,
    dx_n: NumbaArray,
    dh: NumbaArray,
) -> None:
    """From the error on h_t: fills dm_t and the candidate's block of dx_t; `dh` becomes what z lets through of it."""
    n = dh.shape[1]
    for b in range(len(dh)):
        x, d = gates[b], dm[b]
        gru_row_backward(
            dy[b], x[:n], x[n : 2 * n], x[2 * n :], before[b], m_n[b], d[:n], d[n : 2 * n], d[2 * n :], dx_n[b], dh[b]
        )  # fmt: skip
