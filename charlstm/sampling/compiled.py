"""A step of a quantized network for one sequence, compiled by numba. It reads one byte per weight, NumPy four.

The result is that of `QuantizedMatrix` and of `charlstm.cells`, to the last bit: sums of integers are exact, floats are
multiplied and added in the same order without fused multiply-add, and tanh is computed by NumPy's own function.
"""

# mypy: disable-error-code=untyped-decorator

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from numpy.typing import NDArray

from charlstm.cells import HALF, State
from charlstm.matrices import Array, QuantizedMatrix
from charlstm.sampling.network import LayerStep, Network
from charlstm.storage.jit import compile_cached, compile_inline

LANES = 32
"""Integers that are multiplied at once. The parts of a matrix are padded to a multiple of it."""


class Operand(NamedTuple):
    """A `QuantizedMatrix` [R, C] as the compiled functions read it.

    They take its fields one by one: unpacking a tuple costs numba as much time as a small product.
    """

    integers: NDArray[np.int8]  # the parts, each padded with zeros to a multiple of LANES columns
    edges: NDArray[np.int64]  # [2, parts + 1]: the first column of each part, and C; the same with padding
    units: Array
    level: Any
    is_bounded: bool

    @classmethod
    def from_quantized(cls, matrix: QuantizedMatrix) -> Operand:
        parts = [np.pad(part.astype(np.int8), ((0, 0), (0, -part.shape[1] % LANES))) for part in matrix.parts]
        edges = np.array([np.cumsum([0, *(part.shape[1] for part in each)]) for each in (matrix.parts, parts)])
        return cls(np.concatenate(parts, 1), edges, matrix.units, matrix.level, matrix.is_bounded)


class UfuncHeader(ctypes.Structure):
    """The start of NumPy's `PyUFuncObject` after the head of every object: a part of its public C API."""

    _fields_ = (
        ("nin", ctypes.c_int),
        ("nout", ctypes.c_int),
        ("nargs", ctypes.c_int),
        ("identity", ctypes.c_int),
        ("functions", ctypes.POINTER(ctypes.c_void_p)),
        ("data", ctypes.POINTER(ctypes.c_void_p)),
        ("ntypes", ctypes.c_int),
    )


class Ufunc(NamedTuple):
    """The function with which NumPy computes a ufunc for a contiguous array of float32: its address, and its data."""

    function: int
    data: int

    @classmethod
    def find(cls, ufunc: np.ufunc) -> Ufunc:
        """Return the function of a ufunc of one argument. Raises ImportError if NumPy stores it in another way."""
        header = UfuncHeader.from_address(id(ufunc) + object.__basicsize__)
        if (header.nin, header.nout, header.nargs, header.ntypes) != (1, 1, 2, len(ufunc.types)):
            raise ImportError("the ufuncs of this NumPy have another layout")
        k = ufunc.types.index("f->f")
        return cls(header.functions[k] or 0, header.data[k] or 0)


def compile_network(network: Network) -> None:
    """Compute the steps of single sequences of a quantized network with compiled functions from now on.

    Raises ImportError if NumPy stores its functions in another way than those versions that are known.
    """
    tanh = Ufunc.find(np.tanh)
    for matrix in network.matrices():
        matrix.multiply_vector = compile_product(matrix)
    if network.config.activation == "tanh" and not network.clamps:
        network.layer_steps = [
            make(layer, tanh) if (make := LAYER_STEPS.get(network.config.cell)) else None for layer in network.layers
        ]


def compile_product(matrix: QuantizedMatrix) -> Callable[[Array], Array]:
    """Return the function that multiplies a vector, [1, C]: [1, R]."""
    operand = Operand.from_quantized(matrix)

    def multiply_vector(x: Array) -> Array:
        y = np.empty((1, len(operand.units)), np.float32)
        multiply(*operand, np.ascontiguousarray(x[0]), y[0])
        return y

    return multiply_vector


def compile_lstm(layer: Any, tanh: Ufunc) -> LayerStep:
    matrix, bias = Operand.from_quantized(layer["weight_hh"]), layer["bias_hh"]

    def step(x: Array, state: State) -> State:
        h, c = state
        after = np.empty((2, 1, h.shape[1]), np.float32)
        step_lstm(*matrix, *tanh, bias, x[0], h[0], c[0], after[0, 0], after[1, 0])
        return after[0], after[1]

    return step


def compile_gru(layer: Any, tanh: Ufunc) -> LayerStep:
    matrix, bias = Operand.from_quantized(layer["weight_hh"]), layer["bias_hh"]

    def step(x: Array, state: State) -> State:
        after = np.empty_like(state[0])
        step_gru(*matrix, *tanh, bias, x[0], state[0][0], after[0])
        return (after,)

    return step


def compile_rnn(layer: Any, tanh: Ufunc) -> LayerStep:
    matrix, bias = Operand.from_quantized(layer["weight_hh"]), layer["bias_hh"]

    def step(x: Array, state: State) -> State:
        after = np.empty_like(state[0])
        step_rnn(*matrix, *tanh, bias, x[0], state[0][0], after[0])
        return (after,)

    return step


LAYER_STEPS = {"lstm": compile_lstm, "gru": compile_gru, "rnn": compile_rnn}
"""The cells whose whole step is compiled. Of the others, the products are."""


