"""Compiles functions with numba to machine code that `machine_code.py` keeps and loads.

They take addresses, raise nothing and allocate nothing, so that their code needs no numba where it runs.
"""

# mypy: disable-error-code=untyped-decorator

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numba
import numpy as np
from numba import from_dtype, types
from numba.extending import intrinsic
from numba.np.arrayobj import populate_array

from charlstm.storage.machine_code import MachineCode


def compile_to_machine_code(function: Any, fastmath: str = "contract") -> MachineCode:
    """Compile a function of addresses that returns nothing. `fastmath` is that of `compile_inline`.

    Raises ImportError if numba is not to compile (NUMBA_DISABLE_JIT).
    """
    if numba.config.DISABLE_JIT:
        raise ImportError("NUMBA_DISABLE_JIT is set")
    count = function.__code__.co_argcount
    signature = types.void(*[types.uintp] * count)
    options = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True, **numba_options(fastmath)}
    result = numba.njit(signature, **options)(function).overloads[signature.args]
    return MachineCode(result.fndesc.llvm_func_name, count, result.library._get_compiled_object())


def compile_inline(function: Any, fastmath: str = "contract") -> Any:
    """Compile a function that is always inlined into its callers.

    fastmath: the one relaxation of float arithmetic that LLVM may use: "contract" allows fused multiply-add, "reassoc"
        allows sums in another order; empty allows neither.
    """
    return numba.njit(forceinline=True, **numba_options(fastmath))(function)


def numba_options(fastmath: str) -> dict[str, Any]:
    """Return the options of `numba.njit`."""
    return {"fastmath": {fastmath} if fastmath else False, "error_model": "numpy", "_nrt": False}


def array_at(dtype: Any, ndim: int = 1, *, of_pointer: bool = False) -> Any:
    """Return the function of an address and a shape that makes a contiguous array of the memory there.

    The shape is a tuple or, of one dimension, an int.

    of_pointer: the address is that of a pointer to the memory.
    """
    kind = types.Array(from_dtype(np.dtype(dtype)), ndim, "C")

    @intrinsic
    def make_array(_context: Any, address: Any, shape: Any) -> Any:
        def generate(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
            address, shape = arguments
            if of_pointer:
                address = builder.load(builder.inttoptr(address, address.type.as_pointer()))
            sizes = [shape] if ndim == 1 else [builder.extract_value(shape, k) for k in range(ndim)]
            return build_array(context, builder, kind, address, sizes)

        return kind(types.uintp, types.intp if ndim == 1 else types.UniTuple(types.intp, ndim)), generate

    return make_array


def make_reader(kinds: Sequence[tuple[str, int]]) -> Any:
    """Return the function of an address that makes a tuple of arrays.

    At the address there are the address and the shape of the first array, of the second, and so on, as 64-bit integers.

    kinds: the type and the number of dimensions of each.
    """
    arrays = [types.Array(from_dtype(np.dtype(dtype)), ndim, "C") for dtype, ndim in kinds]
    result = types.Tuple(arrays)

    @intrinsic
    def read_arrays(_context: Any, address: Any) -> Any:
        def generate(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
            numbers, position, values = builder.inttoptr(arguments[0], arguments[0].type.as_pointer()), 0, []
            for kind in arrays:
                places = [context.get_constant(types.intp, position + k) for k in range(1 + kind.ndim)]
                address, *sizes = (builder.load(builder.gep(numbers, [place])) for place in places)
                values.append(build_array(context, builder, kind, address, sizes))
                position += len(places)
            return context.make_tuple(builder, result, values)

        return result(types.uintp), generate

    return read_arrays


def build_array(context: Any, builder: Any, kind: Any, address: Any, sizes: Sequence[Any]) -> Any:
    """Return the array of numba with these sizes whose memory is at an address."""
    array = context.make_array(kind)(context, builder)
    size = context.get_constant(types.intp, context.get_abi_sizeof(context.get_data_type(kind.dtype)))
    strides = [size]
    for length in reversed(sizes[1:]):
        strides.insert(0, builder.mul(strides[0], length))
    data = builder.inttoptr(address, array.data.type)
    populate_array(array, data=data, shape=sizes, strides=strides, itemsize=size, meminfo=None)
    return array._getvalue()
