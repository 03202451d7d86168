"""Calls the functions of the folder `compiled`. Without their machine code, numba compiles it first."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from charlstm.storage.machine_code import CodeStore, MachineCode, NativeFunction

ArrayKind = tuple[str, int]
"""The type of an array, in the notation of NumPy, and its number of dimensions."""

ARRAY_TYPES = {
    torch.float32: "f4",
    torch.float64: "f8",
    torch.bfloat16: "u2",  # the bits of bfloat16, a type that NumPy lacks
    torch.uint32: "u4",
    torch.int64: "i8",
    torch.bool: "b1",
}


def call(name: str, numbers: Sequence[int], arrays: Sequence[Tensor]) -> None:
    """Call a function with a named tuple of numbers and with the memory of contiguous tensors."""
    function = native_function(name, tuple((ARRAY_TYPES[a.dtype], a.dim()) for a in arrays))
    values = [*numbers]
    for a in arrays:
        assert a.is_contiguous()
        values += a.data_ptr(), *a.shape
    buffer = (ctypes.c_int64 * len(values))(*values)
    function(ctypes.addressof(buffer))


def code_store() -> CodeStore:
    """Return where the machine code of these functions is kept."""
    return CodeStore(Path(__file__).parent)


@cache
def native_function(name: str, kinds: tuple[ArrayKind, ...]) -> NativeFunction:
    """Return a function for these kinds of arrays: loaded, or compiled if it is called for the first time here."""

    def compile_code() -> MachineCode:
        from charlstm.model.kernels.compiled.entries import compile_entry  # imports numba

        return compile_entry(name, kinds)

    return code_store().find("-".join([name, *(f"{dtype}{ndim}" for dtype, ndim in kinds)]), compile_code)
