"""Steps of a quantized network for one sequence, which numba compiles for `compiled.py`.

An array is passed as the address of the pointer to its data; a matrix as the address of an `OPERAND`.
"""

# mypy: disable-error-code=untyped-decorator

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from charlstm.cells import HALF
from charlstm.matrices import Array
from charlstm.sampling.compiled import LANES, OPERAND
from charlstm.storage.jit import array_at, compile_inline

inline = partial(compile_inline, fastmath="")


floats_at, sizes_at, addresses_at, operands_at = map(array_at, (np.float32, np.int64, np.uintp, OPERAND))
floats_of, shorts_of = array_at(np.float32, of_pointer=True), array_at(np.int16, of_pointer=True)


@inline
def multiply_rows(matrix: Any, x: Array, rounded: int, y: Array) -> None:
    """Write the product of an operand [R, C] with a vector [C] to `y` [R]. `rounded` has room for its integers.

    Fields are read once: to LLVM, each store might change them.
    """
    is_bounded, parts, width = matrix.is_bounded, matrix.parts, matrix.width
    scale, factor = np.float32(1), matrix.level
    if not is_bounded:
        scale = np.float32(0)
        for c in range(len(x)):
            scale = max(scale, abs(x[c]))
        if scale == 0:
            scale = np.float32(1)
        factor = factor / scale
    edges, padded = sizes_at(matrix.edges, parts + 1), sizes_at(matrix.padded_edges, parts + 1)
    integers = shorts_of(rounded, width)
    integers[:] = 0
    for k in range(parts):
        part, rounded_part = x[edges[k] : edges[k + 1]], integers[padded[k] : padded[k + 1]]
        for c in range(len(part)):
            rounded_part[c] = np.rint(part[c] * factor)
    units, row, vector = floats_at(matrix.units, len(y)), matrix.integers, addresses_at(rounded, 1)[0]
    for r in range(len(y)):
        total = np.float32(0)
        for k in range(parts):
            start = np.uintp(padded[k])
            total += np.float32(sum_products(row + start, vector + np.uintp(2) * start, padded[k + 1] - padded[k]))
        y[r] = total * units[r]
        row += np.uintp(width)
    if not is_bounded:
        for r in range(len(y)):
            y[r] *= scale


def multiply(operand: int, rounded: int, x: int, y: int) -> None:
    """Write the product of a matrix [R, C] with a vector [C] to `y` [R]."""
    matrix = operands_at(operand, 1)[0]
    multiply_rows(matrix, floats_of(x, matrix.columns), rounded, floats_of(y, matrix.rows))


def step_lstm(operand: int, rounded: int, scratch: int, x: int, h: int, c: int, h_after: int, c_after: int) -> None:
    """Compute a step of `charlstm.cells.lstm`. `scratch` has room for 8 H floats."""
    matrix = operands_at(operand, 1)[0]
    width = matrix.columns
    room, bias, inputs = floats_of(scratch, 8 * width), floats_at(matrix.bias, 4 * width), floats_of(x, 4 * width)
    sums, gates = room[: 4 * width], room[4 * width :]
    before, after, outputs = floats_of(c, width), floats_of(c_after, width), floats_of(h_after, width)
    multiply_rows(matrix, floats_of(h, width), rounded, sums)
    for k in range(4 * width):
        a = (sums[k] + bias[k]) + inputs[k]
        sums[k] = a if 2 * width <= k < 3 * width else a * HALF
    apply_ufunc(matrix.tanh, matrix.tanh_data, sums, gates)
    for k in range(width):
        i, f = gates[k] * HALF + HALF, gates[width + k] * HALF + HALF
        after[k] = f * before[k] + i * gates[2 * width + k]
    apply_ufunc(matrix.tanh, matrix.tanh_data, after, outputs)
    for k in range(width):
        outputs[k] *= gates[3 * width + k] * HALF + HALF


def step_gru(operand: int, rounded: int, scratch: int, x: int, h: int, h_after: int) -> None:
    """Compute a step of `charlstm.cells.gru`. `scratch` has room for 6 H floats."""
    matrix = operands_at(operand, 1)[0]
    width = matrix.columns
    room, bias, inputs = floats_of(scratch, 6 * width), floats_at(matrix.bias, 3 * width), floats_of(x, 3 * width)
    sums, gates = room[: 3 * width], room[3 * width :]
    before, after = floats_of(h, width), floats_of(h_after, width)
    multiply_rows(matrix, before, rounded, sums)
    for k in range(3 * width):
        sums[k] += bias[k]
    for k in range(2 * width):
        sums[k] = (inputs[k] + sums[k]) * HALF
    apply_ufunc(matrix.tanh, matrix.tanh_data, sums[: 2 * width], gates[: 2 * width])
    for k in range(width):
        r = gates[k] * HALF + HALF
        sums[2 * width + k] = inputs[2 * width + k] + r * sums[2 * width + k]
    apply_ufunc(matrix.tanh, matrix.tanh_data, sums[2 * width :], gates[2 * width :])
    for k in range(width):
        n, z = gates[2 * width + k], gates[width + k] * HALF + HALF
        after[k] = n + z * (before[k] - n)


