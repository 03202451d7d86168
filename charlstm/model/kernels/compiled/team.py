"""How a function runs on the threads of a team, each with a share of the units and of the sequences."""

# mypy: disable-error-code=untyped-decorator

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from charlstm.model.kernels.team import Part, Team
from charlstm.storage.jit import compile_inline

VOID, INDEX, POINTER = ir.VoidType(), ir.IntType(32), ir.IntType(8).as_pointer()

SMALL_MATRIX = 2**19
"""Bytes of a matrix that fits in the cache of a core, next to the rest."""

MIN_TEAM_ROWS = 4
"""Sequences of a thread from which on the micro-kernel is fast."""


def number_reader(kind: Any) -> Any:
    """Return the function of an address that makes a named tuple of the 64-bit integers there."""
    result = types.NamedUniTuple(types.intp, len(kind._fields), kind)

    @intrinsic
    def read_numbers(_context: Any, address: Any) -> Any:
        def generate(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
            first = builder.inttoptr(arguments[0], arguments[0].type.as_pointer())
            places = [context.get_constant(types.intp, k) for k in range(len(kind._fields))]
            return context.make_tuple(builder, result, [builder.load(builder.gep(first, [place])) for place in places])

        return result(types.uintp), generate

    return read_numbers


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
