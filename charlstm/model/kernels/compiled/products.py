"""The product of a few rows with the same matrix at every step of a sequence.

A general product first copies the matrix into an order in which it is read from one end to the other. With 16 rows that
takes as long as a third of the product, and a sequence would do it at every step. Here it is done once per sequence:
the matrix is stored in panels, and the innermost loop is the micro-kernel of Van Zee and van de Geijn 2015 (BLIS): it
keeps the sums of a few rows and one panel in registers while it reads the panel once. Every sum is added up in the
order of the columns, so a result does not depend on the number of rows or threads. Sums are float32.
"""

# mypy: disable-error-code=untyped-decorator

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, overload

from charlstm.model.kernels.compiled.arithmetic import NumbaArray
from charlstm.model.kernels.compiled.micro_kernels import build_amx_kernel, build_amx_setup, get_micro_kernel
from charlstm.model.kernels.panels import AMX_ROWS, AMX_WORDS, TILE, WIDTH, WORD_BYTES
from charlstm.storage.jit import array_at, compile_inline

bytes_at = array_at(np.uint8)


def add_product(panels: NumbaArray, first: int, outputs: int, x: int, rows: int, out: int) -> None:
    """Add x W^T to `out`, for some rows of W.

    Args:
        panels: those of W [M, N].
        first: the panel of the first of these rows of W.
        outputs: the number of these rows of W.
        x: address of the inputs [rows, words].
        rows: B.
        out: address of the sums [rows, outputs].
    """


@overload(add_product, inline="always", strict=False)
def _add_product(panels: Any, first: Any, outputs: Any, x: Any, rows: Any, out: Any) -> Any:
    if panels.ndim == 4:
        return lambda panels, first, outputs, x, rows, out: add_amx_product(panels, first, outputs, x, rows, out)
    return lambda panels, first, outputs, x, rows, out: add_vector_product(panels, first, outputs, x, rows, out)


def make_reservation(size: int) -> Any:
    """Return the function that returns the address of `size` bytes on the stack of its caller."""

    @intrinsic
    def reserve(_context: Any) -> Any:
        def generate(_context: Any, builder: Any, _signature: Any, _arguments: Any) -> Any:
            return builder.ptrtoint(cgutils.alloca_once(builder, ir.ArrayType(ir.IntType(8), size)), ir.IntType(64))

        return types.intp(), generate

    return reserve


SETUP_BYTES = 64
reserve_tile = make_reservation(TILE.rows * WIDTH * WORD_BYTES)
reserve_amx_tile, reserve_setup = make_reservation(2 * AMX_ROWS * WIDTH * WORD_BYTES), make_reservation(SETUP_BYTES)


@compile_inline
def add_vector_product(panels: NumbaArray, first: int, outputs: int, x: int, rows: int, out: int) -> None:
    """Compute `add_product` with vector instructions."""
    words = panels.shape[1]
    tile = reserve_tile()
    panel = address_of(panels) + first * words * WIDTH * WORD_BYTES
    for start in range(0, outputs, WIDTH):
        width = min(outputs - start, WIDTH)
        row = 0
        while row < rows:
            count = choose_rows(rows - row)
            at, to = x + row * words * WORD_BYTES, out + (row * outputs + start) * WORD_BYTES
            if width == WIDTH:
                add_tile(panels, count, at, words, panel, to, outputs)
            else:
                copy_block(to, outputs, tile, WIDTH, count, width)
                add_tile(panels, count, at, words, panel, tile, WIDTH)
                copy_block(tile, WIDTH, to, outputs, count, width)
            row += count
        panel += words * WIDTH * WORD_BYTES


@compile_inline
def add_amx_product(panels: NumbaArray, first: int, outputs: int, x: int, rows: int, out: int) -> None:
    """Compute `add_product` with tiles of AMX."""
    words = panels.shape[1] * AMX_WORDS
    tile, setup = reserve_amx_tile(), reserve_setup()
    for row in range(0, rows, 2 * AMX_ROWS):
        count = min(rows - row, 2 * AMX_ROWS)
        configure_tiles(setup, min(count, AMX_ROWS), max(count - AMX_ROWS, 1))
        at = x + row * words * WORD_BYTES
        panel = address_of(panels) + first * words * WIDTH * WORD_BYTES
        for start in range(0, outputs, WIDTH):
            width = min(outputs - start, WIDTH)
            to, stride = out + (row * outputs + start) * WORD_BYTES, outputs
            if width < WIDTH:
                copy_block(to, outputs, tile, WIDTH, count, width)
                to, stride = tile, WIDTH
            if count > AMX_ROWS:
                add_amx_tiles_32(at, words, panel, to, stride)
            else:
                add_amx_tiles_16(at, words, panel, to, stride)
            if width < WIDTH:
                copy_block(to, WIDTH, out + (row * outputs + start) * WORD_BYTES, outputs, count, width)
            panel += words * WIDTH * WORD_BYTES
    release_tiles()


