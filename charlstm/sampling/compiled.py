"""A step of a quantized network for one sequence, in machine code. It reads one byte per weight, NumPy four.

The result is that of `QuantizedMatrix` and of `charlstm.cells`, to the last bit: sums of integers are exact, floats are
multiplied and added in the same order without fused multiply-add, and tanh is computed by NumPy's own function.
numba compiles the functions once (`charlstm.sampling.kernels`); later processes load them without it.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from charlstm.cells import State
from charlstm.matrices import Array, QuantizedMatrix
from charlstm.sampling.network import LayerStep, Network
from charlstm.storage.machine_code import CodeStore, MachineCode, NativeFunction

LANES = 32
"""Integers that are multiplied at once. The parts of a matrix are padded to a multiple of it."""

OPERAND = np.dtype(
    [
        ("integers", np.uintp),  # address of the 8-bit integers [rows, width]
        ("edges", np.uintp),  # address of the first column of each part, and the number of columns
        ("padded_edges", np.uintp),  # the same with padding
        ("units", np.uintp),  # address of a factor for each row
        ("bias", np.uintp),  # address of the bias of the layer
        ("tanh", np.uintp),  # NumPy's function: `Ufunc`
        ("tanh_data", np.uintp),
        ("rows", np.intp),
        ("columns", np.intp),
        ("width", np.intp),  # columns with padding
        ("parts", np.intp),
        ("level", np.float32),
        ("is_bounded", np.bool_),
    ],
    align=True,
)
"""A `QuantizedMatrix`, the bias and the activation of a layer, as the compiled functions read them."""

OBJECT_HEAD = object.__basicsize__
"""Where the fields of a NumPy object begin, after the head of every object: a part of NumPy's public C API."""

STEP_CELLS = ("lstm", "gru", "rnn")
"""The cells whose whole step is compiled. Of the others, the products are."""


class Operand:
    """An `OPERAND`, with the arrays to which it refers.

    address: where it is.
    width: columns of the matrix with padding.
    """

    def __init__(self, matrix: QuantizedMatrix, bias: Array | None = None, tanh: Ufunc | None = None) -> None:
        parts = [np.pad(part.astype(np.int8), ((0, 0), (0, -part.shape[1] % LANES))) for part in matrix.parts]
        integers, edges, padded = np.concatenate(parts, 1), find_edges(matrix.parts), find_edges(parts)
        fields = np.zeros((), OPERAND)
        bias = None if bias is None else np.ascontiguousarray(bias, np.float32)
        self.arrays = (fields, integers, edges, padded, matrix.units, bias)
        fields["integers"], fields["units"] = integers.ctypes.data, matrix.units.ctypes.data
        fields["edges"], fields["padded_edges"] = edges.ctypes.data, padded.ctypes.data
        if bias is not None and tanh is not None:
            fields["bias"], fields["tanh"], fields["tanh_data"] = bias.ctypes.data, tanh.function, tanh.data
        fields["rows"], fields["width"] = integers.shape
        fields["columns"], fields["parts"] = edges[-1], len(parts)
        fields["level"], fields["is_bounded"] = matrix.level, matrix.is_bounded
        self.address, self.width = fields.ctypes.data, integers.shape[1]


def find_edges(parts: Sequence[NDArray[Any]]) -> NDArray[np.int64]:
    """Return the first column of each part, and the number of columns."""
    return np.cumsum([0, *(part.shape[1] for part in parts)], dtype=np.int64)


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
        header = UfuncHeader.from_address(id(ufunc) + OBJECT_HEAD)
        if (header.nin, header.nout, header.nargs, header.ntypes) != (1, 1, 2, len(ufunc.types)):
            raise ImportError("the ufuncs of this NumPy have another layout")
        k = ufunc.types.index("f->f")
        return cls(header.functions[k] or 0, header.data[k] or 0)


@cache
def check_arrays() -> None:
    """Raise ImportError if NumPy does not store the pointer to an array's data first."""
    array = np.zeros(1)
    if ctypes.c_void_p.from_address(id(array) + OBJECT_HEAD).value != array.ctypes.data:
        raise ImportError("the arrays of this NumPy have another layout")


def compile_network(network: Network, *, compiling: bool = True) -> None:
    """Compute the steps of single sequences of a quantized network with compiled functions from now on.

    compiling: whether functions are compiled that are not yet. Otherwise nothing changes if one is missing.

    Raises ImportError if numba and llvmlite are not installed, or if NumPy stores its objects in another way than those
    versions that are known.
    """
    check_arrays()
    tanh, store, cell = Ufunc.find(np.tanh), CodeStore(Path(__file__).parent), network.config.cell
    has_step = cell in STEP_CELLS and network.config.activation == "tanh" and not network.clamps
    found: list[NativeFunction] = []
    for name in ("multiply", cell) if has_step else ("multiply",):
        function = store.find(name, partial(compile_function, name)) if compiling else store.load(name)
        if function is None:
            return
        found.append(function)
    for matrix in network.matrices():
        matrix.multiply_vector = compile_product(matrix, found[0])
    if has_step:
        network.layer_steps = [compile_step(layer, found[1], tanh) for layer in network.layers]


def compile_function(name: str) -> MachineCode:
    """Compile a function of `charlstm.sampling.kernels`. Raises ImportError if numba is not there."""
    from charlstm.sampling.kernels import FUNCTIONS  # imports numba
    from charlstm.storage.jit import compile_to_machine_code

    return compile_to_machine_code(FUNCTIONS[name], fastmath="")


def compile_product(matrix: QuantizedMatrix, function: NativeFunction) -> Callable[[Array], Array]:
    """Return the function that multiplies a vector, [1, C]: [1, R]."""
    operand, rows = Operand(matrix), len(matrix.units)

    def multiply_vector(x: Array) -> Array:
        x, y = np.ascontiguousarray(x, np.float32), np.empty((1, rows), np.float32)
        rounded = np.empty(operand.width, np.int16)  # here, not kept: several threads may sample from one network
        function(operand.address, id(rounded) + OBJECT_HEAD, id(x) + OBJECT_HEAD, id(y) + OBJECT_HEAD)
        return y

    return multiply_vector


def compile_step(layer: Any, function: NativeFunction, tanh: Ufunc) -> LayerStep:
    """Return the function that computes a step of a layer."""
    operand = Operand(layer["weight_hh"], layer["bias_hh"], tanh)

    def step(x: Array, state: State) -> State:
        x, *before = (np.ascontiguousarray(array, np.float32) for array in (x, *state))
        after = tuple(np.empty_like(array) for array in before)
        rounded, scratch = np.empty(operand.width, np.int16), np.empty(2 * x.size, np.float32)
        function(operand.address, *(id(array) + OBJECT_HEAD for array in (rounded, scratch, x, *before, *after)))
        return after

    return step
