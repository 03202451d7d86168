"""Functions compiled by numba, which are kept for later processes in the cache folder."""

# mypy: disable-error-code=untyped-decorator

from __future__ import annotations

from pathlib import Path
from typing import Any

import numba
from numba import types

from charlstm.storage.cache import compiled_folder, identify_modules
from charlstm.storage.machine_code import MachineCode


def compile_cached(function: Any, fastmath: str = "contract") -> Any:
    """Compile a function at its first call and keep the result for later processes in the cache folder.

    If the user has set NUMBA_CACHE_DIR, that is the folder. If it cannot be written to, nothing is kept. There is a
    folder for each state of the modules next to that of the function: numba itself would load what it has compiled
    when another module has changed whose functions are inlined.
    """
    own = numba.config.CACHE_DIR
    folder = own or compiled_folder()
    try:
        # read when the function is decorated, and by no other function
        numba.config.CACHE_DIR = str(Path(folder or "") / identify_modules(Path(function.__code__.co_filename).parent))
        return numba.njit(cache=folder is not None, **numba_options(fastmath))(function)
    except (RuntimeError, OSError):  # numba has found no folder to write to
        return numba.njit(**numba_options(fastmath))(function)
    finally:
        numba.config.CACHE_DIR = own


def compile_inline(function: Any, fastmath: str = "contract") -> Any:
    """Compile a function that is always inlined into its callers.

    If it were not, it would exist twice and be optimized differently each time. The process that compiles it would
    then differ in the last bits from processes that load it from the cache.
    """
    return numba.njit(forceinline=True, **numba_options(fastmath))(function)


def compile_to_machine_code(function: Any) -> MachineCode:
    """Compile a function of addresses that allocates no memory and returns nothing.

    Raises ImportError if numba is not to compile (NUMBA_DISABLE_JIT).
    """
    if numba.config.DISABLE_JIT:
        raise ImportError("NUMBA_DISABLE_JIT is set")
    count = function.__code__.co_argcount
    signature = types.void(*[types.uintp] * count)
    wrappers = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True, "_nrt": False}
    compiled = numba.njit(signature, **wrappers, **numba_options(""))(function).overloads[signature.args]
    return MachineCode(compiled.fndesc.llvm_func_name, count, compiled.library._get_compiled_object())


def numba_options(fastmath: str) -> dict[str, Any]:
    """Return the options of `numba.njit`. `fastmath` names the one relaxation of float arithmetic that LLVM may use.

    "contract" allows fused multiply-add, "reassoc" allows sums in another order; empty allows neither.
    """
    return {"nogil": True, "fastmath": {fastmath} if fastmath else False, "error_model": "numpy"}