def step_rnn(operand: int, rounded: int, scratch: int, x: int, h: int, h_after: int) -> None:
    """Compute a step of `charlstm.cells.rnn`. `scratch` has room for 2 H floats."""
    matrix = operands_at(operand, 1)[0]
    width = matrix.columns
    sums, bias, inputs = floats_of(scratch, width), floats_at(matrix.bias, width), floats_of(x, width)
    multiply_rows(matrix, floats_of(h, width), rounded, sums)
    for k in range(width):
        sums[k] = (sums[k] + bias[k]) + inputs[k]
    apply_ufunc(matrix.tanh, matrix.tanh_data, sums, floats_of(h_after, width))


FUNCTIONS = {"multiply": multiply, "lstm": step_lstm, "gru": step_gru, "rnn": step_rnn}


@inline
def apply_ufunc(function: int, data: int, x: Array, y: Array) -> None:
    """Write the values of a ufunc for `x` to `y`, both contiguous."""
    call_loop(function, data, x.ctypes.data, y.ctypes.data, len(x))


@intrinsic
def call_loop(_context: Any, function: Any, data: Any, x: Any, y: Any, length: Any) -> Any:
    """Call a function of a ufunc, `void (char **args, npy_intp *dimensions, npy_intp *steps, void *data)`."""
    signature = types.void(types.uintp, types.uintp, types.uintp, types.uintp, types.intp)

    def generate(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        pointer, size = ir.IntType(8).as_pointer(), arguments[0].type
        function, data, x, y, length = arguments
        step = ir.Constant(size, np.dtype(np.float32).itemsize)
        operands = []
        for values in ((x, y), (length,), (step, step)):
            array = cgutils.alloca_once(builder, ir.ArrayType(size, len(values)))
            for k, value in enumerate(values):
                builder.store(value, cgutils.gep_inbounds(builder, array, 0, k))
            operands.append(builder.bitcast(array, pointer))
        kind = ir.FunctionType(ir.VoidType(), [pointer] * 4).as_pointer()
        builder.call(builder.inttoptr(function, kind), [*operands, builder.inttoptr(data, pointer)])
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def sum_products(_context: Any, a: Any, b: Any, count: Any) -> Any:
    """Return the sum of a[k] * b[k] in 32 bits. a: address of 8-bit integers; b: of 16-bit ones.

    count: a multiple of `LANES`.

    Loops of numba use half of each vector register: numba's integers have 64 bits. The sum of neighboring products of
    16-bit integers is one instruction of many processors (vpmaddwd of x86).
    """
    signature = types.int32(types.uintp, types.uintp, types.intp)

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        lanes = LANES // 2  # two sums, so that an addition does not wait for the one before
        i8, i16, i32 = (ir.IntType(bits) for bits in (8, 16, 32))
        products, sums = ir.VectorType(i32, lanes), ir.VectorType(i32, lanes // 2)
        first = builder.inttoptr(arguments[0], i8.as_pointer())
        second = builder.inttoptr(arguments[1], i16.as_pointer())
        totals = [cgutils.alloca_once_value(builder, ir.Constant(sums, [0] * (lanes // 2))) for _ in range(2)]
        even, odd = (ir.Constant(sums, list(range(start, lanes, 2))) for start in (0, 1))
        size = arguments[2].type
        with cgutils.for_range(builder, builder.sdiv(arguments[2], ir.Constant(size, LANES))) as loop:
            for half, total in enumerate(totals):
                at = builder.mul(loop.index, ir.Constant(size, LANES))
                at = builder.add(at, ir.Constant(size, half * lanes))

                def load(address: Any, kind: Any, at: Any = at) -> Any:
                    pointer = builder.bitcast(builder.gep(address, [at]), ir.VectorType(kind, lanes).as_pointer())
                    return builder.sext(builder.load(pointer, align=1), products)

                product = builder.mul(load(first, i8), load(second, i16))
                unused = ir.Constant(products, ir.Undefined)
                pairs = [builder.shuffle_vector(product, unused, which) for which in (even, odd)]
                builder.store(builder.add(builder.load(total), builder.add(*pairs)), total)
        reduce = ir.FunctionType(i32, [sums])
        function = cgutils.get_or_insert_function(builder.module, reduce, f"llvm.vector.reduce.add.v{lanes // 2}i32")
        return builder.call(function, [builder.add(*(builder.load(total) for total in totals))])

    return signature, generate