@partial(compile_inline, fastmath="")
def multiply_rows(integers: Any, edges: Any, units: Array, level: Any, is_bounded: bool, x: Array, y: Array) -> None:
    """Write the product of a matrix [R, C] with a vector [C] to `y` [R]."""
    scale = np.float32(1)
    factor = np.float32(level)
    if not is_bounded:
        scale = np.abs(x).max()
        if scale == 0:
            scale = np.float32(1)
        factor = np.float32(level) / scale
    parts = edges.shape[1] - 1
    rounded = np.zeros(integers.shape[1], np.int16)  # here, not kept: several threads may sample from one network
    for k in range(parts):
        for c in range(edges[0, k], edges[0, k + 1]):
            rounded[edges[1, k] + c - edges[0, k]] = np.rint(x[c] * factor)
    width = integers.shape[1]
    row, vector = integers.ctypes.data, rounded.ctypes.data
    for r in range(len(y)):
        total = np.float32(0)
        for k in range(parts):
            start = edges[1, k]
            count = edges[1, k + 1] - start
            total += np.float32(sum_products(np.uintp(row + start), np.uintp(vector + 2 * start), count))
        y[r] = total * units[r]
        if not is_bounded:
            y[r] *= scale
        row += width


@partial(compile_inline, fastmath="")
def apply_ufunc(function: int, data: int, x: Array, y: Array) -> None:
    """Write the values of a ufunc for `x` to `y`, both contiguous."""
    addresses, length, strides = np.empty(2, np.uintp), np.empty(1, np.intp), np.empty(2, np.intp)
    addresses[0], addresses[1], length[0] = x.ctypes.data, y.ctypes.data, len(x)
    strides[:] = x.itemsize
    call_loop(
        np.uintp(function),
        np.uintp(data),
        np.uintp(addresses.ctypes.data),
        np.uintp(length.ctypes.data),
        np.uintp(strides.ctypes.data),
    )


@partial(compile_cached, fastmath="")
def multiply(integers: Any, edges: Any, units: Array, level: Any, is_bounded: bool, x: Array, y: Array) -> None:
    """Write the product of a matrix [R, C] with a vector [C] to `y` [R]."""
    multiply_rows(integers, edges, units, level, is_bounded, x, y)


@partial(compile_cached, fastmath="")
def step_lstm(
    integers: Any,
    edges: Any,
    units: Array,
    level: Any,
    is_bounded: bool,
    function: int,
    data: int,
    bias: Array,
    x: Array,
    h: Array,
    c: Array,
    h_after: Array,
    c_after: Array,
) -> None:
    """Compute a step of `charlstm.cells.lstm`."""
    width = len(h)
    sums, gates = np.empty(4 * width, np.float32), np.empty(4 * width, np.float32)
    multiply_rows(integers, edges, units, level, is_bounded, h, sums)
    for k in range(4 * width):
        a = (sums[k] + bias[k]) + x[k]
        sums[k] = a if 2 * width <= k < 3 * width else a * HALF
    apply_ufunc(function, data, sums, gates)
    for k in range(width):
        i, f = gates[k] * HALF + HALF, gates[width + k] * HALF + HALF
        c_after[k] = f * c[k] + i * gates[2 * width + k]
    apply_ufunc(function, data, c_after, h_after)
    for k in range(width):
        h_after[k] *= gates[3 * width + k] * HALF + HALF


@partial(compile_cached, fastmath="")
def step_gru(
    integers: Any,
    edges: Any,
    units: Array,
    level: Any,
    is_bounded: bool,
    function: int,
    data: int,
    bias: Array,
    x: Array,
    h: Array,
    after: Array,
) -> None:
    """Compute a step of `charlstm.cells.gru`."""
    width = len(h)
    sums, gates = np.empty(3 * width, np.float32), np.empty(3 * width, np.float32)
    multiply_rows(integers, edges, units, level, is_bounded, h, sums)
    for k in range(3 * width):
        sums[k] += bias[k]
    for k in range(2 * width):
        sums[k] = (x[k] + sums[k]) * HALF
    apply_ufunc(function, data, sums[: 2 * width], gates[: 2 * width])
    for k in range(width):
        r = gates[k] * HALF + HALF
        sums[2 * width + k] = x[2 * width + k] + r * sums[2 * width + k]
    apply_ufunc(function, data, sums[2 * width :], gates[2 * width :])
    for k in range(width):
        n, z = gates[2 * width + k], gates[width + k] * HALF + HALF
        after[k] = n + z * (h[k] - n)


@partial(compile_cached, fastmath="")
def step_rnn(
    integers: Any,
    edges: Any,
    units: Array,
    level: Any,
    is_bounded: bool,
    function: int,
    data: int,
    bias: Array,
    x: Array,
    h: Array,
    after: Array,
) -> None:
    """Compute a step of `charlstm.cells.rnn`."""
    sums = np.empty(len(h), np.float32)
    multiply_rows(integers, edges, units, level, is_bounded, h, sums)
    for k in range(len(h)):
        sums[k] = (sums[k] + bias[k]) + x[k]
    apply_ufunc(function, data, sums, after)


@intrinsic
def call_loop(_context: Any, function: Any, data: Any, addresses: Any, length: Any, strides: Any) -> Any:
    """Call a function of a ufunc, `void (char **args, npy_intp *dimensions, npy_intp *steps, void *data)`."""
    signature = types.void(types.uintp, types.uintp, types.uintp, types.uintp, types.uintp)

    def generate(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        pointer = ir.IntType(8).as_pointer()
        kind = ir.FunctionType(ir.VoidType(), [pointer] * 4).as_pointer()
        address, last, *others = arguments
        operands = [builder.inttoptr(each, pointer) for each in (*others, last)]
        builder.call(builder.inttoptr(address, kind), operands)
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
