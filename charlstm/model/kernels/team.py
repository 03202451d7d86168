"""Runs a compiled function on the threads of torch's OpenMP, each with a share of the units and of the sequences.

Threads of our own would be a second team: those of OpenMP wait actively for some time after each tensor operation, and
would have to be displaced from their cores first. No Python runs in the team, so an exception cannot leave its threads
waiting for each other.
"""

# mypy: disable-error-code=untyped-decorator

from __future__ import annotations

import ctypes
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import torch
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from torch import Tensor

from charlstm.model.kernels.arithmetic import to_numba_array
from charlstm.storage.jit import compile_inline

VOID, INDEX, POINTER = ir.VoidType(), ir.IntType(32), ir.IntType(8).as_pointer()

SMALL_MATRIX = 2**19
"""Bytes of a matrix that fits in the cache of a core, next to the rest."""

MIN_TEAM_ROWS = 4
"""Sequences of a thread from which on the micro-kernel is fast."""


class TeamFunction(NamedTuple):
    """A compiled function that takes a `Part` and arrays, and one that calls `call_in_team` with it."""

    run: Any
    run_team: Any


class SharedWork(NamedTuple):
    """What the threads of a team share out."""

    batch: int
    hidden: int
    group: int  # units that are computed together
    matrix_bytes: int


class Team(NamedTuple):
    """The work of a team as its compiled functions read it, and the addresses of functions of an OpenMP runtime."""

    batch: int
    hidden: int
    group: int
    matrix_bytes: int
    threads: int
    run: int
    get_thread: int
    get_threads: int
    barrier: int


class Part(NamedTuple):
    """The share of a thread: its sequences and its units, from the first to the one after the last."""

    first: int
    last: int
    start: int
    end: int
    barrier: int  # address of a function that waits for all threads, or 0


@cache
def find_openmp() -> tuple[int, ...]:
    """Return the addresses for `Team` in the OpenMP runtime of torch; zeros where it has other names.

    The names are those of GCC. LLVM's runtime has them on Linux, too; those of macOS and Windows do not.
    """
    try:
        library = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"))
        names = "GOMP_parallel", "omp_get_thread_num", "omp_get_num_threads", "GOMP_barrier"
        return tuple(ctypes.cast(getattr(library, name), ctypes.c_void_p).value or 0 for name in names)
    except (OSError, AttributeError):
        return (0,) * 4


def run_team(function: TeamFunction, work: SharedWork, *arrays: Tensor) -> None:
    """Run a function on as many threads as torch uses, with the arrays as its arguments."""
    views, threads, openmp = tuple(to_numba_array(a) for a in arrays), torch.get_num_threads(), find_openmp()
    if threads == 1:
        function.run(Part(0, work.batch, 0, work.hidden, 0), *views)
    elif openmp[0]:
        function.run_team(Team(*work, threads, *openmp), views)
    else:
        count = min(threads, work.batch)
        edges = [work.batch * k // count for k in range(count + 1)]
        parts = [Part(first, last, 0, work.hidden, 0) for first, last in pairwise(edges)]
        for task in [thread_pool(threads).submit(function.run, part, *views) for part in parts]:
            task.result()


@cache
def thread_pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, "charlstm-kernel")


@compile_inline
def find_part(team: Any, thread: int, threads: int) -> Any:
    """Return the share of a thread.

    A matrix that is small stays in the cache of every core: then the sequences are shared out, and no thread waits for
    another. Otherwise as many threads as possible share out the units, in whole groups.
    """
    groups = (team.hidden + team.group - 1) // team.group
    unit_parts = (
        1 if team.matrix_bytes <= SMALL_MATRIX and team.batch >= MIN_TEAM_ROWS * threads else min(threads, groups)
    )
    while threads % unit_parts:
        unit_parts -= 1
    row_parts = threads // unit_parts
    row, unit = thread // unit_parts, thread % unit_parts
    return Part(
        team.batch * row // row_parts,
        team.batch * (row + 1) // row_parts,
        groups * unit // unit_parts * team.group,
        min(groups * (unit + 1) // unit_parts * team.group, team.hidden),
        team.barrier if unit_parts > 1 else 0,
    )


@compile_inline
def run_part(function: Any, team: Any, arguments: Any, thread: int, threads: int) -> None:
    function(find_part(team, thread, threads), *arguments)


@intrinsic
def call_in_team(typing: Any, function: Any, team: Any, arguments: Any) -> Any:
    """Call `function(part, *arguments)` on every thread of a team, and return when all have returned."""
    shared = types.void(function, team, arguments, types.intp, types.intp)

    def generate(context: Any, builder: Any, _signature: Any, values: Any) -> Any:
        call_by_address(
            builder,
            builder.extract_value(values[1], Team._fields.index("run")),
            build_task(context, builder.module, shared, values),
            store_values(builder, values[1:]),
            builder.trunc(builder.extract_value(values[1], Team._fields.index("threads")), INDEX),
            ir.Constant(INDEX, 0),
        )
        return context.get_dummy_value()

    return types.void(function, team, arguments), generate


def build_task(context: Any, module: Any, signature: Any, values: Any) -> Any:
    """Return a new function of C that takes the address of the values and calls `run_part` with them."""
    task = ir.Function(module, ir.FunctionType(VOID, [POINTER]), module.get_unique_name("task"))
    task.linkage = "internal"
    builder = ir.IRBuilder(task.append_basic_block())
    struct = ir.LiteralStructType([value.type for value in values[1:]])
    loaded = builder.load(builder.bitcast(task.args[0], struct.as_pointer()))
    team, arguments = (builder.extract_value(loaded, k) for k in range(2))
    numbers = [
        builder.sext(
            call_by_address(builder, builder.extract_value(team, Team._fields.index(name)), result=INDEX),
            ir.IntType(64),
        )
        for name in ("get_thread", "get_threads")
    ]
    compiled = context.compile_subroutine(builder, run_part.py_func, signature)
    context.call_internal_no_propagate(
        builder, compiled.fndesc, signature, [context.get_dummy_value(), team, arguments, *numbers]
    )
    builder.ret_void()
    return task


def store_values(builder: Any, values: Any) -> Any:
    """Store values in a struct on the stack, and return its address."""
    struct = ir.LiteralStructType([value.type for value in values])
    stored = ir.Constant(struct, ir.Undefined)
    for k, value in enumerate(values):
        stored = builder.insert_value(stored, value, k)
    return builder.bitcast(cgutils.alloca_once_value(builder, stored), POINTER)


def call_by_address(builder: Any, address: Any, *arguments: Any, result: Any = VOID) -> Any:
    kind = ir.FunctionType(result, [argument.type for argument in arguments])
    return builder.call(builder.inttoptr(address, kind.as_pointer()), arguments)


@intrinsic
def wait_for_team(_context: Any, address: Any) -> Any:
    """Call the function at an address, or do nothing if it is 0."""

    def generate(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        with builder.if_then(builder.icmp_signed("!=", arguments[0], ir.Constant(arguments[0].type, 0))):
            call_by_address(builder, arguments[0])
        return context.get_dummy_value()

    return types.void(types.intp), generate
