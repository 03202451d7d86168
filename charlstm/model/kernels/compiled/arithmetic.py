"""Floats in functions that numba compiles: bfloat16 in memory, and the exponential functions of the gates.

Arrays are read and written in their own type; the arithmetic is in float32.
"""

# mypy: disable-error-code=untyped-decorator

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

f32 = np.float32
NumbaArray = Any
"""A NumPy array of float32, or of uint16 that holds the bits of bfloat16, a type that NumPy lacks."""


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


@intrinsic
def load_float(_context: Any, a: Any, k: Any) -> Any:
    """Return element k of an array as float32, counted over all dimensions of a contiguous array."""

    def generate(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        value = builder.load(point_to(context, builder, a, arguments))
        if a.dtype != types.uint16:
            return value
        bits = builder.shl(builder.zext(value, ir.IntType(32)), ir.Constant(ir.IntType(32), 16))
        return builder.bitcast(bits, ir.FloatType())

    return types.float32(a, types.intp), generate


@intrinsic
def store_float(_context: Any, a: Any, k: Any, number: Any) -> Any:
    """Set element k to a number, rounded to the nearest, ties to even. An array of uint32 has two bfloat16 in each."""

    def generate(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        pointer, value = point_to(context, builder, a, arguments), arguments[2]
        if a.dtype == types.float32:
            builder.store(value, pointer)
            return context.get_dummy_value()
        word = ir.IntType(32)
        bits = builder.bitcast(value, word)
        last = builder.and_(builder.lshr(bits, ir.Constant(word, 16)), ir.Constant(word, 1))
        bits = builder.add(builder.add(bits, ir.Constant(word, 0x7FFF)), last)
        half = builder.trunc(builder.lshr(bits, ir.Constant(word, 16)), ir.IntType(16))
        builder.store(half, builder.bitcast(pointer, ir.IntType(16).as_pointer()))
        return context.get_dummy_value()

    return types.void(a, types.intp, types.float32), generate


def point_to(context: Any, builder: Any, a: Any, arguments: Any) -> Any:
    data = context.make_array(a)(context, builder, arguments[0]).data
    if a.dtype == types.uint32:
        data = builder.bitcast(data, ir.IntType(16).as_pointer())
    return builder.gep(data, [arguments[1]])


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