@compile_inline
def copy_block(source: int, source_stride: int, target: int, target_stride: int, rows: int, width: int) -> None:
    """Copy words between blocks, given their addresses and the distances between their rows."""
    for row in range(rows):
        for k in range(width):
            copy_word(source + (row * source_stride + k) * WORD_BYTES, target + (row * target_stride + k) * WORD_BYTES)


@intrinsic
def copy_word(_context: Any, source: Any, target: Any) -> Any:
    def generate(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        first, second = (builder.inttoptr(address, ir.IntType(32).as_pointer()) for address in arguments)
        builder.store(builder.load(first), second)
        return context.get_dummy_value()

    return types.void(types.intp, types.intp), generate


@compile_inline
def choose_rows(remaining: int) -> int:
    """Return for how many of the remaining rows to call the micro-kernel next."""
    if remaining >= TILE.rows:
        return TILE.rows
    return 4 if remaining >= 4 else 2 if remaining >= 2 else 1


def make_micro_kernel(rows: int) -> Any:
    """Return the micro-kernel for this many rows: it adds their products with one panel to `out`.

    Its arguments are the panels, for their type; the addresses of the rows, of the panel and of the outputs; and after
    that of the rows their length, after that of the outputs the distance between their rows, both in words.
    """

    @intrinsic
    def micro_kernel(_context: Any, panels: Any, x: Any, words: Any, panel: Any, out: Any, stride: Any) -> Any:
        def generate(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
            is_bfloat = panels.dtype != types.float32
            builder.call(get_micro_kernel(builder.module, TILE._replace(rows=rows), is_bfloat), arguments[1:])
            return context.get_dummy_value()

        return types.void(panels, *[types.intp] * 5), generate

    return micro_kernel


add_8_rows, add_4_rows, add_2_rows, add_1_row = (make_micro_kernel(rows) for rows in (8, 4, 2, 1))


@compile_inline
def add_tile(panels: NumbaArray, rows: int, x: int, words: int, panel: int, out: int, stride: int) -> None:
    if rows == 8:
        add_8_rows(panels, x, words, panel, out, stride)
    elif rows == 4:
        add_4_rows(panels, x, words, panel, out, stride)
    elif rows == 2:
        add_2_rows(panels, x, words, panel, out, stride)
    else:
        add_1_row(panels, x, words, panel, out, stride)


def make_amx_kernel(tiles: int) -> Any:
    """Return the micro-kernel of AMX for this many tiles of rows, with the last five of the arguments above."""

    @intrinsic
    def amx_kernel(_context: Any, x: Any, words: Any, panel: Any, out: Any, stride: Any) -> Any:
        def generate(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
            build_amx_kernel(builder, tiles, *arguments)
            return context.get_dummy_value()

        return types.void(*[types.intp] * 5), generate

    return amx_kernel


add_amx_tiles_16, add_amx_tiles_32 = (make_amx_kernel(tiles) for tiles in (1, 2))


@compile_inline
def configure_tiles(address: int, low: int, high: int) -> None:
    """Set the rows of the tiles: 0 to 3 hold sums, 4 and 5 words of a panel, 6 and 7 words of the rows.

    address: that of `SETUP_BYTES` bytes.
    """
    setup = bytes_at(address, SETUP_BYTES)
    setup[:] = 0
    setup[0] = 1
    for tile in range(8):
        setup[16 + 2 * tile] = AMX_WORDS * WORD_BYTES
        setup[48 + tile] = AMX_ROWS
    setup[48] = setup[49] = setup[54] = low
    setup[50] = setup[51] = setup[55] = high
    load_tile_setup(address)


@intrinsic
def load_tile_setup(_context: Any, address: Any) -> Any:
    def generate(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        build_amx_setup(builder, arguments[0])
        return context.get_dummy_value()

    return types.void(types.intp), generate


@intrinsic
def release_tiles(_context: Any) -> Any:
    def generate(context: Any, builder: Any, _signature: Any, _arguments: Any) -> Any:
        build_amx_setup(builder, None)
        return context.get_dummy_value()

    return types.void(), generate


@intrinsic
def address_of(_context: Any, array: Any) -> Any:
    """Return the address of the first element of an array."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        return builder.ptrtoint(data, ir.IntType(64))

    return types.intp(array), generate
